"""Checks that meet no server of the suite: combinations, programs, pings; and what the others are asked and answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from anycastlb.adapters import checks
from anycastlb.adapters.checks import CheckType
from anycastlb.core.model import Check, Combination, Result
from anycastlb.settings import ChecksSettings
from tests.contract.cases_more import answered, health_server
from tests.contract.cases_web import authority
from tests.lab import lateness
from tests.support.checks import run as run_once
from tests.support.ports import free_port
from tests.support.servers import datagrams, saying, serving, silent

TYPES = checks.types(ChecksSettings(commands=("/bin/*", "/usr/bin/*", sys.executable)))


def check(kind: str, port: int = 0, timeout: float = 5.0, at: str = "127.0.0.1", **params: Any) -> Check:
    return Check(kind, ip_address(at), port, TYPES[kind].params.model_validate(params), 1.0, timeout, 1, 1)


def combined(kind: str, *parts: Check, timeout: float = 5.0) -> Check:
    return Check(kind, ip_address("127.0.0.1"), 0, Combination(parts), 1.0, timeout, 1, 1)


async def run(given: Check, types: Mapping[str, CheckType] = TYPES) -> Result:
    """One check as a node runs it that allows commands."""
    return await run_once(given, types)


async def outcome(given: Check) -> tuple[bool, str]:
    result = await run(given)
    return result.ok, result.detail


# ---------------------------------------------------------------- all, any


@contextlib.asynccontextmanager
async def agents(*lines: str) -> AsyncIterator[list[Check]]:
    """A check of an agent that says so, for each line."""
    async with contextlib.AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(serving(saying(f"{line}\n".encode()))) for line in lines]
        yield [check("agent", port) for port in ports]


async def test_all_takes_the_smallest_weight_and_any_drain() -> None:
    async with agents("75%", "up", "drain 80%") as parts:
        result = await run(combined("all", *parts))
    assert (result.ok, result.weight, result.drain) == (True, 75, True)
    assert result.detail == "the agent says 75%; the agent says up; the agent says drain 80%"


async def test_all_is_down_if_one_is_and_tells_which() -> None:
    async with agents("up", "down#disk full") as parts:
        refused = check("tcp", free_port())
        assert await outcome(combined("all", *parts, refused)) == (
            False,
            "agent: the agent says down: disk full; tcp: connection refused",
        )


async def test_any_is_up_if_one_is_and_asks_for_what_the_living_ask() -> None:
    async with agents("down", "90%", "50%,drain") as parts:
        result = await run(combined("any", *parts))
    assert (result.ok, result.weight, result.drain) == (True, 50, True)
    async with agents("down", "maint") as parts:
        assert await outcome(combined("any", *parts)) == (
            False,
            "agent: the agent says down; agent: the agent says maint",
        )


async def test_a_silent_one_among_them_is_named_within_the_deadline_of_the_whole() -> None:
    async with serving(silent) as port, agents("up") as (good,):
        slow = check("agent", port, timeout=5.0)
        whole = combined("all", good, combined("any", slow, check("tcp", free_port())), timeout=0.5)
        ok, detail = await outcome(whole)
        assert not ok and detail == "any: agent: no answer within 0.451 s; tcp: connection refused"
        ok, detail = await outcome(combined("any", slow, good, timeout=0.5))
        assert (ok, detail) == (True, "the agent says up")


async def test_what_the_node_forbids_is_forbidden_inside_of_combinations() -> None:
    part = check("command", command="/bin/true")
    assert await outcome(combined("all", part)) == (True, "exit code 0")
    refused = await run(combined("all", part), checks.TYPES)
    assert not refused.ok and "/bin/true is not allowed by this node's settings" in refused.detail


# ---------------------------------------------------------------- command


@pytest.mark.parametrize(
    ("script", "weight_from", "expected"),
    [
        ("exit 0", None, (True, "exit code 0", None)),
        ("echo; echo ' all fine '; echo more", None, (True, "exit code 0: 'all fine'", None)),
        ("exit 1", None, (False, "exit code 1", None)),
        ("echo no disk >&2; exit 2", None, (False, "exit code 2: 'no disk'", None)),
        ("kill -TERM $$", None, (False, "killed by signal 15", None)),
        ("exit 0", "exit", (True, "exit code 0", None)),
        ("exit 1", "exit", (False, "exit code 1", None)),
        ("exit 2", "exit", (True, "exit code 2", 0)),
        ("exit 77", "exit", (True, "exit code 77", 75)),
        ("echo 30%", "output", (True, "weight 30%", 30)),
        ("echo noise >&2; echo 7", "output", (True, "weight 7%", 7)),
        ("echo 30%; exit 3", "output", (False, "exit code 3: '30%'", None)),
        ("echo soon", "output", (False, "its output was 'soon', expected a weight in percent such as \"75%\"", None)),
        ("printf '\\377\\000'", None, (True, "exit code 0: '\ufffd\\x00'", None)),
    ],
)
async def test_a_program_says_how_the_backend_is(script: str, weight_from: str | None, expected: Any) -> None:
    result = await run(check("command", command=["/bin/sh", "-c", script], weight_from=weight_from))
    assert (result.ok, result.detail, result.weight) == expected


async def test_a_program_gets_the_target_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYCASTLB_SECRET", "token")
    script = (
        "import os, sys; print(sys.argv[1:], sorted(os.environ.items()), os.getcwd(), sys.stdin.read() == '', "
        "os.getpgrp() == os.getsid(0) == os.getpid(), sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"
    )
    argv = [sys.executable, "-Ic", script, "{address}:{port}", "$HOME {x} {{port}}"]
    ok, detail = await outcome(check("command", 8080, at="2001:db8::1", command=argv))
    assert ok, detail
    ended = await _said(argv, 8080)
    assert ended.startswith("['2001:db8::1:8080', '$HOME {x} {8080}'] [('ANYCASTLB_ADDRESS', '2001:db8::1'), ")
    assert "('ANYCASTLB_PORT', '8080')" in ended and "SECRET" not in ended
    assert ended.endswith(" / True True [0, 1, 2]")


async def _said(argv: list[str], port: int) -> str:
    from anycastlb.adapters.checks.command import _ran

    given = check("command", port, at="2001:db8::1", command=argv)
    params: Any = given.params
    return (await _ran(given, params)).output


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/bin/no-such-program"], "cannot run /bin/no-such-program: no such file or directory"),
        (["/usr/bin/"], None),
    ],
)
async def test_a_program_that_cannot_be_run(command: list[str], reason: str | None) -> None:
    if reason is None:
        with pytest.raises(ValueError):
            check("command", command=command)
        return
    assert await outcome(check("command", command=command)) == (False, reason)


async def test_a_file_that_is_no_program_is_down(tmp_path: Path) -> None:
    file = tmp_path / "check"
    types = checks.types(ChecksSettings(commands=(f"{tmp_path}/*",)))
    given = Check("command", ip_address("127.0.0.1"), 0, types["command"].params(command=(str(file),)), 1, 5, 1, 1)
    for mode, text, reason in [
        (0o644, "#!/bin/sh\n", "permission denied"),
        (0o755, "\x00\x01", "exec format error"),
        (0o755, "#!/no/such\n", "no such file or directory"),
    ]:
        file.write_text(text)
        file.chmod(mode)
        result = await run(given, types)
        assert (result.ok, result.detail) == (False, f"cannot run {file}: {reason}")


def alive(pid: int) -> bool:
    """Is there a process of this number that is more than a body?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def children() -> set[int]:
    """Of this process, but for the one that tells how late the machine is."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()} - {lateness.pid()}


async def gone(*pids: int) -> None:
    async with asyncio.timeout(60):
        while any(map(alive, pids)) or children():
            await asyncio.sleep(0.01)


async def test_a_program_is_killed_with_its_children_at_the_deadline(tmp_path: Path) -> None:
    told = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & (trap '' HUP; sleep 600) & echo $$ $! > {told}.new; mv {told}.new {told}; wait"
    for timeout in (0.5, 5.0, 60.0):  # a busy machine may not even have started the program in half a second
        expected = f"no answer within {timeout:g} s"
        assert await outcome(check("command", timeout=timeout, command=["/bin/sh", "-c", script])) == (False, expected)
        if told.exists():
            break
    pids = [int(pid) for pid in told.read_text().split()]
    assert len(pids) == 2
    await gone(*pids)


async def test_children_left_behind_are_killed_and_hold_up_nobody(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = f"sleep 600 & echo $! > {told}; echo fine"
    ok, detail = await outcome(check("command", timeout=5.0, command=["/bin/sh", "-c", script]))
    assert (ok, detail) == (True, "exit code 0: 'fine'")
    await gone(int(told.read_text()))


async def test_a_program_that_floods_is_read_and_not_kept() -> None:
    flood = ["/bin/sh", "-c", "echo first; head -c 20000000 /dev/zero; echo >&2 x"]
    assert await outcome(check("command", command=flood)) == (True, "exit code 0: 'first'")
    assert await outcome(check("command", timeout=0.3, command=["/usr/bin/yes"])) == (False, "no answer within 0.3 s")
    await gone()


async def test_a_stopped_program_is_killed_too() -> None:
    script = "kill -STOP $$"
    assert not (await outcome(check("command", timeout=0.3, command=["/bin/sh", "-c", script])))[0]
    await gone()


async def test_programs_leave_nothing_behind() -> None:
    quick = check("command", command="/bin/true")
    stuck = check("command", timeout=0.02, command=["/bin/sh", "-c", "sleep 600 & sleep 600"])
    missing = check("command", command="/bin/no-such-program")

    async def many(rounds: int) -> tuple[int, int, int]:
        for _ in range(rounds):
            await asyncio.gather(*(run(one) for one in [quick] * 8 + [stuck, missing]))
        await gone()
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks()), sys.getallocatedblocks()

    await many(20)
    before = await many(20)
    after = await many(60)
    assert after[:2] == before[:2]
    assert after[2] - before[2] < 300, "600 more programs, fewer than one object for each two"


# ---------------------------------------------------------------- dns


def says(rcode: dns.rcode.Rcode = dns.rcode.NOERROR, *records: str, **changes: Any) -> Any:
    """A name server with this one answer to everything."""

    def replies(asked: bytes) -> list[bytes]:
        question = dns.message.from_wire(asked)
        answer = dns.message.make_response(question)
        answer.set_rcode(rcode)
        for record in records:
            answer.answer.append(dns.rrset.from_text(question.question[0].name, 60, "IN", *record.split(" ", 1)))
        if "id" in changes:
            answer.id = question.id ^ 1
        if "question" in changes:
            answer.question = dns.message.make_query(changes["question"], "A").question
        if "asked" in changes:
            answer.flags &= ~dns.flags.QR
        return [answer.to_wire()]

    return replies


@pytest.mark.parametrize(
    ("params", "replies", "ok", "detail"),
    [
        ({}, says(), True, "NOERROR, no records"),
        ({}, says(dns.rcode.SERVFAIL), False, "SERVFAIL, expected NOERROR"),
        ({"rcode": "nxdomain"}, says(dns.rcode.NXDOMAIN), True, "NXDOMAIN, no records"),
        ({"rcode": 5}, says(dns.rcode.REFUSED), True, "REFUSED, no records"),
        ({"rcode": "3"}, says(), False, "NOERROR, expected NXDOMAIN"),
        ({"answer": "192.0.2.7"}, says(0, "A 192.0.2.6", "A 192.0.2.7"), True, "NOERROR: '192.0.2.6; 192.0.2.7'"),
        ({"answer": "re:^192\\.0\\.2\\.[0-9]$"}, says(0, "A 192.0.2.6"), True, "NOERROR: '192.0.2.6'"),
        ({"answer": "192.0.2.8"}, says(0, "A 192.0.2.6"), False,
         "the answer '192.0.2.6' does not contain \"192.0.2.8\""),
        ({"answer": "192.0.2.8"}, says(), False, "NOERROR without an answer; expected one that holds '192.0.2.8'"),
        ({"qtype": "mx", "answer": "10 mail."}, says(0, "MX 10 mail.example.org."), True,
         "NOERROR: '10 mail.example.org.'"),
        ({"qtype": "TYPE65280"}, says(0, "TYPE65280 \\# 2 abcd"), True, "NOERROR: '\\\\# 2 abcd'"),
        ({}, says(0, "TYPE65281 \\# 2 abcd"), True, "NOERROR, no records"),
        ({}, says(asked=True), False, "a question came back, expected an answer"),
        ({}, says(question="www.example.com"), False, "an answer to another question: 'www.example.com.'"),
    ],
)  # fmt: skip
async def test_dns_answers(params: dict[str, Any], replies: Any, ok: bool, detail: str) -> None:
    async with datagrams(replies) as port:
        assert await outcome(check("dns", port, name="www.example.org", **params)) == (ok, detail)


async def test_dns_of_another_id_is_no_answer() -> None:
    async with datagrams(says(id=True)) as port:
        ok, detail = await outcome(check("dns", port, name="www.example.org"))
    assert not ok and detail.startswith("the answer has id ")


@pytest.mark.parametrize("name", ["www.example.org", "www.example.org."])
@pytest.mark.parametrize("qtype", ["A", "aaaa", "NS", "MX", "TXT", "SOA", "HTTPS"])
async def test_dns_asks_what_it_was_told_to(name: str, qtype: str) -> None:
    seen: list[dns.message.Message] = []

    def replies(asked: bytes) -> list[bytes]:
        seen.append(dns.message.from_wire(asked))
        return [answered(asked)]

    async with datagrams(replies) as port:
        assert (await outcome(check("dns", port, name=name, qtype=qtype)))[0]
        assert (await outcome(check("dns", port, name=name, qtype=qtype, recursion=False)))[0]
    assert [str(message.question[0]) for message in seen] == [f"www.example.org. IN {qtype.upper()}"] * 2
    assert [bool(message.flags & dns.flags.RD) for message in seen] == [True, False]
    assert seen[0].id != seen[1].id or await _ids_differ(replies, seen)


async def _ids_differ(replies: Any, seen: list[dns.message.Message]) -> bool:
    """Two ids in 65536 may be equal by chance; ten are not."""
    async with datagrams(replies) as port:
        for _ in range(10):
            await run(check("dns", port, name="www.example.org"))
    return len({message.id for message in seen}) > 1


async def test_a_backend_cannot_fill_the_memory_with_record_types() -> None:
    from dns.rdata import _rdata_classes  # what the library remembers of every type it met

    number, sent = 30_000, b""

    def replies(asked: bytes) -> list[bytes]:
        nonlocal number, sent
        number += 1
        records = b"".join(struct.pack("!HHHIHB", 0xC00C, number + 5000 * more, 1, 60, 1, 0) for more in range(6))
        sent = asked[:2] + struct.pack("!5H", 0x8180, 1, 6, 0, 0) + asked[12:] + records
        return [sent]

    async with datagrams(replies) as port:
        given = check("dns", port, name="www.example.org")
        await run(given)
        before = len(_rdata_classes)
        for _ in range(50):
            assert await outcome(given) == (True, "NOERROR, no records")
    assert len(_rdata_classes) == before
    dns.message.from_wire(sent)
    assert len(_rdata_classes) == before + 6, "what it would have cost"


# ---------------------------------------------------------------- udp, syslog, agent


async def test_udp_sends_the_bytes_that_were_written() -> None:
    seen: list[bytes] = []

    def replies(asked: bytes) -> list[bytes]:
        seen.append(asked)
        return [b"PONG\x00"]

    async with datagrams(replies) as port:
        assert await outcome(check("udp", port, send="a\\x00\\n", expect="PONG\\x00")) == (True, "a reply of 5 bytes")
        assert await outcome(check("udp", port, send="hex:00 ff", expect="nope")) == (
            False,
            "the reply b'PONG\\x00' does not contain \"nope\"",
        )
    assert seen == [b"a\x00\n", b"\x00\xff"]


async def test_silence_is_up_after_a_while_unless_something_is_expected() -> None:
    async with datagrams(lambda asked: ()) as port:
        assert await outcome(check("udp", port, timeout=0.2, send="x")) == (True, "sent, nothing came back")
        assert await outcome(check("udp", port, timeout=0.2, send="x", expect="y")) == (
            False,
            "no answer within 0.2 s",
        )


@pytest.mark.parametrize("framing", ["newline", "octets"])
async def test_syslog_over_tcp_is_one_whole_message(framing: str) -> None:
    seen: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())

    async with serving(keep) as port:
        given = check("syslog", port, framing=framing, level="err", facility="local3", message="all is wéll")
        assert await outcome(given) == (True, "sent and read")
    head, _, text = seen[0].decode().partition(" check - ")
    count = "" if framing == "newline" else f"{len(seen[0]) - len(str(len(seen[0]))) - 1} "
    assert text == "all is wéll" + ("\n" if framing == "newline" else "")
    assert head.startswith(f"{count}<155>1 20") and head.endswith(f" anycastlb {os.getpid()}")


async def test_a_syslog_server_that_hangs_is_down_unless_nobody_asks() -> None:
    """Its kernel still takes connections and bytes."""
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(8)
        port = sock.getsockname()[1]
        assert await outcome(check("syslog", port, timeout=0.2)) == (False, "no answer within 0.2 s")
        assert await outcome(check("syslog", port, timeout=0.2, confirm=False)) == (True, "connected and sent")


async def test_an_agent_is_asked_what_it_is_to_be_asked() -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        for byte in (b"10%\n" if asked == b"load web1\n" else b"down#who?\n") + b"never read\n":
            writer.write(bytes([byte]))
            await writer.drain()

    async with serving(reply) as port:
        result = await run(check("agent", port, send="load web1\\n"))
        assert (result.ok, result.weight) == (True, 10)
        assert await outcome(check("agent", port, send="\\n")) == (False, "the agent says down: who?")


# ---------------------------------------------------------------- grpc


@pytest.mark.parametrize(
    ("params", "ok", "detail"),
    [
        ({}, True, "SERVING"),
        ({"service": "up"}, True, "SERVING"),
        ({"service": "down"}, False, "NOT_SERVING, expected SERVING"),
        ({"service": "x" * 300}, False, "gRPC status NOT_FOUND: the server knows no service 'xxx"),
        ({"tls": True}, False, "TLS handshake failed: "),
    ],
)
async def test_grpc_health(params: dict[str, Any], ok: bool, detail: str) -> None:
    async with health_server("127.0.0.1") as port:
        result = await outcome(check("grpc", port, **params))
    assert result[0] is ok and result[1].startswith(detail), result


async def test_grpc_certificates_are_verified() -> None:
    async with health_server("127.0.0.1", secure=True) as port:
        unknown = await outcome(check("grpc", port, tls=True, host="www.example.org"))
        wrong = await outcome(check("grpc", port, tls=True, host="example.com:443", ca_file=str(authority().file)))
        lost = await outcome(check("grpc", port, tls=True, ca_file="/no/such/file"))
        plain = await outcome(check("grpc", port))
    assert unknown[0] is False and unknown[1].startswith("certificate verify failed: ")
    assert wrong[0] is False and "example.com" in wrong[1]
    assert lost == (False, "/no/such/file cannot be read: No such file or directory")
    assert plain[0] is False


async def test_grpc_of_a_server_without_the_health_service() -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert await outcome(check("grpc", port)) == (
            False,
            "gRPC status UNIMPLEMENTED: the server has no health service (grpc.health.v1.Health)",
        )
    finally:
        await asyncio.to_thread(server.stop(0).wait)


async def test_grpc_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h2.exceptions", None)
    assert await outcome(check("grpc", free_port())) == (
        False,
        "the gRPC check is not installed on this node: pip install anycastlb[grpc]",
    )


def test_signals_are_as_they_were() -> None:
    """Programs are waited for without a handler of our own."""
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
