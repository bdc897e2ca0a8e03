"""Checks in a process of their own: a real one, which is killed, stopped and misled."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import TYPES, types
from anycastlb.adapters.system import privileges
from anycastlb.core.backoff import Backoff
from anycastlb.core.decision import health
from anycastlb.core.model import Check, Combination, ForwardPath
from anycastlb.engine.checker import processes, supervisor
from anycastlb.engine.checker.protocol import (
    Bounds,
    NotOurs,
    frame,
    plain_bounds,
    plain_check,
    read_bounds,
    read_check,
    receive,
)
from anycastlb.settings import ChecksSettings
from tests.contract.cases import cases
from tests.support.checker import CHECK, scene
from tests.support.servers import answering, free_port, serving

OK = answering("HTTP/1.1 200 OK", "Content-Length: 2", body=b"ok")
VIA = ForwardPath(ip_address("10.0.0.1"), "tunnel", 0, 4)


# ---------------------------------------------------------------- what they say to each other


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_check_is_the_same_on_the_other_side(case: object) -> None:
    check: Check = case.check(1)  # type: ignore[attr-defined]
    assert read_check(json.loads(json.dumps(plain_check(check))), TYPES) == check


@pytest.mark.parametrize(
    "check",
    [
        replace(
            CHECK, address=ip_address("2001:db8::1"), via=VIA, fast_interval=0.1, down_interval=60.0, elsewhere=True
        ),
        replace(CHECK, params=TYPES["http"].params.model_validate({"headers": {"X": "1"}, "expect": ["200-299", 301]})),
        replace(CHECK, type="all", params=Combination((CHECK, replace(CHECK, port=81)))),
    ],
)
def test_a_check_with_everything_is_the_same_too(check: Check) -> None:
    assert read_check(json.loads(json.dumps(plain_check(check))), TYPES) == check


def test_a_command_keeps_its_program_and_its_rights() -> None:
    allowed = types(ChecksSettings(commands=("/bin/true",)))
    params = allowed["command"].params.model_validate({"command": ["/bin/true", "{address}"]})
    check = replace(CHECK, type="command", params=params)
    assert read_check(json.loads(json.dumps(plain_check(check))), allowed) == check


def test_the_bounds_of_checks_are_the_same_too() -> None:
    settings = ChecksSettings.model_validate(
        {
            "commands": ["/bin/*"],
            "networks": ["10.0.0.0/8", "fd00::/8"],
            "secrets": {"one": "/etc/one", "two": {"file": "/etc/two", "networks": ["10.1.0.0/16"]}},
        }
    )
    assert set(settings.model_fields_set) == set(ChecksSettings.model_fields) - {"marks"}, "every setting is looked at"
    given = Bounds(settings, ((ip_address("::1"), 4672),), (ip_network("fd00::/8"),))
    assert read_bounds(json.loads(json.dumps(plain_bounds(given)))) == given


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\2{]", b"\0\0\0\2[]"])
async def test_what_is_no_message_is_refused(data: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    with pytest.raises(NotOurs):
        await receive(reader)


async def test_messages_come_whole() -> None:
    reader = asyncio.StreamReader()
    for byte in frame({"run": []}) + frame({"stop": [1]}):
        reader.feed_data(bytes([byte]))
    assert [await receive(reader), await receive(reader)] == [{"run": []}, {"stop": [1]}]


# ---------------------------------------------------------------- the process


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def gone(pid: str) -> bool:
    """Has it ended? Whoever is to reap it may take a while."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_it_finds_what_is_up_and_what_goes_down() -> None:
    async with serving(OK) as port, serving(OK) as other:
        web, body = replace(CHECK, port=port), replace(CHECK, port=other)
        body = replace(body, params=TYPES["http"].params.model_validate({"body": "ok"}))
        dead = replace(CHECK, port=free_port())
        async with scene(web, body, dead) as it:
            await it.until(web, True)
            await it.until(body, True)
            await it.until(dead, False)
            state = it.states[-1][body]
            assert state.last and state.last.detail == "HTTP 200, body matches"
            it.checker.want([web])
            while it.checker.running != 1:
                await asyncio.sleep(0.01)
            await it.fresh(web)
            assert set(it.states[-1]) == {web}
            it.checker.want([web, dead])
            await it.until(dead, False)
            assert it.checker.load[2] == 1000 and not it.complaints()


