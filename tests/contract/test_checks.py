"""Every check type against real servers, good and bad, on the loopback: the same outcomes from each of them.

The types come from the ``cases_*`` modules, the bad servers from ``servers``.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import AsyncExitStack

import pytest

from anycastlb.adapters.checks import TYPES, CheckType, Down, Found
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, Health, ProbePath
from anycastlb.engine.prober import Prober
from tests.contract.cases import Case, cases
from tests.lab import lateness
from tests.soak import grown, soak
from tests.support.checks import run
from tests.support.ports import free_port
from tests.support.servers import BAD, answering, serving, silent

CASES = cases()
UNSERVED = {"none", "all", "any", "icmp", "command"}
"""Types that meet no server of ours: they have tests of their own."""
SOAKED = 500
"""Checks of each case; a hundred thousand with ``python -m tests.soak``."""


def engines(case: Case) -> list[bool]:
    """Without and with the lean engine, where it can run the case."""
    return [False, True] if TYPES[case.type].lean(case.check(1)) else [False]


def ids(case: Case, lean: bool, *more: str) -> str:
    return "-".join((case.name, *more, *(["lean"] if lean else [])))


def check(kind: str, port: int) -> Check:
    return Case(kind, kind, lambda host: serving(silent, host), "").check(port)


def test_every_type_is_in_the_suite() -> None:
    assert {case.type for case in CASES} | UNSERVED >= set(TYPES)


@pytest.fixture
def engine(lean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.checks.lean", lean)


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("case", "host", "lean"),
    [pytest.param(c, h, e, id=ids(c, e, h)) for c in CASES for h in c.hosts for e in engines(c)],
)
async def test_a_good_server(case: Case, host: str, lean: bool) -> None:
    async with case.good(host) as port:
        result = await run(case.check(port, host, timeout=5.0))
    assert result.ok, result.detail
    assert re.fullmatch(case.detail, result.detail), result.detail


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(
    ("case", "server", "lean"),
    [pytest.param(c, name, e, id=ids(c, e, name)) for c in CASES for name in BAD[c.transport] for e in engines(c)],
)
async def test_a_bad_server(case: Case, server: str, lean: bool) -> None:
    """Down (or up, where the type does not look at answers), in time, with a reason, and the loop was never held up."""
    since, held = lateness.now(), [(0.0, 0.0)]

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            held.append((time.monotonic() - before, before))

    bad = BAD[case.transport][server](case.hosts[0], case.tls and case.tls())
    async with bad as port, asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(beat())
        result = await run(case.check(port, case.hosts[0]))
        beating.cancel()
    assert result.ok is case.up(server), result.detail
    assert result.detail and len(result.detail) < 300 and result.detail.isprintable()
    assert "the probe failed" not in result.detail, "an answer, however bad, is not a fault of the probe"
    lateness.kept(3, since, "the check ended")
    took, at = max(held)
    lateness.kept(2, at, "the event loop went on", until=at + took)
    if server == "refused":
        assert "refused" in result.detail or "unreachable" in result.detail


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize(("case", "lean"), [pytest.param(c, e, id=ids(c, e)) for c in CASES for e in engines(c)])
async def test_thousands_of_probes_leak_nothing(case: Case, lean: bool) -> None:
    prints = await soak(case, SOAKED)
    assert not grown(prints, SOAKED // 3), "\n".join(map(str, prints))


async def test_a_leak_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the one above can fail: a probe that keeps something of every check."""
    kept: list[object] = []

    async def leaking(given: Check, probe_path: ProbePath | None) -> Found:
        kept.append([given.port])
        return Found("yes")

    monkeypatch.setitem(TYPES, "leak", CheckType(TYPES["none"].params, leaking))
    prints = await soak(Case("leak", "leak", lambda host: serving(silent, host), ""), SOAKED)
    assert [text.split(" from")[0] for text in grown(prints, SOAKED // 3)] == ["memory blocks"]


async def test_none_is_always_up() -> None:
    assert (await run(check("none", 0))).ok


async def test_a_probe_that_breaks_is_a_failed_check_not_a_crash() -> None:
    async def broken(given: Check, probe_path: ProbePath | None) -> Found:
        raise ZeroDivisionError("oops")

    result = await run(check("tcp", 1), {"tcp": CheckType(TYPES["tcp"].params, broken)})
    assert not result.ok and "ZeroDivisionError" in result.detail


async def test_a_hanging_backend_delays_nobody() -> None:
    told: list[Health] = []
    prober = Prober(TYPES, lambda health, turned: told.append(health), Journal(), Clock(chance=lambda: 0.0))
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(serving(silent))
        quick = await stack.enter_async_context(serving(answering("HTTP/1.1 200 OK", "Content-Length: 0")))
        checks = [check("http", slow), check("http", quick)]
        prober.want(checks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(prober.run())
            async with asyncio.timeout(60):
                while not told or checks[1] not in told[-1]:
                    await asyncio.sleep(0.01)
            assert checks[0] not in told[-1], "the quick one is known before the slow one times out"
            running.cancel()


def test_down_tells_why() -> None:
    assert str(Down("HTTP 503")) == "HTTP 503"
    assert free_port() > 0
