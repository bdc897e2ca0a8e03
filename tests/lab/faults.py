"""Everything that can go wrong with each part of the lab, as values; and pairs of it, chosen by a seed.

The node that is harmed is lb1. Nothing is done to lb2, which shares the router, Consul and the backends with it. The
backend that is harmed is b3.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations
from pathlib import Path
from shutil import rmtree
from signal import SIGKILL
from sys import executable
from threading import Event
from typing import Literal, get_args

from tests.lab import harm
from tests.lab.lab import Lab
from tests.lab.namespaces import LabError, Namespace
from tests.lab.node import API_PORT
from tests.lab.process import Process, meanwhile
from tests.lab.server import ALTERNATE, ECHO, WEB
from tests.lab.topology import BACKENDS, own, uplink

Kind = Literal[
    "kill", "stop", "cut off", "slow", "garbage", "full disk", "no descriptors", "no memory for a child", "clock step"
]
Target = Literal["Consul", "ExaBGP", "bridge", "daemon", "checker", "backend", "session", "state_dir"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TARGETS: tuple[Target, ...] = get_args(Target)
VICTIM = "b3"
HOLD = 30.0
"""``[bgp] hold`` of lb1, seconds: longer than a busy machine makes a daemon late, after which it would rightly give its
routes up by itself."""
BGP_HOLD = 9.0
"""``hold-time`` of ExaBGP and the router, seconds: how long a session outlives a side that says nothing."""
DETECTION = 0.5 * 2 + 1.0
"""interval x fall + timeout of the check of the backends, seconds."""
NOISE = 1.0
"""Seconds between two pieces of garbage that are said to somebody."""


@dataclass(frozen=True)
class Fault:
    act: Callable[[Lab], AbstractContextManager[None]]
    """It lasts as long as this context."""
    leaves: float | None = None
    """lb1's routes must go while it lasts: within how many seconds, by which promise of the product."""
    may_leave: bool = False
    """lb1's routes may go."""
    dead: bool = False
    """The victim does not answer: its own VIP must go, and it may get no more flows."""
    black: bool = False
    """What reaches lb1 as long as its routes last is lost."""
    deaf: bool = False
    """The router does not do what BGP says, until it is over: nothing is judged by its routes."""
    ends: frozenset[Target] = frozenset()
    """Whose process ends by it; nobody else's may."""
    own_kernel: bool = False
    """It would harm the host if the kernel were the host's."""

    @property
    def harmless(self) -> bool:
        """No route goes by it."""
        return self.leaves is None and not self.may_leave and not self.deaf


# ------------------------------------------------------------ who it happens to


def process(lab: Lab, target: Target) -> int:
    match target:
        case "Consul":
            return lab.consul.process.pid
        case "ExaBGP":
            return lab.lb1.exabgp.pid
        case "bridge":
            return lab.lb1.bridge()
        case "daemon":
            return lab.lb1.daemon.pid
        case "checker":
            return lab.lb1.checker()
        case "backend":
            return lab.backends[VICTIM].process.pid
        case "session":
            return lab.router.processes[0].pid
        case "state_dir":
            raise ValueError("a directory is no process")


def state_dir(lab: Lab) -> Path:
    return lab.lb1.settings.parent / "state"


def _of(
    target: Target, how: Callable[[harm.Pid], AbstractContextManager[None]]
) -> Callable[..., AbstractContextManager[None]]:
    return lambda lab: how(partial(process, lab, target))


# ------------------------------------------------------------ how


@contextmanager
def _killed(program: Process) -> Iterator[None]:
    """It ends as soon as its kernel lets it, and is started again afterwards if it has ended."""
    program.signal(SIGKILL)
    try:
        yield
    finally:
        if not program.running:
            program.start()


@contextmanager
def _killed_once(target: Target, lab: Lab) -> Iterator[None]:
    """Whoever started it starts another one."""
    with suppress(ProcessLookupError):
        os.kill(process(lab, target), SIGKILL)
    yield


@contextmanager
def _router_killed(lab: Lab) -> Iterator[None]:
    lab.router.kill()
    try:
        yield
    finally:
        lab.router.start()


def _again_and_again(say: Callable[[random.Random], None]) -> AbstractContextManager[None]:
    chance = random.Random(5)

    def talk(over: Event) -> None:
        while True:
            with suppress(OSError, LabError):
                say(chance)
            if over.wait(NOISE):
                return

    return meanwhile(talk)