async def test_a_second_process_is_started_when_the_first_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a check stays with its own: while one process is dead, the checks of the other go on."""
    monkeypatch.setattr(processes, "FULL", 2 / CHECK.interval)
    monkeypatch.setattr(supervisor, "RESTART", Backoff(3600.0, 3600.0))
    async with serving(OK) as port:
        checks = [replace(CHECK, port=port, timeout=0.5 + number / 100) for number in range(4)]
        nobody = [replace(check, type="none", params=TYPES["none"].params()) for check in checks]  # these fill none
        async with scene(*nobody, *checks[:2], limit=3) as it:
            await it.until(checks[1], True)
            (first,) = it.processes()
            it.checker.want(checks)
            for check in checks[2:]:
                await it.until(check, True)
            assert len(it.processes()) == 2 and it.processes()[0] == first
            assert (it.checker.running, it.checker.load[2]) == (4, 2000)
            os.kill(first, signal.SIGKILL)
            while not it.complaints():
                await asyncio.sleep(0.01)
            before = it.states[-1][checks[0]].last
            for check in checks[2:]:
                await it.fresh(check)
                await it.fresh(check)
            assert it.states[-1][checks[0]].last == before
            it.checker.want(checks[2:])  # there is room in the first again, and nobody moves there
            await it.fresh(checks[2])
            assert it.checker.running == 2 and set(it.states[-1]) == set(checks[2:])


async def test_a_node_whose_checks_ask_nobody_starts_no_process() -> None:
    check = replace(CHECK, type="none", params=TYPES["none"].params())
    async with scene(check) as it:
        await it.until(check, True)
        assert not it.processes() and it.checker.running == 1


async def test_a_secret_is_sent(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    (tmp_path / "token").write_text("hunter2\n")
    async with serving(answer) as port:
        params = TYPES["http"].params.model_validate({"headers": {"Authorization": "${secret:token}"}})
        check = replace(CHECK, port=port, params=params)
        async with scene(check, secrets={"token": str(tmp_path / "token")}) as it:
            await it.until(check, True)
    assert b"Authorization: hunter2\r\n" in heard[0]


async def test_every_result_of_a_steady_check_comes_up() -> None:
    """Also those of which only the time is sent, before and after one that says something else."""
    weight = 50

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{weight}%\n".encode())

    async with serving(answer) as port:
        params = TYPES["agent"].params()
        check = replace(CHECK, type="agent", params=params, port=port, interval=0.05)
        async with scene(check) as it:
            await it.until(check, True)
            while it.states[-1][check].record[1] < 20:
                await asyncio.sleep(0.01)
            assert {(result.ok, result.weight) for result in it.states[-1][check].recent} == {(True, 50)}
            weight = 80
            while it.states[-1][check].asks != (80, False):
                await asyncio.sleep(0.01)
            weight = 50
            while [result.weight for result in it.states[-1][check].recent] != [50] * 10:
                await asyncio.sleep(0.01)
            recent = it.states[-1][check].recent
            assert all(earlier.at < later.at for earlier, later in pairwise(recent)) and not it.complaints()


async def test_a_check_through_ipvs_is_told_its_mark() -> None:
    check = replace(CHECK, via=VIA)
    async with scene(check) as it:
        await it.process()
        it.checker.mark({VIA: "no mark is free"})
        await it.until(check, None)
        last = it.states[-1][check].last
        assert last and last.detail == "cannot be checked: no mark is free"


async def test_one_that_is_killed_is_replaced_and_no_verdict_changes() -> None:
    async with serving(OK) as port:
        check, dead = replace(CHECK, port=port), replace(CHECK, port=free_port())
        async with scene(check, dead) as it:
            await it.until(check, True)
            await it.until(dead, False)
            first = await it.process()
            os.kill(first, signal.SIGKILL)
            while not it.complaints():
                await asyncio.sleep(0.01)
            assert "it ended with status -9" in it.complaints()[0]
            await it.fresh(check)
            assert await it.process() != first
            turns = [record.event for record in it.journal.records() if record.event.kind == "check"]
            assert sorted((event.subject, event.after) for event in turns) == sorted(
                [(str(check), "up"), (str(dead), "down")]
            )


class Liar:
    """A checker process that says this, and no more."""

    def __init__(self, data: bytes) -> None:
        self.socket, self._mine = socket.socketpair()
        self._mine.sendall(data)

    async def end(self) -> int:
        self._mine.close()
        return 0


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\2[]",
        frame({"running": 1}),
        frame({"running": float("inf"), "load": [0, 0, 1], "results": []}),
        frame({"running": 0, "load": [0, 0, 1], "results": [[1, "?"]]}),
        frame({"running": 0, "load": [0, 0, 1], "results": [[1, "ended", "", "good", [], 0, None, None, 0]]}),
        frame({"running": 0, "load": [0, 0, 1], "results": [[]]}),
        struct.pack("!I", 200_000) + b"[" * 200_000,
    ],
)
async def test_one_that_says_what_is_no_report_is_replaced(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    real, liars = supervisor.Child, [data]
    monkeypatch.setattr(supervisor, "Child", lambda: Liar(liars.pop()) if liars else real())
    async with serving(OK) as port:
        check = replace(CHECK, port=port)
        async with scene(check) as it:
            await it.until(check, True)
            assert "it sent what is no report" in it.complaints()[0]


@pytest.mark.parametrize("part", ["Course", "plain_check"])
async def test_a_check_that_cannot_be_made_is_felt_by_no_other(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(OK) as port:
        check, odd = replace(CHECK, port=port), replace(CHECK, port=port, rise=7)
        real = getattr(supervisor, part)

        def broken(made: Check) -> Any:
            if made is odd:
                raise ZeroDivisionError("division by zero")
            return real(made)

        monkeypatch.setattr(supervisor, part, broken)
        async with scene(odd, check) as it:
            await it.until(check, True)
            await it.until(odd, False)
            last = it.states[-1][odd].last
            assert last and "internal error" in last.detail and "ZeroDivisionError" in last.detail
            assert not it.complaints()


async def test_a_check_that_the_process_cannot_make_is_felt_by_no_other() -> None:
    async with serving(OK) as port:
        check, odd = replace(CHECK, port=port), replace(CHECK, type="unheard of")
        async with scene(odd, check) as it:
            await it.until(check, True)
            await it.until(odd, False)
            last = it.states[-1][odd].last
            assert last and "internal error" in last.detail and "KeyError: 'unheard of'" in last.detail
            assert not it.complaints()


async def test_one_that_is_stopped_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "SILENCE", 2.5)
    monkeypatch.setattr(supervisor, "LASTS", 1.0)
    async with serving(OK) as port:
        check = replace(CHECK, port=port)
        async with scene(check) as it:
            await it.until(check, True)
            first = await it.process()
            os.kill(first, signal.SIGSTOP)
            while not it.states[-1][check].unproven:
                await asyncio.sleep(0.01)
            unproven = it.states[-1][check].unproven
            assert unproven and "the checks of this node do not run" in unproven.detail
            while not it.complaints():
                await asyncio.sleep(0.01)
            assert "it gave no sign of life for 2." in it.complaints()[0]
            await it.fresh(check)
            assert it.states[-1][check].up and it.states[-1][check].unproven is None
            assert not Path(f"/proc/{first}").exists()


async def test_one_after_the_other_that_hangs_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is so slow, the next one would need no less."""
    monkeypatch.setattr(supervisor, "SILENCE", 2.0)
    monkeypatch.setattr(supervisor, "RESTART", Backoff(0.01, 0.01))
    async with scene(CHECK) as s:
        for number in range(1, 3):
            pid = await s.process()
            while not s.checker.running:
                await asyncio.sleep(0.01)
            os.kill(pid, signal.SIGSTOP)
            while len(s.complaints()) < number:
                await asyncio.sleep(0.01)
    silent = [float(text.split("no sign of life for ")[1].split(" s")[0]) for text in s.complaints()]
    assert 2.0 <= silent[0] < 4.0 <= silent[1]


