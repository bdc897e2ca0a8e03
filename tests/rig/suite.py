"""Runs every test where it belongs, on the host or in the test kernel, and adds up the results.

    python tests/rig/suite.py [PYTEST-ARGUMENT...]

Ends with one line, ``N passed, N failed, N skipped``, and with a status other than 0 unless everything passed or was
skipped. A run that broke off counts as one failure more. In the test kernel a test that needs the kernel may not skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

LIMIT = "2400"
"""Seconds after which the test kernel is ended, should a test hang."""
NOTHING_COLLECTED = 5
"""pytest's status when no test matched, as happens to one of the runs under ``-k``."""


@dataclass(frozen=True)
class Part:
    name: str
    folders: tuple[str, ...]
    inside: bool
    """whether it runs in the test kernel"""


PARTS = (
    Part("host", ("unit", "laws", "scenario", "rig"), inside=False),
    Part("test kernel", ("kernel", "contract", "e2e"), inside=True),
)


@dataclass(frozen=True)
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def required(inside: bool) -> str:
    """``ANYCASTLB_REQUIRE`` for a part: the caller's, but inside always ``kernel``, and outside the runner instead."""
    named = {name.strip() for name in os.environ.get("ANYCASTLB_REQUIRE", "").split(",")} - {""}
    if inside:
        return ",".join(sorted(named - {"testkernel"} | {"kernel"}))
    return ",".join(sorted("testkernel" if name == "kernel" else name for name in named))


def command(part: Part, report: Path, arguments: list[str]) -> list[str]:
    folders = [f"tests/{name}" for name in part.folders]
    pytest = [sys.executable, "-m", "pytest", *folders, f"--junitxml={report}", *arguments]
    if not part.inside:
        return pytest
    runner = str(Path(__file__).with_name("testkernel.py"))
    return [sys.executable, runner, "run", "--timeout", LIMIT, "--", *pytest]


def count(report: Path, status: int) -> Tally:
    """What a report says, corrected by the exit status of the run that wrote it (or did not)."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Tally(failed=0 if status == NOTHING_COLLECTED else 1)
    total = Tally()
    for suite in suites:
        tests, failures, errors, skipped = (
            int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
        )
        total += Tally(max(0, tests - failures - errors - skipped), failures + errors, skipped)
    if status not in (0, NOTHING_COLLECTED) and not total.failed:
        total += Tally(failed=1)
    return total


def perform(part: Part, arguments: list[str]) -> Tally:
    reports = debian.cache() / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    report = reports / f"{part.name.replace(' ', '-')}.xml"
    report.unlink(missing_ok=True)
    print(f"\n##### {part.name}: {', '.join(part.folders)}", flush=True)
    environment = {**os.environ, "ANYCASTLB_REQUIRE": required(part.inside)}
    done = subprocess.run(command(part, report, arguments), check=False, env=environment, stdin=subprocess.DEVNULL)
    return count(report, done.returncode)


def main(arguments: list[str]) -> int:
    lines, total = [], Tally()
    for part in PARTS:
        began = time.monotonic()
        tally = perform(part, arguments)
        lines.append(f"{part.name + ':':<13}{tally} in {time.monotonic() - began:.0f} s")
        total += tally
    print("\n" + "\n".join(lines) + f"\n{total}", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    os.chdir(debian.REPOSITORY)
    sys.exit(main(sys.argv[1:]))