def _from_exabgp(lab: Lab) -> AbstractContextManager[None]:
    return _again_and_again(lambda chance: harm.said_through_pipe(lab.lb1.bridge(), 0, harm.noise(chance)))


def _from_bridge(lab: Lab) -> AbstractContextManager[None]:
    """To ExaBGP, whole lines of it, and to the daemon."""

    def say(chance: random.Random) -> None:
        harm.said_through_pipe(lab.lb1.bridge(), 1, harm.noise(chance))
        harm.said_to_path(lab.lb1.settings.parent / "bgp.sock", harm.noise(chance))

    return _again_and_again(say)


def _from_checker(lab: Lab) -> AbstractContextManager[None]:
    def say(chance: random.Random) -> None:
        pid = lab.lb1.checker()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        harm.said_through_socket(pid, int(words[-2]), harm.noise(chance))

    return _again_and_again(say)


def _to_daemon(lab: Lab) -> AbstractContextManager[None]:
    """At each of its doors."""

    def say(chance: random.Random) -> None:
        harm.said_to_port(lab.lb1.namespace, "127.0.0.1", "127.0.0.1", API_PORT, harm.noise(chance))
        harm.said_to_path(lab.lb1.settings.parent / "api.sock", harm.noise(chance))

    return _again_and_again(say)


def _from_router(lab: Lab) -> AbstractContextManager[None]:
    """Both ends of the session hear it from the other end's address."""

    def say(chance: random.Random) -> None:
        node, router = uplink("lb1"), uplink("lb1", router=True)
        harm.said_to_port(lab.lb1.namespace, node, router, 179, harm.noise(chance))
        harm.said_to_port(lab.router.namespace, router, node, 179, harm.noise(chance))

    return _again_and_again(say)


@contextmanager
def _lied(program: Process, namespace: Namespace, ports: tuple[int, ...], log: Path) -> Iterator[None]:
    """Somebody else listens in its place, and answers garbage."""
    with _killed(program), ExitStack() as ends:
        program.kill()
        for port in ports:
            argv = [executable, "-m", "tests.lab.liar", "0.0.0.0", str(port), str(port)]
            liar = Process(f"liar {port}", namespace, argv, log)
            liar.start()
            ends.callback(liar.kill)
        yield


def _consul_lies(lab: Lab) -> AbstractContextManager[None]:
    return _lied(lab.consul.process, lab.consul.namespace, (8500,), lab.directory / "liar.log")


def _backend_lies(lab: Lab) -> AbstractContextManager[None]:
    backend = lab.backends[VICTIM]
    return _lied(backend.process, backend.namespace, (WEB, ALTERNATE, ECHO), lab.directory / "liar.log")


@contextmanager
def _emptied(lab: Lab) -> Iterator[None]:
    for item in state_dir(lab).iterdir():
        with suppress(OSError):
            rmtree(item) if item.is_dir() else item.unlink()
    yield


@contextmanager
def _scribbled(lab: Lab) -> Iterator[None]:
    chance = random.Random(6)
    for item in state_dir(lab).iterdir():
        if item.is_file():
            item.write_bytes(chance.randbytes(chance.randint(0, 3000)))
    yield


BGP = [
    ("protocol", family, "flower", "ip_proto", "tcp", f"{end}_port", "179")
    for family in ("ip", "ipv6")
    for end in ("src", "dst")
]

# ------------------------------------------------------------ the table

NO_FILE = "it writes no file: its log goes to the journal"
NO_CHILD = "it starts no other program"
NO_NETWORK = "it has no network: only a pipe or a socket of its own machine, which is there as long as both ends are"
NO_PROCESS = "a directory has none"

