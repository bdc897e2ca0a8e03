"""What this node lacks is no evidence against a backend."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from anycastlb.adapters.checks import TYPES, CheckType, Down, Found, all, any, tcp
from anycastlb.adapters.checks.probe.sockets import LOCAL
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Combination, ProbePath
from anycastlb.engine.attempt import attempt
from anycastlb.engine.observer import Unobserved
from anycastlb.engine.prober import Prober
from anycastlb.engine.verdicts import UNPROVEN
from anycastlb.settings import ChecksSettings
from tests.support.waiting import PATIENCE

CHECK = Check("tcp", ip_address("127.0.0.1"), 80, tcp.Params(), 0.05, 1.0, 1, 2)


class Outcomes(Unobserved):
    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def observe_result(self, type: str, outcome: str, seconds: float | None) -> None:
        self.seen[outcome] += 1


@contextmanager
def no_descriptors() -> Iterator[Callable[[], None]]:
    """This process can open nothing more; what it gets is called again where somebody may have closed something."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 20, hard))

    def fill() -> None:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))

    try:
        fill()
        yield fill
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


async def test_a_node_without_descriptors_takes_no_backend_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anycastlb.adapters.checks.probe.lean.SPARE", 0)  # every probe needs a descriptor
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    check = replace(CHECK, port=server.sockets[0].getsockname()[1])
    outcomes, journal = Outcomes(), Journal()
    prober = Prober(TYPES, lambda health, turned: None, journal, observer=outcomes)
    fresh = replace(check, timeout=1.1)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        prober.want([check])
        while not outcomes.seen["good"]:
            await asyncio.sleep(0.01)
        with no_descriptors() as fill:
            while not outcomes.seen["unknown"]:  # the server still closes what it had accepted
                fill()
                await asyncio.sleep(0.01)
            prober.want([check, fresh])
            while outcomes.seen["unknown"] < 10 or fresh not in prober._verdicts.states:
                await asyncio.sleep(0.01)
            assert prober._verdicts.states[check].up is True and outcomes.seen.keys() - {"late"} == {"good", "unknown"}
            assert prober._verdicts.states[fresh].up is None
            last = prober._verdicts.states[fresh].last
            assert last and last.detail == "not known: this node could not probe: too many open files"
        server.close()
        await server.wait_closed()
        while prober._verdicts.states[check].up:
            await asyncio.sleep(0.01)
        running.cancel()
    complaints = [r.event.reason for r in journal.records() if "could not probe" in r.event.reason]
    assert len(complaints) == 1, "not one for each check and probe"


def down(number: int) -> Down:
    down = Down(os.strerror(number))
    down.__cause__ = OSError(number, os.strerror(number))
    return down


REFUSED, LACKING = errno.ECONNREFUSED, errno.EMFILE


@pytest.mark.parametrize(
    ("module", "parts", "known"),
    [
        (all, (0, LACKING), False),
        (all, (LACKING, LACKING), False),
        (all, (REFUSED, LACKING), True),
        (any, (REFUSED, LACKING), False),
        (any, (0, LACKING), True),
        (any, (REFUSED, REFUSED), True),
    ],
)
async def test_a_combination_is_known_if_its_parts_say_enough(
    module: object, parts: tuple[int, ...], known: bool
) -> None:
    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        if check.port:
            raise down(check.port)
        return Found("fine")

    types = {"tcp": CheckType(tcp.Params, probe)}
    params, combined = module.bound(ChecksSettings(), types)  # type: ignore[attr-defined]
    whole = replace(CHECK, type="both", params=Combination(tuple(replace(CHECK, port=port) for port in parts)))
    ended = await attempt({"both": CheckType(params, combined)}, whole, None, time.monotonic)
    assert ended.proves is known
    if known:
        assert ended.result.ok is (0 in parts)
    else:
        assert (ended.outcome, ended.result.detail) == ("unknown", "this node could not probe: too many open files")


@pytest.mark.parametrize("number", sorted(LOCAL))
async def test_every_lack_of_this_node_is_known_as_one(number: int) -> None:
    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        raise down(number)

    ended = await attempt({"tcp": CheckType(tcp.Params, probe)}, CHECK, None, time.monotonic)
    assert ended.outcome == "unknown" and not ended.proves


@pytest.mark.virtual_time
async def test_a_verdict_does_not_stand_unproven_for_ever() -> None:
    lacking = False
    clock = asyncio.get_running_loop().time

    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        if lacking:
            raise down(errno.EMFILE)
        return Found("fine")

    check = replace(CHECK, interval=1.0)
    prober = Prober({"tcp": CheckType(tcp.Params, probe)}, lambda health, turned: None, Journal(), Clock(clock))
    running = asyncio.ensure_future(prober.run())  # noqa: TID251
    prober.want([check])
    await asyncio.sleep(5)
    lacking, since = True, clock()
    while prober._verdicts.states[check].up:
        await asyncio.sleep(0.1)
    assert UNPROVEN - 2 <= clock() - since <= UNPROVEN + 5
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
