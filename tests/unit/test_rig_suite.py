"""tests.rig.suite: results are added up truthfully."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rig import suite


def report(place: Path, **counts: int) -> Path:
    path = place / "report.xml"
    attributes = " ".join(f'{key}="{value}"' for key, value in counts.items())
    path.write_text(f"<testsuites><testsuite {attributes}/></testsuites>")
    return path


def test_a_report_is_counted(tmp_path: Path) -> None:
    counted = suite.count(report(tmp_path, tests=10, failures=2, errors=1, skipped=3), 1)
    assert counted == suite.Tally(passed=4, failed=3, skipped=3)


def test_tallies_add_up_and_read_well() -> None:
    assert str(suite.Tally(1, 2, 3) + suite.Tally(10, 20, 30)) == "11 passed, 22 failed, 33 skipped"


@pytest.mark.parametrize("status", [1, 2, 3, 124, 125, -9])
def test_a_run_that_broke_off_is_a_failure(tmp_path: Path, status: int) -> None:
    assert suite.count(tmp_path / "never-written.xml", status).failed == 1
    assert suite.count(report(tmp_path, tests=3), status) == suite.Tally(passed=3, failed=1)


def test_a_report_cut_short_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "cut.xml").write_text("<testsuites><testsui")
    assert suite.count(tmp_path / "cut.xml", 0).failed == 1


def test_a_filter_that_leaves_one_part_empty_is_no_failure(tmp_path: Path) -> None:
    assert suite.count(report(tmp_path, tests=0), suite.NOTHING_COLLECTED) == suite.Tally()


@pytest.mark.parametrize(
    ("given", "outside", "inside"),
    [("", "", "kernel"), ("kernel, consul,", "consul,testkernel", "consul,kernel"), ("bird", "bird", "bird,kernel")],
)
def test_the_kernel_is_demanded_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, given: str, outside: str, inside: str
) -> None:
    monkeypatch.setenv("ANYCASTLB_REQUIRE", given)
    assert (suite.required(inside=False), suite.required(inside=True)) == (outside, inside)


def test_every_folder_of_tests_is_run_once() -> None:
    folders = [folder for part in suite.PARTS for folder in part.folders]
    tests = Path(__file__).resolve().parents[1]
    having = {path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")}
    assert having <= set(folders)
    assert len(folders) == len(set(folders))


def test_a_log_is_printed_as_it_grows_and_whole(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    lines = [b"one\n", b"two\n", b"three\n"]

    def ended() -> bool:
        with log.open("ab") as file:
            file.write(lines.pop(0) if lines else b"")
        return not lines

    assert b"".join(suite.printed(log, ended)) == b"one\ntwo\nthree\n"


def test_a_part_that_printed_nothing_ends_too(tmp_path: Path) -> None:
    assert list(suite.printed(tmp_path / "never-written.log", lambda: True)) == []
