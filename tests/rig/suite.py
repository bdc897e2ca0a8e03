"""Runs every test where it belongs, on the host or in a test kernel, and adds up the results.

    python tests/rig/suite.py [PYTEST-ARGUMENT...]

A test kernel has one processor. Where the machine has more, the tests of the whole lab run beside all the others, each
in a kernel of their own; what they print comes out one after the other.

Ends with one line, ``N passed, N failed, N skipped``, and with a status other than 0 unless everything passed or was
skipped. A run that broke off counts as one failure more. In the test kernel a test that needs the kernel may not skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian

LIMIT = "4500"
"""Seconds after which the test kernel is ended, should a test hang."""
NOTHING_COLLECTED = 5
"""pytest's status when no test matched, as happens to one of the runs under ``-k``."""


@dataclass(frozen=True)
class Part:
    name: str
    folders: tuple[str, ...]
    inside: bool
    """whether it runs in the test kernel"""


LANES = (
    (
        Part("host", ("unit", "laws", "scenario", "rig", "packaging"), inside=False),
        Part("test kernel", ("kernel", "contract", "parts"), inside=True),
        Part("machine", ("machine",), inside=True),  # of what "packaging" has built
    ),
    (Part("lab", ("e2e",), inside=True),),
)
"""Side by side: the lanes. One after the other: the parts of a lane."""
PARTS = tuple(part for lane in LANES for part in lane)


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


def file(part: Part, suffix: str) -> Path:
    reports = debian.cache() / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    return reports / f"{part.name.replace(' ', '-')}.{suffix}"


def perform(part: Part, arguments: list[str]) -> tuple[Tally, float]:
    """Run a part, what it prints going to its log; the result, and the seconds it took."""
    began = time.monotonic()
    report = file(part, "xml")
    report.unlink(missing_ok=True)
    environment = {**os.environ, "ANYCASTLB_REQUIRE": required(part.inside)}
    with file(part, "log").open("wb") as log:
        done = subprocess.run(
            command(part, report, arguments),
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return count(report, done.returncode), time.monotonic() - began


def printed(log: Path, ended: Callable[[], bool]) -> Iterator[bytes]:
    """What a log holds, as it grows, until its writer has ended."""
    while not log.exists():
        if ended():
            return
        time.sleep(0.1)
    with log.open("rb") as lines:
        while True:
            last = ended()
            if piece := lines.read():
                yield piece
            elif last:
                return
            else:
                time.sleep(0.2)


def tell(part: Part, result: Future[tuple[Tally, float]]) -> str:
    """Print a part's log as it grows; the line that sums it up."""
    print(f"\n##### {part.name}: {', '.join(part.folders)}", flush=True)
    for piece in printed(file(part, "log"), result.done):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    tally, seconds = result.result()
    return f"{part.name + ':':<13}{tally} in {seconds:.0f} s"


def main(arguments: list[str]) -> int:
    for part in PARTS:
        file(part, "log").unlink(missing_ok=True)
    alone = (os.cpu_count() or 1) < len(LANES)
    pools = [ThreadPoolExecutor(1) for _ in LANES[: 1 if alone else None]]
    results = {
        part: pools[number % len(pools)].submit(perform, part, arguments)
        for number, lane in enumerate(LANES)
        for part in lane
    }
    try:
        lines = [tell(part, result) for part, result in results.items()]
    except KeyboardInterrupt:  # the part at work was interrupted too; the next must not begin
        for pool in pools:
            pool.shutdown(cancel_futures=True)
        raise
    total = sum((result.result()[0] for result in results.values()), Tally())
    print("\n" + "\n".join(lines) + f"\n{total}", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    os.chdir(debian.REPOSITORY)
    sys.exit(main(sys.argv[1:]))
