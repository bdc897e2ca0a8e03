"""The lean engine: the same outcomes as a coroutine's, and nothing left behind. The contract of checks tests more."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import ip_address

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.checks import TYPES, Down, Exchange
from anycastlb.adapters.checks.probe.http1 import Conversation, NotHttp
from anycastlb.adapters.checks.probe.lean import Poller
from anycastlb.adapters.checks.probe.path import find_path
from anycastlb.adapters.checks.probe.sockets import opened
from anycastlb.adapters.checks.probe.status import PLAIN_HEAD
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Check, ForwardPath, Health, ProbePath
from anycastlb.engine.attempt import Attempt
from anycastlb.engine.lean_check import LeanCheck
from anycastlb.engine.observer import NOBODY
from anycastlb.engine.prober import Prober
from anycastlb.engine.probing import Probing
from anycastlb.engine.verdicts import Course, Verdicts
from tests.support.checks import lean_attempt, proven
from tests.support.ports import free_port
from tests.support.servers import Handler, answering, serving, silent
from tests.support.waiting import begun, eventually

CHECK = Check("http", ip_address("127.0.0.1"), 80, TYPES["http"].params(), 0.2, 0.3, 1, 2)
OK = answering("HTTP/1.1 200 OK", "Content-Length: 0")


async def lean(check: Check) -> Attempt:
    exchange = TYPES[check.type].lean(check)
    assert exchange is not None
    return await lean_attempt(check, exchange)


@pytest.mark.parametrize(
    ("kind", "params", "plain"),
    [
        ("tcp", {}, True),
        ("tcp", {"send": "PING", "expect": "re:^PONG"}, True),
        ("http", {"method": "POST", "send": "x", "headers": {"X-Probe": "1"}}, True),
        ("http", {"as_proxy": "http://example.org/"}, True),
        ("http", {"body": "ok"}, False),
        ("http", {"redirects": 1}, False),
        ("http", {"proxy": "http://192.0.2.8:3128"}, False),
        ("https", {}, False),
        ("udp", {}, False),
    ],
)
def test_which_checks_are_plain(kind: str, params: dict[str, object], plain: bool) -> None:
    check = replace(CHECK, type=kind, params=TYPES[kind].params.model_validate(params))
    assert (TYPES[kind].lean(check) is not None) is plain


# ---------------------------------------------------------------- the head of an answer, read by one expression

PIECES = st.sampled_from(
    [
        b"HTTP/1.1",
        b"HTTP/1.0",
        b" ",
        b"200",
        b"503",
        b"101",
        b" OK",
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"Server: nginx",
        b"Content-Length: 5",
        b"content-length:",
        b"Content-Length: 5, 5",
        b"Content-Length : 7",
        b"Transfer-Encoding: chunked",
        b" folded: yes",
        b"X-\xe4: 1",
        b"X: \xe4",
        b":",
        b"\t",
        b"\0",
        b"body",
    ]
)


@given(st.lists(PIECES, max_size=12).map(b"".join) | st.binary(max_size=60), st.booleans())
def test_what_the_expression_takes_h11_takes_with_the_same_status(noise: bytes, headed: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\n" * headed + noise + b"\r\n\r\n" * headed
    if match := PLAIN_HEAD.match(head):
        answer = Conversation("GET", "/", {"Host": "x"}).feed(head)
        assert answer is not None and answer.status == int(match[1])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nServer: nginx/1\r\nDate: Sun, 29 Nov 2026 13:00:00 GMT\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        b"HTTP/1.1 204\r\nX:\r\ncontent-length:  0 \r\nY: \t z\r\n\r\n",
    ],
)
def test_what_servers_really_answer_is_plain(head: bytes) -> None:
    assert PLAIN_HEAD.match(head)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_h11_refuses_is_not_plain(head: bytes) -> None:
    assert not PLAIN_HEAD.match(head)
    with pytest.raises(NotHttp):
        Conversation("GET", "/", {"Host": "x"}).feed(head)


# ---------------------------------------------------------------- lateness


async def test_an_answer_that_is_there_is_read_although_the_deadline_has_passed() -> None:
    """The loop is blocked from just after the request until long after the deadline."""
    with in_a_thread(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", after=0.1) as port:
        asyncio.get_running_loop().call_later(0.05, time.sleep, 1.0)
        ended = await lean(replace(CHECK, port=port))
    assert ended.outcome == "good" and ended.lost > 0.8, ended


async def test_the_time_that_a_blocked_loop_takes_is_given_back() -> None:
    with in_a_thread(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", after=0.7) as port:
        asyncio.get_running_loop().call_later(0.05, time.sleep, 0.6)
        ended = await lean(replace(CHECK, port=port))
    assert ended.outcome == "good", ended


async def test_a_target_that_gave_up_on_us_while_we_did_not_run_is_not_known() -> None:
    with in_a_thread(b"", after=0.1) as port:
        asyncio.get_running_loop().call_later(0.05, time.sleep, 1.0)
        ended = await lean(replace(CHECK, port=port))
    assert ended.outcome == "late" and "closed without an answer, but this node itself was" in ended.result.detail


async def test_a_target_that_never_answers_has_its_time_and_no_more() -> None:
    async with serving(silent) as port:
        ended = await lean(replace(CHECK, port=port))
    assert ended.outcome == "timeout" and ended.result.duration >= 0.3, ended
    assert ended.result.duration - ended.lost < 0.6


# ---------------------------------------------------------------- one socket, probe after probe


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_socket_that_was_answered_serves_other_targets_as_if_it_were_new(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the last probe is taken for an answer to the next, and each target sees its own connection end."""
    made, ends = [], []

    def counted(family: int, kind: int, path: ProbePath | None) -> socket.socket:
        made.append(opened(family, kind, path))
        return made[-1]

    async def more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nand more ")
        try:
            ends.append(await reader.read())
        except ConnectionResetError:
            ends.append(b"reset")

    async def outcome(poller: Poller, port: int) -> str:
        check = replace(CHECK, address=ip_address(host), port=port)
        exchange = TYPES["http"].lean(check)
        assert exchange is not None
        return (await proven(lambda: lean_attempt(check, exchange, poller))).outcome

    monkeypatch.setattr("anycastlb.adapters.checks.probe.lean.opened", counted)
    before = open_files()
    async with serving(more, host) as good, serving(silent, host) as mute:
        poller = Poller()
        async with begun(poller.run()):
            assert [await outcome(poller, port) for port in (good, good, mute)] == ["good", "good", "timeout"]
            assert len(made) == 1
            assert [await outcome(poller, port) for port in (free_port(), good, good)] == ["bad", "good", "good"]
            await eventually(lambda: ends == [b"reset"] * 4)
            poller.close()
    assert open_files() <= before and len(made) == 3


