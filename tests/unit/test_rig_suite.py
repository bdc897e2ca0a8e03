"""tests.rig.suite: results are added up truthfully."""

from __future__ import annotations

import os
import threading
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


def test_every_file_of_tests_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(suite.debian.REPOSITORY)
    paths = [Path(path) for part in suite.QUEUE for share in suite.deal(part, {}) for path in share.paths]
    files = [file for path in paths for file in ([path] if path.suffix else path.rglob("test_*.py"))]
    assert sorted(files) == sorted(Path("tests").rglob("test_*.py"))


def test_shares_take_equally_long_and_a_new_file_counts_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in {"a": 1, "b": 1, "c": 1, "new": 30 * suite.BYTES_A_SECOND}.items():
        (tmp_path / f"test_{name}.py").write_text("#" * size)
    part = suite.Part("lab", (".",), inside=True, shares=2)
    dealt = suite.deal(part, {"test_a.py": 50, "test_b.py": 40, "test_c.py": 20})
    assert [(share.name, share.paths) for share in dealt] == [
        ("lab 1", ("test_a.py", "test_c.py")),
        ("lab 2", ("test_b.py", "test_new.py")),
    ]


def test_every_part_is_performed_and_whoever_has_nothing_to_do_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is polite does not come to its second part before the others have taken it, which need not be."""
    parts = [
        suite.Part("slow", (), inside=False, lane="polite"),
        suite.Part("late", (), inside=False, lane="polite"),
        suite.Part("built", (), inside=True, after="late"),
        suite.Part("kernel", (), inside=True),
    ]
    others = threading.Event()
    began: list[str] = []
    politely: list[str] = []

    def perform(part: suite.Part, arguments: list[str], polite: set[int] | None) -> suite.Result:
        began.append(part.name)
        if polite is not None:
            politely.append(part.name)
        if part.name == "slow":
            others.wait(60)
        if part.name == "built":
            others.set()
        return suite.Result(suite.Tally(passed=1), 0.0, 0.0)

    monkeypatch.setattr(suite, "perform", perform)
    monkeypatch.setattr(suite.os, "cpu_count", lambda: 2)
    queues = suite.Queues(parts, [])
    queues.start()
    total = sum((result.result(60).tally for result in queues.results.values()), suite.Tally())
    assert total == suite.Tally(passed=4)
    assert sorted(began) == ["built", "kernel", "late", "slow"]
    assert began.index("late") < began.index("built")
    assert set(politely) <= {"slow"}, "no kernel's part was left to begin when the others did"


def test_a_polite_part_under_way_becomes_like_the_others_if_we_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside two busy loops one that stayed polite got 3 % of a processor, with half of the unit tests to go."""
    rude = "import os, time\nprint(os.nice(0), flush=True)\nwhile os.geteuid() == 0 and os.nice(0): time.sleep(0.01)"
    monkeypatch.setattr(suite.debian, "cache", lambda: tmp_path)
    monkeypatch.setattr(suite, "command", lambda part, report, arguments: [suite.sys.executable, "-c", rude])
    queues = suite.Queues([], [])
    part = suite.Part("host 1", (), inside=False, lane="polite")
    performed = threading.Thread(target=suite.perform, args=[part, [], queues.polite])
    log = tmp_path / "reports" / "host-1.log"
    performed.start()
    while performed.is_alive():
        if log.exists() and log.read_text():
            queues.end_politeness()
        performed.join(0.01)
    assert int(log.read_text()) == min(19, os.nice(0) + 10)
    assert not queues.polite


def test_a_part_that_could_not_be_performed_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def perform(part: suite.Part, arguments: list[str], polite: set[int] | None) -> suite.Result:
        raise OSError("no room")

    monkeypatch.setattr(suite, "perform", perform)
    queues = suite.Queues([suite.Part("a", (), inside=True), suite.Part("b", (), inside=True, after="a")], [])
    queues.start()
    for result in queues.results.values():
        with pytest.raises(OSError, match="no room"):
            result.result(60)


def test_the_part_that_another_waits_for_is_begun_before_it() -> None:
    names = [part.name for part in suite.QUEUE]
    assert all(names.index(part.after) < number for number, part in enumerate(suite.QUEUE) if part.after)


def test_the_slowest_tests_are_named_with_their_parts(tmp_path: Path) -> None:
    case = '<testcase classname="tests.e2e.test_x.TestY" name="test_{0}" time="{0}"/>'
    for name, numbers in {"lab 1": range(0, 20, 2), "kernel": range(1, 20, 2)}.items():
        body = "".join(case.format(number) for number in numbers)
        (tmp_path / name).write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    lines = list(suite.slowest({"lab 1": tmp_path / "lab 1", "kernel": tmp_path / "kernel", "gone": tmp_path / "no"}))
    assert len(lines) == suite.SLOWEST
    assert lines[0] == "  19.0 s  kernel     tests/e2e/test_x.py::test_19"
    assert lines[1] == "  18.0 s  lab 1      tests/e2e/test_x.py::test_18"


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


def test_what_a_part_does_is_counted_with_the_processor_that_all_its_processes_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = "import subprocess, sys, time\nwhile time.process_time() < 0.3: pass\n"
    both = work + f"subprocess.run([sys.executable, '-c', {work!r}])\nprint('done')"
    monkeypatch.setattr(suite.debian, "cache", lambda: tmp_path)
    monkeypatch.setattr(suite, "command", lambda part, report, arguments: [suite.sys.executable, "-c", both])
    done = suite.perform(suite.Part("lab 1", (), inside=False), [])
    assert done.tally.failed == 1, "it wrote no report"
    assert done.busy >= 0.6
    assert (tmp_path / "reports" / "lab-1.log").read_text() == "done\n"


def test_only_the_reports_of_parts_that_there_are_count_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite.debian, "cache", lambda: tmp_path)
    lab = suite.Part("lab 1", (), inside=True)
    for path in (suite.file(lab, "xml"), suite.file(lab, "log"), suite.file(suite.Part("lab 9", (), True), "xml")):
        path.touch()
    suite.forget([lab])
    assert list((tmp_path / "reports").iterdir()) == [suite.file(lab, "xml")]
