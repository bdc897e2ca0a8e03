"""Lateness is not failure: what this node did not look at in time is no evidence against a backend."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest

from anycastlb.adapters.checks import TYPES, CheckType, Down, Found, tcp
from anycastlb.adapters.system import lateness
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Health, ProbePath
from anycastlb.engine.attempt import attempt
from anycastlb.engine.prober import Prober
from anycastlb.engine.verdicts import UNPROVEN
from tests.support.servers import serving, silent

CHECK = Check("tcp", ip_address("127.0.0.1"), 80, tcp.Params(), 1.0, 0.5, 1, 3)


def block(seconds: float) -> None:
    """Nobody else runs meanwhile: in virtual time the clock jumps."""
    loop: Any = asyncio.get_running_loop()
    loop._virtual.now += seconds


def types(probe: Callable[[], Any]) -> dict[str, CheckType]:
    async def called(check: Check, probe_path: ProbePath | None) -> Found:
        found: Found = await probe()
        return found

    return {"tcp": CheckType(tcp.Params, called)}


async def ended(probe: Callable[[], Any]) -> tuple[str, str, float]:
    """The outcome of a probe, what it says, and how long it took."""
    result = await attempt(types(probe), CHECK, None, asyncio.get_running_loop().time)
    return result.outcome, result.result.detail, round(result.result.duration, 2)


def at(delay: float, act: Callable[..., Any], *arguments: Any) -> None:
    asyncio.get_running_loop().call_later(delay, act, *arguments)


@pytest.mark.virtual_time
async def test_a_loop_on_time_gives_no_target_more_than_its_time() -> None:
    assert await ended(lambda: asyncio.sleep(0.499, Found("fine"))) == ("good", "fine", 0.5)
    assert await ended(lambda: asyncio.sleep(0.51, Found("fine"))) == ("timeout", "no answer within 0.5 s", 0.5)


@pytest.mark.virtual_time
async def test_time_in_which_the_loop_was_blocked_does_not_count_against_the_target() -> None:
    at(0.1, block, 0.7)
    assert await ended(lambda: asyncio.sleep(0.9, Found("fine"))) == ("good", "fine", 0.9)
    at(0.1, block, 0.3)
    outcome, detail, took = await ended(lambda: asyncio.sleep(60, Found("fine")))
    assert (outcome, detail) == ("timeout", "no answer within 0.5 s"), "it had all its time"
    assert 0.75 <= took <= 0.85


@pytest.mark.virtual_time
async def test_what_fails_while_this_node_does_not_run_is_not_known() -> None:
    async def reset() -> Found:
        await asyncio.sleep(0.2)
        raise Down("connection reset by peer")

    assert await ended(reset) == ("bad", "connection reset by peer", 0.2)
    at(0.1, block, 7.0)
    assert (await ended(reset))[:2] == ("late", "connection reset by peer, but this node itself was 7.0 s late")
    at(0.1, block, 7.0)
    outcome, detail, took = await ended(lambda: asyncio.sleep(60, Found("fine")))
    assert (outcome, detail) == ("late", "no answer within 0.5 s, but this node itself was 7.0 s late")
    assert took < 7.3, "what a target gets back has a limit"


@pytest.mark.virtual_time
async def test_a_machine_that_was_suspended_has_seen_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = 0.0
    monkeypatch.setattr(lateness, "suspended", lambda: slept)

    async def suspend() -> Found:
        nonlocal slept
        await asyncio.sleep(0.1)
        slept += 3600.0  # CLOCK_MONOTONIC does not count it
        await asyncio.sleep(0.1)
        raise Down("connection reset by peer")

    assert (await ended(suspend))[0] == "late"


def test_a_process_that_did_not_run_between_two_clocks_was_not_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([100.0, 107.0, 107.0, 107.0, 107.0, 107.001])  # seven seconds pass after the first
    monkeypatch.setattr(lateness.time, "monotonic", lambda: next(readings))
    monkeypatch.setattr(lateness.time, "clock_gettime", lambda clock: next(readings))
    assert lateness.suspended() == 0.0


@asynccontextmanager
async def probing(check: Check, probe: Callable[[], Any]) -> AsyncIterator[tuple[list[Health], Journal]]:
    states: list[Health] = []
    journal = Journal()
    clock = Clock(asyncio.get_running_loop().time)
    prober = Prober(types(probe), lambda health, turned: states.append(health), journal, clock)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        prober.want([check])
        yield states, journal
        running.cancel()


@pytest.mark.virtual_time
async def test_a_late_probe_changes_no_verdict_and_is_repeated_at_once() -> None:
    started: list[float] = []
    stalls = 0.0

    async def probe() -> Found:
        started.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.05)
        if not stalls:
            return Found("fine")
        await asyncio.sleep(0.001)
        block(stalls)
        await asyncio.sleep(0.1)
        raise Down("connection reset by peer")

    check = replace(CHECK, interval=10.0)
    async with probing(check, probe) as (states, journal):
        await asyncio.sleep(15)
        stalls = 3.0
        await asyncio.sleep(50)
        state = states[-1][check]
        assert state.up is True and not state.streak and state.last and state.last.ok
        assert state.unproven and "this node itself was 3.0 s late" in state.unproven.detail
        pauses = [round(after - before, 1) for before, after in pairwise(started)]
        late = pauses[-4:]
        assert min(late) < 3.4 and max(late) >= 9, "the one after a late one comes at once, the next in its turn"
        assert len([r for r in journal.records() if "not known" in r.event.reason]) == 1
        stalls = 0.0
        await asyncio.sleep(25)
        assert states[-1][check].unproven is None


@pytest.mark.virtual_time
async def test_a_dead_target_goes_down_on_time_although_the_loop_is_often_late() -> None:
    """Within ``interval * fall + timeout`` and the lateness."""
    dead, loop = False, asyncio.get_running_loop()

    async def probe() -> Found:
        await asyncio.sleep(60 if dead else 0.01)
        return Found("fine")

    async def stall() -> None:
        nonlocal stalled
        while True:
            await asyncio.sleep(0.3)
            block(0.3)
            stalled += 0.3

    stalled = 0.0
    async with probing(CHECK, probe) as (states, _), asyncio.TaskGroup() as tasks:
        stalling = tasks.create_task(stall())
        await asyncio.sleep(10)
        dead, died, stalled = True, loop.time(), 0.0
        while states[-1][CHECK].up:
            await asyncio.sleep(0.01)
        assert loop.time() - died <= CHECK.interval * CHECK.fall + CHECK.timeout + stalled
        stalling.cancel()


@pytest.mark.virtual_time
async def test_a_verdict_does_not_outlive_lateness_without_end() -> None:
    late = False

    async def probe() -> Found:
        if late:
            block(2.0)
            await asyncio.sleep(0.1)
            block(2.0)
            raise Down("connection reset by peer")
        return Found("fine")

    async with probing(CHECK, probe) as (states, _):
        await asyncio.sleep(5)
        late, since = True, asyncio.get_running_loop().time()
        while states[-1][CHECK].up:
            await asyncio.sleep(0.1)
        assert UNPROVEN <= asyncio.get_running_loop().time() - since <= UNPROVEN + 30


# ---------------------------------------------------------------- real loops, real servers


@pytest.mark.parametrize("kind", ["tcp", "http", "https"])
async def test_an_answer_that_is_there_is_read_although_the_deadline_has_passed(kind: str) -> None:
    """A loop that is blocked again and again, each time for longer than the time-out; the server runs in another
    process, as it should."""
    with Serving() as server:
        params = {"verify": False} if kind == "https" else {}
        check = replace(
            CHECK,
            type=kind,
            port=server.tls_port if kind == "https" else server.port,
            params=TYPES[kind].params.model_validate(params),
            timeout=0.15,
        )

        async def stall() -> None:
            while True:
                await asyncio.sleep(0.03)
                time.sleep(0.2)

        async with asyncio.TaskGroup() as tasks:
            stalling = tasks.create_task(stall())
            for _ in range(5):
                result = await attempt(TYPES, check, None, time.monotonic)
                assert result.outcome in ("good", "late"), result
            stalling.cancel()


async def test_a_server_that_never_answers_times_out_beside_a_loop_that_is_late() -> None:
    async with serving(silent) as port:
        check = replace(CHECK, type="http", port=port, params=TYPES["http"].params(), timeout=0.3)
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, time.sleep, 0.2)
        result = await attempt(TYPES, check, None, time.monotonic)
        assert result.outcome == "timeout" and result.result.duration >= 0.45, result


class Serving:
    """One plain and one TLS port that answer every request, in a process of their own."""

    def __enter__(self) -> Serving:
        from tests.contract.cases_web import authority

        certificate = authority().issue("www.example.org")
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SERVER), str(certificate)], stdout=subprocess.PIPE
        )
        assert self._process.stdout
        self.port, self.tls_port = map(int, self._process.stdout.readline().split())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


SERVER = """
    import asyncio, ssl, sys

    async def answer(reader, writer):
        try:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            await writer.drain()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
        plain = await asyncio.start_server(answer, "127.0.0.1", 0)
        secure = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        print(*(server.sockets[0].getsockname()[1] for server in (plain, secure)), flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())
"""
