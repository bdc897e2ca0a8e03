"""Runs every test where it belongs, on the host or in a test kernel, and adds up the results.

    python tests/rig/suite.py [PYTEST-ARGUMENT...]
    python tests/rig/suite.py --kernels [PYTEST-ARGUMENT...]    what a kernel decides, on each of Debian's own kernels

A test kernel has one processor, and is often waiting: for an interval, a session, a route. Where the machine has more
processors, two of them are at work side by side: when one has ended, the next of the queue begins. What talks to real
programs on the loopback needs no test kernel, in which a program takes several times as long: it mostly waits, and runs
beside them, one part after the other. So does what only computes, which is polite: it takes the time that all others
leave, as long as a kernel's part is still to begin. What the parts print comes out one after the other.

Ends with the ten slowest tests and one line, ``N passed, N failed, N skipped``, and with a status other than 0 unless
everything passed or was skipped. A run that broke off counts as one failure more. In the test kernel a test that needs
the kernel may not skip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args
from xml.etree import ElementTree

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian, virtual

LIMIT = "4500"
"""Seconds after which the test kernel is ended, should a test hang."""
EMULATED_LIMIT = "28800"
"""The same for a kernel of Debian's, which may have to be emulated on a busy machine."""
NOTHING_COLLECTED = 5
"""pytest's status when no test matched, as happens to one of the runs under ``-k``."""
SIDE_BY_SIDE = 2
POLITE = ("nice", "-n", "10")
"""Before the command of a part that is polite. Nothing there depends on how fast the machine is. Once no kernel's part
is left to begin, none is polite any more (but for those under way, if we are not root): beside other busy programs they
would hardly get on."""
NAMED = 12
"""Of how many files a part's names are printed."""
SLOWEST = 10
"""How many tests are named at the end."""
BYTES_A_SECOND = 300
"""How much of a file of slow tests runs in a second, roughly: for a file that no run has measured yet."""


Lane = Literal["kernels", "waiting", "polite"]
LANES: tuple[Lane, ...] = get_args(Lane)


@dataclass(frozen=True)
class Part:
    name: str
    paths: tuple[str, ...]
    """folders or files in the repository; a file that one part names is not run with its folder"""
    inside: bool
    """whether it runs in the test kernel"""
    lane: Lane = "kernels"
    """the queue that it stands in"""
    shares: int = 1
    """into how many parts its files are dealt"""
    after: str = ""
    """an earlier part that must have ended before this one begins"""
    kernel: str = "auto"
    """the test kernel, as ``testkernel.py`` names it"""


QUEUE = (
    Part("packaging", ("tests/packaging",), inside=False, lane="polite"),
    Part("host", ("tests/unit", "tests/laws", "tests/scenario"), inside=False, lane="polite", shares=2),
    Part("page", ("tests/page",), inside=False, lane="polite"),
    Part("checks", ("tests/contract/test_checks.py", "tests/contract/test_checks_web.py"), inside=False, lane="polite"),
    Part("rig", ("tests/rig",), inside=False, lane="polite"),
    Part("lab", ("tests/e2e",), inside=True, shares=3),
    Part("routers", ("tests/parts/test_routers.py", "tests/parts/test_bridge.py"), inside=True),
    Part("kernel", ("tests/kernel", "tests/contract/test_drivers.py", "tests/parts/test_checks_real.py"), inside=True),
    Part("contract", ("tests/contract",), inside=False, lane="waiting"),
    Part("parts", ("tests/parts",), inside=False, lane="waiting"),
    Part("machine", ("tests/machine",), inside=True, after="packaging"),  # it installs what that has built
)
"""Begun in this order, in each lane: first what others wait for, and what takes long, so that all end at about the
same time. A folder is run without the files that another part names."""

KERNELS = tuple(
    Part(name, ("tests/kernel", "tests/contract/test_drivers.py"), inside=True, kernel=name) for name in virtual.SUITES
)
"""Run by ``--kernels``, which takes about half an hour of a processor for each where they are emulated."""


def files_in(path: str) -> list[str]:
    """The files of tests at this path of a part, without those that another part names."""
    if path.endswith(".py"):
        return [path]
    named = {other for part in QUEUE if part.kernel == "auto" for other in part.paths}
    return sorted(str(file) for file in Path(path).rglob("test_*.py") if str(file) not in named)


def deal(part: Part, seconds: Mapping[str, float]) -> list[Part]:
    """The shares of a part: its files, dealt out so that all shares take about as long as they took in the last run."""

    def cost(file: str) -> float:
        return seconds.get(file) or Path(file).stat().st_size / BYTES_A_SECOND

    dealt = [file for path in part.paths for file in files_in(path)]
    if part.shares == 1:
        return [replace(part, paths=tuple(dealt))]
    shares: list[list[str]] = [[] for _ in range(part.shares)]
    for file in sorted(dealt, key=cost, reverse=True):
        min(shares, key=lambda share: sum(map(cost, share))).append(file)
    return [
        replace(part, name=f"{part.name} {number}", paths=tuple(sorted(share)), shares=1)
        for number, share in enumerate(shares, 1)
    ]


@dataclass(frozen=True)
class Case:
    """A test that has run."""

    file: str
    name: str
    seconds: float
    """with what it set up first and tidied up"""


def cases(report: Path) -> list[Case]:
    try:
        tests = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []
    return [Case(source(case.get("classname", "")), case.get("name", ""), float(case.get("time", 0))) for case in tests]


def source(dotted: str) -> str:
    """The file of ``tests.unit.test_x`` or of a class in it."""
    module, _, _ = dotted.partition(".Test")
    return module.replace(".", "/") + ".py"