CELLS: dict[tuple[Target, Kind], Fault | str] = {
    ("Consul", "kill"): Fault(lambda lab: _killed(lab.consul.process), ends=frozenset({"Consul"})),
    ("Consul", "stop"): Fault(_of("Consul", harm.stopped)),
    ("Consul", "cut off"): Fault(lambda lab: harm.dropped(lab.consul.namespace, "lan")),
    ("Consul", "slow"): Fault(lambda lab: harm.delayed(lab.consul.namespace, "lan", "700ms")),
    ("Consul", "garbage"): Fault(_consul_lies, ends=frozenset({"Consul"})),
    ("Consul", "full disk"): Fault(lambda lab: harm.full(lab.directory / "consul"), own_kernel=True),
    ("Consul", "no descriptors"): Fault(_of("Consul", harm.no_descriptors)),
    ("Consul", "no memory for a child"): NO_CHILD,
    ("ExaBGP", "kill"): Fault(lambda lab: _killed(lab.lb1.exabgp), leaves=0.0, ends=frozenset({"ExaBGP", "bridge"})),
    ("ExaBGP", "stop"): Fault(_of("ExaBGP", harm.stopped), leaves=BGP_HOLD, ends=frozenset({"ExaBGP", "bridge"})),
    ("ExaBGP", "cut off"): "its network is its sessions: see there",
    ("ExaBGP", "slow"): Fault(_of("ExaBGP", harm.slow), may_leave=True, ends=frozenset({"ExaBGP", "bridge"})),
    ("ExaBGP", "garbage"): Fault(_from_exabgp),
    ("ExaBGP", "full disk"): NO_FILE,
    # It ends itself when it cannot make the loop in which it tells of a session that has changed.
    ("ExaBGP", "no descriptors"): Fault(
        _of("ExaBGP", harm.no_descriptors), may_leave=True, ends=frozenset({"ExaBGP", "bridge"})
    ),
    ("ExaBGP", "no memory for a child"): Fault(_of("ExaBGP", harm.no_child), own_kernel=True),
    ("bridge", "kill"): Fault(partial(_killed_once, "bridge"), ends=frozenset({"bridge"})),
    ("bridge", "stop"): Fault(_of("bridge", harm.stopped), may_leave=True, ends=frozenset({"bridge"})),
    ("bridge", "cut off"): NO_NETWORK,
    ("bridge", "slow"): Fault(_of("bridge", harm.slow), may_leave=True),
    # It ends whoever says to it what is not ASCII, and itself when that was so six times in a minute.
    ("bridge", "garbage"): Fault(_from_bridge, may_leave=True, ends=frozenset({"ExaBGP", "bridge"})),
    ("bridge", "full disk"): NO_FILE,
    ("bridge", "no descriptors"): Fault(_of("bridge", harm.no_descriptors)),
    ("bridge", "no memory for a child"): NO_CHILD,
    ("daemon", "kill"): Fault(lambda lab: _killed(lab.lb1.daemon), leaves=HOLD, ends=frozenset({"daemon", "checker"})),
    ("daemon", "stop"): Fault(_of("daemon", harm.stopped), leaves=HOLD),
    ("daemon", "cut off"): Fault(lambda lab: harm.dropped(lab.lb1.namespace, "lan"), leaves=DETECTION, black=True),
    ("daemon", "slow"): Fault(_of("daemon", harm.slow), may_leave=True),
    ("daemon", "garbage"): Fault(_to_daemon),
    ("daemon", "full disk"): "all that it writes is in state_dir: see there",
    ("daemon", "no descriptors"): Fault(_of("daemon", harm.no_descriptors)),
    ("daemon", "no memory for a child"): Fault(_of("daemon", harm.no_child), own_kernel=True),
    ("checker", "kill"): Fault(partial(_killed_once, "checker"), ends=frozenset({"checker"})),
    ("checker", "stop"): Fault(_of("checker", harm.stopped), ends=frozenset({"checker"})),
    ("checker", "cut off"): Fault(
        lambda lab: harm.dropped(lab.lb1.namespace, "lan", *_backends()), leaves=DETECTION, black=True
    ),
    ("checker", "slow"): Fault(_of("checker", harm.slow), may_leave=True, ends=frozenset({"checker"})),
    ("checker", "garbage"): Fault(_from_checker, ends=frozenset({"checker"})),
    ("checker", "full disk"): NO_FILE,
    ("checker", "no descriptors"): Fault(_of("checker", harm.no_descriptors), may_leave=True),
    ("checker", "no memory for a child"): Fault(_of("checker", harm.no_child), may_leave=True, own_kernel=True),
    ("backend", "kill"): Fault(
        lambda lab: _killed(lab.backends[VICTIM].process), dead=True, ends=frozenset({"backend"})
    ),
    ("backend", "stop"): Fault(_of("backend", harm.stopped), dead=True),
    ("backend", "cut off"): Fault(lambda lab: harm.dropped(lab.backends[VICTIM].namespace, "lan"), dead=True),
    ("backend", "slow"): Fault(lambda lab: harm.delayed(lab.backends[VICTIM].namespace, "lan", "250ms")),
    ("backend", "garbage"): Fault(_backend_lies, dead=True, ends=frozenset({"backend"})),
    ("backend", "full disk"): NO_FILE,
    ("backend", "no descriptors"): Fault(_of("backend", harm.no_descriptors), dead=True),
    ("backend", "no memory for a child"): NO_CHILD,
    ("session", "kill"): Fault(_router_killed, deaf=True, ends=frozenset({"session"})),
    ("session", "stop"): Fault(_of("session", harm.stopped), deaf=True),
    ("session", "cut off"): Fault(lambda lab: harm.dropped(lab.lb1.namespace, "uplink", *BGP), leaves=BGP_HOLD),
    ("session", "slow"): Fault(_of("session", harm.slow), deaf=True),
    ("session", "garbage"): Fault(_from_router, may_leave=True),
    ("session", "full disk"): "the router's program writes no file",
    ("session", "no descriptors"): Fault(_of("session", harm.no_descriptors)),
    ("session", "no memory for a child"): "the router's program starts no other",
    ("state_dir", "kill"): Fault(_emptied),
    ("state_dir", "stop"): Fault(lambda lab: harm.frozen_disk(state_dir(lab)), may_leave=True, own_kernel=True),
    ("state_dir", "cut off"): Fault(lambda lab: harm.lost_disk(state_dir(lab)), own_kernel=True),
    ("state_dir", "slow"): Fault(lambda lab: harm.slow_disk(state_dir(lab)), may_leave=True, own_kernel=True),
    ("state_dir", "garbage"): Fault(_scribbled),
    ("state_dir", "full disk"): Fault(lambda lab: harm.full(state_dir(lab)), own_kernel=True),
    ("state_dir", "no descriptors"): NO_PROCESS,
    ("state_dir", "no memory for a child"): NO_PROCESS,
    **{
        (target, "clock step"): "a kernel has one clock, which is stepped for all of them at once: see daemon"
        for target in TARGETS
        if target != "daemon"
    },
    # ExaBGP counts its hold time in seconds of the day, and ends every session when the clock is set.
    ("daemon", "clock step"): Fault(lambda lab: harm.clock_step(3600.0), deaf=True, own_kernel=True),
}
"""Each kind of fault of each part: what is done, or why it cannot be."""


