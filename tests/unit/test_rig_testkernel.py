"""tests.rig.testkernel and usermode as far as they go without starting a kernel (see tests/rig/test_boot.py)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rig import debian, programs, testkernel, usermode


@pytest.mark.parametrize(("text", "expected"), [("512", 512), ("4k", 4096), ("512M", 512 << 20), ("2G", 2 << 30)])
def test_sizes(text: str, expected: int) -> None:
    assert testkernel.size(text) == expected


@pytest.mark.parametrize("text", ["", "2X", "-1", "1.5G", "G", "2GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a size such as 512M"):
        testkernel.size(text)


def test_options_end_at_the_command() -> None:
    options = testkernel.parse(["run", "--timeout", "5", "--", "prog", "--timeout", "--", "x"])
    assert options.command == ["prog", "--timeout", "--", "x"]
    assert options.timeout == 5


@pytest.mark.parametrize("arguments", [[], ["run"], ["run", "--kernel", "other", "--", "true"], ["run", "--shell"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, testkernel.__file__, *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: testkernel.py" in done.stderr


def test_it_runs_by_the_systems_python_without_any_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", testkernel.__file__, "which"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout.startswith(("host: ", "packaged: "))


def test_a_plain_users_path_is_kept_and_made_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/opt/mine:/usr/sbin:/usr/bin")
    *kept, unpacked = testkernel.paths()["PATH"].split(":")
    assert kept[:3] == ["/opt/mine", "/usr/sbin", "/usr/bin"]
    assert kept.count("/usr/sbin") == 1 and {"/usr/local/sbin", "/sbin"} <= set(kept)
    assert unpacked == str(programs.directory())


def test_more_memory_than_there_is_room_for_is_refused() -> None:
    with pytest.raises(debian.Unavailable, match=r"no directory for 1073741824 MiB .* less with --memory"):
        usermode.backing(1 << 50)


def test_last_words_begin_at_the_panic() -> None:
    text = "booting\r\nKernel panic - not syncing: why\r\nCall Trace\r\n"
    assert testkernel.last_words(text) == "Kernel panic - not syncing: why\nCall Trace\n"


def test_last_words_without_a_panic_are_the_last_lines() -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    assert testkernel.last_words(text).splitlines() == [f"line {number}" for number in range(80, 100)]
    assert testkernel.last_words("") == "(none)\n"