def last_run() -> Counter[str]:
    """file -> the seconds its tests took when they ran last"""
    took: Counter[str] = Counter()
    for report in (debian.cache() / "reports").glob("*.xml"):
        for case in cases(report):
            took[case.file] += case.seconds  # type: ignore[assignment]
    return took


def forget(parts: Sequence[Part]) -> None:
    """Remove the logs of the last run, and what parts reported that are dealt out in another way now: their tests would
    seem to take twice as long."""
    reports = {file(part, "xml") for part in parts}
    for left in (debian.cache() / "reports").iterdir():
        if left not in reports:
            left.unlink()


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
    pytest = [sys.executable, "-m", "pytest", *part.paths, f"--junitxml={report}", *arguments]
    if not part.inside:
        return pytest
    runner = str(Path(__file__).with_name("testkernel.py"))
    limit = EMULATED_LIMIT if part.kernel in virtual.SUITES else LIMIT
    return [sys.executable, runner, "run", "--kernel", part.kernel, "--timeout", limit, "--", *pytest]


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


@dataclass(frozen=True)
class Result:
    tally: Tally
    seconds: float
    busy: float
    """seconds of a processor, which every process of the part took together"""


def perform(part: Part, arguments: list[str], polite: set[int] | None = None) -> Result:
    """Run a part, what it prints going to its log. ``polite``: it is, and its process is in that set while it runs."""
    began = time.monotonic()
    report = file(part, "xml")
    report.unlink(missing_ok=True)
    environment = {**os.environ, "ANYCASTLB_REQUIRE": required(part.inside)}
    with file(part, "log").open("wb") as log:
        process = subprocess.Popen(
            [*(() if polite is None else POLITE), *command(part, report, arguments)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        if polite is not None:
            polite.add(process.pid)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            polite.discard(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Result(count(report, process.returncode), time.monotonic() - began, used.ru_utime + used.ru_stime)


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


def shown(files: Sequence[str]) -> str:
    """The files; of many, how many are in which folder."""
    names = [file.removeprefix("tests/") for file in files]
    if len(files) > NAMED:
        names = [f"{folder} ({count})" for folder, count in Counter(str(Path(name).parent) for name in names).items()]
    return ", ".join(names)


def show(part: Part, result: Future[Result]) -> str:
    """Print a part's log as it grows; the line that sums it up."""
    print(f"\n##### {part.name}: {shown(part.paths)}", flush=True)
    for piece in printed(file(part, "log"), result.done):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    done = result.result()
    return f"{part.name + ':':<13}{done.tally} in {done.seconds:.0f} s ({done.busy:.0f} s of a processor)"


def slowest(reports: Mapping[str, Path]) -> Iterator[str]:
    """A line for each of the slowest tests in these reports of parts."""
    pairs = ((case, name) for name, report in reports.items() for case in cases(report))
    for case, name in sorted(pairs, key=lambda pair: pair[0].seconds, reverse=True)[:SLOWEST]:
        yield f"{case.seconds:6.1f} s  {name:<10} {case.file}::{case.name}"


class Queues:
    """The parts that are not begun yet, and what became of the others. Each worker takes from the queues it serves."""

    def __init__(self, parts: Sequence[Part], arguments: list[str]) -> None:
        self._arguments = arguments
        self._lanes: dict[Lane, deque[Part]] = {lane: deque(p for p in parts if p.lane == lane) for lane in LANES}
        self.results: dict[str, Future[Result]] = {part.name: Future() for part in parts}
        self.polite: set[int] = set()
        """The processes of polite parts under way."""

    def start(self) -> None:
        """A worker for each lane, and more for the kernels, who help with what is polite when nothing else is left."""
        side_by_side = min(SIDE_BY_SIDE, os.cpu_count() or 1)
        kernels: tuple[Lane, ...] = ("kernels", "polite")
        workers: list[tuple[Lane, ...]] = [*[kernels] * side_by_side, ("waiting",), ("polite",)]
        for lanes in workers:
            threading.Thread(target=self._work, args=[self._lanes[lane] for lane in lanes]).start()

    def stop(self) -> None:
        """Begin no more of them."""
        for queue in self._lanes.values():
            queue.clear()

    def _work(self, *queues: deque[Part]) -> None:
        for queue in queues:
            with suppress(IndexError):
                while True:
                    part = queue.popleft()
                    try:
                        if not self._lanes["kernels"]:
                            self.end_politeness()
                        if part.after:
                            self.results[part.after].result()
                        polite = self.polite if part.lane == "polite" and self._lanes["kernels"] else None
                        self.results[part.name].set_result(perform(part, self._arguments, polite))
                    except Exception as exc:
                        self.results[part.name].set_exception(exc)

    def end_politeness(self) -> None:
        """Let polite parts under way be like the others, with what they start from now on, if we may."""
        for pid in tuple(self.polite):
            with suppress(PermissionError, ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, pid, 0)


def main(arguments: list[str]) -> int:
    measured = last_run()
    queue, arguments = (KERNELS, arguments[1:]) if arguments[:1] == ["--kernels"] else (QUEUE, arguments)
    parts = [share for part in queue for share in deal(part, measured)]
    forget(parts)
    queues = Queues(parts, arguments)
    queues.start()
    try:
        lines = [show(part, queues.results[part.name]) for part in parts]
    finally:  # if this was interrupted, so were the parts at work; the next must not begin
        queues.stop()
    total = sum((result.result().tally for result in queues.results.values()), Tally())
    print("\nthe slowest tests:", *slowest({part.name: file(part, "xml") for part in parts}), sep="\n")
    print("\n" + "\n".join(lines) + f"\n{total}", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    os.chdir(debian.REPOSITORY)
    sys.exit(main(sys.argv[1:]))