async def test_one_after_the_other_that_does_not_begin_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START", 1.0)
    monkeypatch.setattr(supervisor, "MAX_START", 3.0)
    monkeypatch.setattr(supervisor, "RESTART", Backoff(0.01, 0.01))
    monkeypatch.setattr(supervisor, "Child", lambda: Liar(b""))
    async with scene(CHECK) as it:
        while len(it.complaints()) < 4:
            await asyncio.sleep(0.01)
    silent = [float(text.split("no sign of life for ")[1].split(" s")[0]) for text in it.complaints()]
    assert [round(after - before) for before, after in pairwise([0.0, *silent[:4]])] == [1, 2, 3, 3]


async def test_what_is_not_checked_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    none = replace(CHECK, type="none", params=TYPES["none"].params())
    async with scene(none) as s:
        await s.until(none, True)
        assert s.states[-1][none].last.detail == "not checked (type none)"  # type: ignore[union-attr]


async def test_checks_that_nobody_runs_are_down_in_the_end_for_a_reason_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anycastlb.engine.verdicts.UNPROVEN", 2.0)
    monkeypatch.setattr(supervisor, "LASTS", 0.3)
    async with serving(OK) as port:
        check = replace(CHECK, port=port)
        async with scene(check) as it:
            await it.until(check, True)
            monkeypatch.setattr(sys, "executable", "/bin/false")
            os.kill(await it.process(), signal.SIGKILL)
            await it.until(check, False)
            state = it.states[-1][check]
    up, reason = health.verdict(state, True)
    assert not up and reason.code == "check_unproven"
    assert "the checks of this node do not run" in reason.text