def _backends() -> list[tuple[str, ...]]:
    return [("protocol", "ip", "flower", "src_ip", own(name)) for name in BACKENDS]


# ------------------------------------------------------------ pairs

Name = tuple[Target, Kind]


def faults() -> dict[Name, Fault]:
    """Those that can be in this kernel."""
    return {
        name: cell
        for name, cell in CELLS.items()
        if isinstance(cell, Fault) and (harm.own_kernel() or not cell.own_kernel)
    }


def meet(one: Name, two: Name) -> bool:
    """Can the second be done while the first lasts? A program that is gone or stopped has nothing more done to it."""
    gone = {"kill", "stop", *(["garbage"] if one[0] in ("Consul", "backend") else [])}
    return one[0] != two[0] or not (one[0] == "state_dir" or {one[1], two[1]} & gone)


def pairs() -> list[tuple[Name, Name]]:
    return _met(tuple(faults()))


@cache
def _met(names: tuple[Name, ...]) -> list[tuple[Name, Name]]:
    return [pair for pair in combinations(names, 2) if meet(*pair)]


@dataclass(frozen=True)
class Plan:
    names: tuple[Name, ...]
    gap: float = 0.0
    """Seconds from the begin of the first to that of the second."""
    lasts: float = 6.0
    """Seconds that both last at least."""
    backwards: bool = False
    """The second ends first."""

    def __str__(self) -> str:
        return " + ".join(" ".join(name) for name in self.names)


def pair(seed: int) -> Plan:
    chance = random.Random(seed)
    names = list(chance.choice(pairs()))
    chance.shuffle(names)
    return Plan(tuple(names), chance.uniform(0, 2), chance.uniform(3, 8), chance.random() < 0.5)
