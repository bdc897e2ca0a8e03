"""Discovery by DNS against a server that misbehaves in every way a real one will not on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from anycastlb.adapters.discovery import DiscoveryAnswer
from anycastlb.adapters.discovery import dns as module
from anycastlb.adapters.discovery.dns import DnsDiscovery, spread
from anycastlb.core.model import DnsInstances, SourceError
from tests.support.waiting import PATIENCE

NAME = "web.example.org."
Script = Callable[[dns.message.Message], bytes | None]


class Server(asyncio.DatagramProtocol):
    """Answers on UDP and TCP what ``script`` makes of a query: bytes; None never answers."""

    def __init__(self) -> None:
        self.script: Script = lambda query: None
        self.over_tcp: Script | None = None
        self.queries: list[tuple[str, str]] = []
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if said := self._said(data, self.script):
            self.transport.sendto(said, addr)  # type: ignore[attr-defined]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            said = self._said(await reader.readexactly(length), self.over_tcp or self.script)
            if said is not None:
                writer.write(len(said).to_bytes(2, "big") + said)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _said(self, data: bytes, script: Script) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        self.queries.append((question.name.to_text(), dns.rdatatype.to_text(question.rdtype)))
        return script(query)


def answer(query: dns.message.Message, *sets: str, rcode: int = 0, authority: str = "", flags: int = 0) -> bytes:
    """``web.example.org. 60 IN A 10.1.0.1 10.1.0.2``, one record set a text."""
    said = dns.message.make_response(query)
    said.set_rcode(dns.rcode.Rcode(rcode))
    said.flags |= flags
    for text in sets:
        name, ttl, _, kind, *values = text.split(" ")
        records = [" ".join(values)] if kind in ("SRV", "TXT") else values
        said.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, *records))
    if authority:
        name, ttl, _, kind, rest = authority.split(" ", 4)
        said.authority.append(dns.rrset.from_text(name, int(ttl), "IN", kind, rest))
    return said.to_wire(max_size=65535)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    loop, server = asyncio.get_running_loop(), Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", server.port))
    yield server
    transport.close()
    listener.close()


def discovery(server: Server, kind: str = "A", shortest: float = 0.0) -> DnsDiscovery:
    wanted = DnsInstances(NAME.rstrip("."), kind, ip_address("127.0.0.1"))  # type: ignore[arg-type]
    return DnsDiscovery(wanted, port=server.port, shortest=shortest)


async def reading(source: DnsDiscovery, after: DiscoveryAnswer | None = None) -> DiscoveryAnswer:
    async with asyncio.timeout(PATIENCE):
        return await source.read(after)


def names(answer: DiscoveryAnswer) -> list[str]:
    return [instance.name for instance in answer.instances]


async def test_in_one_order_whatever_the_server_s(server: Server) -> None:
    turns = [["10.1.0.9", "10.1.0.10"], ["10.1.0.10", "10.1.0.9"]]
    server.script = lambda query: answer(query, f"{NAME} 0 IN A {' '.join(turns[len(server.queries) % 2])}")
    source = discovery(server)
    first = await reading(source)
    assert names(first) == ["10.1.0.9", "10.1.0.10"]
    assert (await reading(source)).same(first)


async def test_a_truncated_answer_is_fetched_whole(server: Server) -> None:
    many = " ".join(f"10.1.{number // 200}.{number % 200 + 1}" for number in range(400))
    server.script = lambda query: answer(query, f"{NAME} 5 IN A 10.1.0.1", flags=dns.flags.TC)
    server.over_tcp = lambda query: answer(query, f"{NAME} 5 IN A {many}")
    assert len((await reading(discovery(server))).instances) == 400


async def test_an_alias_and_its_end(server: Server) -> None:
    alias, end = f"{NAME} 60 IN CNAME real.example.org.", "real.example.org. 5 IN A 10.1.0.1"
    server.script = lambda query: answer(query, alias, end)
    assert names(await reading(discovery(server))) == ["10.1.0.1"]
    server.script = lambda query: answer(query, alias)
    assert "has no A record" in (await reading(discovery(server))).problems[0]


@pytest.mark.parametrize(
    ("rcode", "told"), [(0, "the name web.example.org has no A record"), (3, "does not exist (NXDOMAIN)")]
)
async def test_nothing_is_an_answer(server: Server, rcode: int, told: str) -> None:
    soa = "example.org. 7 IN SOA ns.example.org. x.example.org. 1 2 3 4 5"
    for authority in ("", soa):
        server.script = lambda query, authority=authority: answer(query, rcode=rcode, authority=authority)  # type: ignore[misc]
        found = await reading(discovery(server))
        assert not found.instances and told in found.problems[0]


async def test_addresses_that_cannot_be_a_backend_s(server: Server) -> None:
    server.script = lambda query: answer(query, f"{NAME} 5 IN A 0.0.0.0 10.1.0.1 224.0.0.1")
    found = await reading(discovery(server))
    assert names(found) == ["10.1.0.1"] and len(found.problems) == 2


BAD: dict[str, Script] = {
    "SERVFAIL": lambda query: answer(query, rcode=2),
    "REFUSED": lambda query: answer(query, rcode=5),
    "NOTIMP": lambda query: answer(query, rcode=4),
    "silence": lambda query: None,
    "noise": lambda query: b"\xff" * 40,
    "only an id": lambda query: query.id.to_bytes(2, "big"),
    "an empty datagram": lambda query: b"\0",
    "the query itself": lambda query: query.to_wire(),
    "cut short": lambda query: answer(query, f"{NAME} 5 IN A 10.1.0.1")[:-3],
    "another question's": lambda query: answer(dns.message.make_query("x.example.net", "A", id=query.id)),
    "another id": lambda query: answer(dns.message.make_query(NAME, "A"), f"{NAME} 5 IN A 10.1.0.66"),
    "found in what does not exist": lambda query: answer(query, f"{NAME} 5 IN A 10.1.0.1", rcode=3),
    "an alias of itself": lambda query: answer(query, f"{NAME} 5 IN CNAME {NAME}"),
}

HEARD = {"SERVFAIL", "REFUSED", "NOTIMP", "found in what does not exist", "an alias of itself"}
"""The bad answers that are taken for one; of all others the query waits for a better one."""


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_answer_is_an_error_and_a_good_one_after_it_is_read(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script = BAD[name]
    source = discovery(server)
    told = set()
    with monkeypatch.context() as hurried:
        if name not in HEARD:
            hurried.setattr(module, "ATTEMPT", 0.2)
            hurried.setattr(module, "LIFETIME", 0.5)
        for _ in range(2):
            with pytest.raises(SourceError, match=r"DNS at 127\.0\.0\.1: A of web\.example\.org: ") as raised:
                await reading(source)
            told.add(str(raised.value))
    assert len(told) == 1 and len(told.pop()) < 350, "the same words each time: they are told once"
    server.script = lambda query: answer(query, f"{NAME} 5 IN A 10.1.0.1")
    assert names(await reading(source)) == ["10.1.0.1"]


async def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIFETIME", 0.5)
    wanted = DnsInstances("web.example.org", "A", ip_address("127.0.0.1"))
    with pytest.raises(SourceError, match=r"DNS at 127\.0\.0\.1"):
        await DnsDiscovery(wanted, port=1).read(None)


async def test_a_name_that_is_none() -> None:
    wanted = DnsInstances("x" * 64 + ".example.org", "A", ip_address("127.0.0.1"))
    with pytest.raises(SourceError, match="label"):
        await DnsDiscovery(wanted, port=1).read(None)


async def test_it_asks_again_when_the_answer_has_grown_old(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(delay: float) -> None:
        slept.append(round(delay, 1))
        await real(0)

    ttls = iter([1, 30, 86400, 0, 5])
    numbers = iter([1, 2, 3, 4, 5])
    server.script = lambda query: answer(query, f"{NAME} {next(ttls)} IN A 10.1.0.{next(numbers)}")
    source = discovery(server, shortest=2.0)
    before = await reading(source)
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    for _ in range(4):
        before = await reading(source, before)
    monkeypatch.undo()
    assert [delay for delay in slept if delay > 1] == [2.0, 30.0, module.LONGEST, 2.0]


class TestServices:
    ZONE = {  # noqa: RUF012
        ("a.example.org.", "A"): "a.example.org. 9 IN A 10.1.0.1 10.1.0.11",
        ("b.example.org.", "AAAA"): "b.example.org. 9 IN AAAA 2001:db8::2",
    }

    def script(self, *records: str, broken: str = "") -> Script:
        def said(query: dns.message.Message) -> bytes | None:
            name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
            if kind == "SRV":
                response = dns.message.make_response(query)
                response.answer.append(dns.rrset.from_text(NAME, 9, "IN", "SRV", *records))
                return response.to_wire()
            if name == broken:
                return answer(query, rcode=2)
            return answer(query, self.ZONE[name, kind]) if (name, kind) in self.ZONE else answer(query)

        return said

    async def test_each_target_in_both_families(self, server: Server) -> None:
        server.script = self.script("1 5 80 a.example.org.", "1 6 81 b.example.org.", "2 0 0 a.example.org.")
        answer = await reading(discovery(server, "SRV"))
        assert names(answer) == ["10.1.0.1:0", "10.1.0.1:80", "10.1.0.11:0", "10.1.0.11:80", "[2001:db8::2]:81"]
        assert [one.port for one in answer.instances] == [None, 80, None, 80, 81]
        assert [one.fallback for one in answer.instances] == [True, False, True, False, False]

    async def test_half_an_answer_is_none(self, server: Server) -> None:
        server.script = self.script("1 5 80 a.example.org.", "1 6 81 b.example.org.", broken="b.example.org.")
        with pytest.raises(SourceError, match=r"A of b\.example\.org\.: .*SERVFAIL"):
            await reading(discovery(server, "SRV"))

    async def test_a_target_without_an_address(self, server: Server) -> None:
        server.script = self.script("1 5 80 a.example.org.", "1 6 81 c.example.org.")
        answer = await reading(discovery(server, "SRV"))
        assert len(answer.instances) == 2
        assert answer.problems == ("the target c.example.org. has no address",)

    async def test_too_many_targets(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_TARGETS", 2)
        server.script = self.script(*(f"1 5 {port} a.example.org." for port in (80, 81, 82)))
        with pytest.raises(SourceError, match="3 SRV records; expected at most 2"):
            await reading(discovery(server, "SRV"))


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([], []),
        ([(5, 0, 80, ["10.0.0.1"]), (5, 0, 81, ["10.0.0.1"])], [(80, None, False), (81, None, False)]),
        ([(5, 0, 80, ["10.0.0.1"]), (5, 9, 81, ["10.0.0.1"])], [(80, 1, False), (81, 9, False)]),
        ([(9, 7, 81, ["10.0.0.1"]), (5, 7, 80, ["10.0.0.1"])], [(80, 7, False), (81, 7, True)]),
        ([(9, 7, 80, ["10.0.0.1"]), (5, 8, 80, ["10.0.0.1"])], [(80, 8, False)]),
        ([(9, 65535, 80, ["10.0.0.1"])], [(80, 65535, False)]),
    ],
)
def test_priorities_and_weights(
    records: list[tuple[int, int, int, list[str]]], found: list[tuple[int, int | None, bool]]
) -> None:
    instances, problems = spread(records)
    assert [(one.port, one.weight, one.fallback) for one in instances] == found and not problems