async def test_it_ends_with_the_daemon() -> None:
    """Also with one that is killed, and has no time to end it."""
    code = (
        "import asyncio, sys; from tests.support.checker import CHECK, Scene\n"
        "async def main():\n"
        "    it = Scene(); it.checker.want([CHECK]); running = asyncio.ensure_future(it.checker.run())\n"
        "    print(await it.process(), flush=True); await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert daemon.stdout
    async with asyncio.timeout(60):
        process = int(await daemon.stdout.readline())
        daemon.kill()
        await daemon.wait()
        while Path(f"/proc/{process}").exists():
            await asyncio.sleep(0.05)


async def test_a_program_ends_with_the_process_that_ran_it() -> None:
    allowed = types(ChecksSettings(commands=("/bin/sleep",)))
    params = allowed["command"].params.model_validate({"command": ["/bin/sleep", "600"]})
    check = replace(CHECK, type="command", params=params, timeout=600.0)
    async with scene(check, commands=("/bin/sleep",)) as it:
        process = await it.process()
        while not (programs := children(process)):
            await asyncio.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        while not all(map(gone, programs)):
            await asyncio.sleep(0.01)


async def test_nothing_is_left_of_those_that_ended_or_could_not_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART", Backoff(0.01, 0.01))
    others = set(children(os.getpid()))
    async with scene(replace(CHECK, port=free_port())) as it:
        before = 0
        for count in range(1, 4):
            os.kill(await it.process(), signal.SIGKILL)
            while len(it.complaints()) < count:
                await asyncio.sleep(0.01)
            await it.process()
            before = before or descriptors()
        assert len(set(children(os.getpid())) - others) == 1 and descriptors() == before
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.kill(await it.process(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            while "it cannot be started: [Errno 24] Too many open files" not in it.complaints()[-1]:
                await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await it.process()
        assert descriptors() == before


async def test_commands_have_no_capabilities() -> None:
    """The checker keeps the one that marks packets, if there is any to keep: a test of root's has most."""
    code = "import sys; s = open('/proc/self/status').read(); print(s.split('CapEff:')[1].split()[0])"
    params = {"command": [sys.executable, "-c", code]}
    allowed = types(ChecksSettings(commands=(sys.executable,)))
    check = replace(CHECK, type="command", params=allowed["command"].params.model_validate(params), timeout=20.0)
    async with scene(check, commands=(sys.executable,)) as it:
        await it.until(check, True)
        last = it.states[-1][check].last
        assert last and last.detail == "exit code 0: '0000000000000000'", last
        status = Path(f"/proc/{await it.process()}/status").read_text()
    assert int(status.split("CapEff:")[1].split()[0], 16) == privileges.capabilities() & 1 << privileges.NET_ADMIN
    assert status.split("NoNewPrivs:")[1].split()[0] == "1"