@contextmanager
def in_a_thread(answer: bytes, after: float) -> Iterator[int]:
    """A server that answers the first connection so late, whatever the event loop does meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as sock:
                sock.recv(4096)
                time.sleep(after)
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


# ---------------------------------------------------------------- in the prober


@asynccontextmanager
async def probing(
    checks: list[Check], find: Callable[[ForwardPath, int], ProbePath] | None = None
) -> AsyncIterator[tuple[Prober, list[Health]]]:
    states: list[Health] = []
    more = {} if find is None else {"probe_path": find}
    prober = Prober(TYPES, lambda health, turned: states.append(health), Journal(), **more)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        prober.want(checks)
        yield prober, states
        running.cancel()


async def until(states: list[Health], check: Check, up: bool | None) -> None:
    while not states or check not in states[-1] or states[-1][check].up is not up:
        await asyncio.sleep(0.01)


async def test_verdicts_turn_and_what_is_not_wanted_any_more_leaves_nothing() -> None:
    before = open_files()
    port = free_port()
    hanging = [replace(CHECK, address=ip_address(f"127.0.1.{n}"), timeout=30.0) for n in range(1, 20)]
    async with serving(silent, "0.0.0.0") as mute:
        hanging = [replace(check, port=mute) for check in hanging]
        check = replace(CHECK, port=port)
        async with probing([check, *hanging]) as (prober, states):
            await until(states, check, False)
            async with listening(OK, port):
                await until(states, check, True)
            await until(states, check, False)
            while prober.load[0] < len(hanging):
                await asyncio.sleep(0.01)
            prober.want([])
            while prober.running:
                await asyncio.sleep(0.01)
            assert prober.load[:2] == (0, 0)
    await asyncio.sleep(0.1)
    assert open_files() <= before


async def test_checks_are_due_together_and_none_of_them_later_than_it_would_be() -> None:
    moments: list[float] = []

    class Noting(Poller):
        def call_at(self, when: float, act: Callable[[], None]) -> None:
            moments.append(when)

    poller, chances = Noting(), iter([0.001, 0.0249, 0.0251, 0.9])
    clock = Clock(monotonic=lambda: 100.0, chance=lambda: next(chances))
    every_second = replace(CHECK, interval=1.0)
    several = Probing(TYPES, Verdicts(Journal(), clock, NOBODY), clock, find_path)
    for _ in range(4):
        LeanCheck(every_second, Exchange(b"", None), several, poller)
    poller.close()
    assert moments == pytest.approx([100.0, 100.0, 100.025, 100.9])


def open_files() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208


@asynccontextmanager
async def listening(handler: Handler, port: int) -> AsyncIterator[None]:
    server = await asyncio.start_server(handler, "127.0.0.1", port)
    async with server:
        yield


async def test_who_waits_for_a_place_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anycastlb.engine.probing.MAX_AT_ONCE", 4)
    async with serving(OK, "0.0.0.0") as port, serving(silent, "0.0.0.0") as mute:
        good = [replace(CHECK, address=ip_address(f"127.0.1.{n}"), port=port, timeout=5.0) for n in range(1, 9)]
        bad = [replace(CHECK, address=ip_address(f"127.0.2.{n}"), port=mute) for n in range(1, 9)]
        async with probing(good + bad) as (prober, states):
            for check in good:
                await until(states, check, True)
            for check in bad:
                await until(states, check, False)
            prober.want(good)
            while prober.running > len(good):
                await asyncio.sleep(0.01)
            seen = len(states)
            while len(states) < seen + 2:
                await asyncio.sleep(0.01)
            assert all(states[-1][check].up for check in good)


async def test_one_that_returns_wakes_the_others_of_its_kind() -> None:
    """Those that are down are probed seldom, but not when one of them is back."""
    ports = [free_port(), free_port()]
    checks = [replace(CHECK, port=port, down_interval=3600.0) for port in ports]
    async with probing(checks) as (_, states):
        for check in checks:
            await until(states, check, False)
        while min(states[-1][check].agreed for check in checks) < 4:
            await asyncio.sleep(0.05)
        async with listening(OK, ports[0]), listening(OK, ports[1]):
            started = time.monotonic()
            for check in checks:
                await until(states, check, True)
            assert time.monotonic() - started < 20, "the pause of the second had grown too"


async def test_a_check_through_ipvs_waits_for_its_mark_and_says_why_it_has_no_way() -> None:
    via = ForwardPath(ip_address("10.0.0.1"), "tunnel", 0, 4)
    check = replace(CHECK, port=free_port(), via=via)

    def nowhere(path: ForwardPath, mark: int) -> ProbePath:
        raise OSError("no route")

    async with probing([check], nowhere) as (prober, states):
        await asyncio.sleep(0.5)
        assert not states
        prober.mark({via: "no mark is free"})
        await until(states, check, None)
        last = states[-1][check].last
        assert last and last.detail == "cannot be checked: no mark is free"
        prober.mark({via: 7})
        await until(states, check, False)
        last = states[-1][check].last
        assert last and last.detail == "no way to 10.0.0.1: no route"


async def test_a_fault_of_our_own_in_one_check_is_felt_by_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as down, and is run again: it is well as soon as the fault is gone."""
    seen: Health = {}
    conclude = Verdicts.conclude

    def publish(health: Health, turned: bool) -> None:
        nonlocal seen
        seen = health

    async with serving(OK) as port, serving(OK) as other:
        odd, well = replace(CHECK, port=port), replace(CHECK, port=other)

        def broken(verdicts: Verdicts, course: Course, ended: Attempt) -> None:
            if course.check == odd:
                raise ZeroDivisionError("oops")
            conclude(verdicts, course, ended)

        prober = Prober(TYPES, publish, Journal())
        prober.want([odd, well])
        with monkeypatch.context() as patch:
            patch.setattr(Verdicts, "conclude", broken)
            async with begun(prober.run()):
                await eventually(lambda: {odd, well} <= seen.keys())
                last = seen[odd].last
                assert seen[odd].up is False and last is not None and "internal error" in last.detail
                await eventually(lambda: seen[well].up)
                patch.undo()
                await eventually(lambda: seen[odd].up)


async def test_a_fault_of_a_reader_is_a_failed_check() -> None:
    class Broken:
        def feed(self, data: bytes) -> None:
            raise ZeroDivisionError("oops")

        def end(self) -> None:
            raise Down("closed")

    exchange = TYPES["http"].lean(CHECK)
    assert exchange is not None
    async with serving(OK) as port:
        given, broken = replace(CHECK, port=port), replace(exchange, reader=Broken)  # type: ignore[arg-type]
        ended = await proven(lambda: lean_attempt(given, broken))
    assert (ended.outcome, ended.result.detail) == ("error", "the probe failed: ZeroDivisionError: oops")


def test_a_request_that_cannot_be_written_is_left_to_the_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise h11.LocalProtocolError("no")

    monkeypatch.setattr("h11.Request", refuse)
    assert TYPES["http"].lean(CHECK) is None
