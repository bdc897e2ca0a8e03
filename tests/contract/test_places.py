"""What every place of names owes its driver: one suite for the ones in memory and for real name servers and Consul."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers.names import RACED, RecordStore
from anycastlb.adapters.drivers.names.consul import ConsulServices
from anycastlb.adapters.drivers.names.dns import DnsZone
from anycastlb.adapters.drivers.names.memory import Board, MemoryRecordStore
from anycastlb.core.model import Change, ConsulKey, ConsulService, DnsKey, DnsRecord, Rows, Table
from anycastlb.settings import ConsulSettings, DnsSettings
from tests.support.consul import Agent
from tests.support.name_servers import ZONE, NameServer

DOMAIN = f"lb.{ZONE}."
WWW, ELSE = f"www.{DOMAIN}", f"other.{DOMAIN}"
SRV = f"_http._tcp.{WWW}"
NAMES = {WWW, ELSE, SRV}
ROW = DnsRecord(30, "web")
RECORDS = {
    DnsKey(WWW, "A", "192.0.2.10"): ROW,
    DnsKey(WWW, "A", "192.0.2.11"): ROW,
    DnsKey(WWW, "AAAA", "2001:db8::10"): ROW,
    DnsKey(SRV, "SRV", f"0 0 80 {WWW}"): ROW,
    DnsKey(ELSE, "A", "192.0.2.12"): DnsRecord(60, "other, with = and spaces"),
}
V4, V6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
SERVICES = {
    ConsulKey("web", V4, "lb1"): ConsulService("anycastlb-web", V4, 80, ("a", "b"), True, "2/2 backends up"),
    ConsulKey("web", V6, "lb1"): ConsulService("anycastlb-web", V6, 80, (), False, "0/2 backends up, needs 1"),
    ConsulKey("a mark/ü", V4, "lb1"): ConsulService("mark", V4, 0, (), True, "1/1 backends up"),
}


@dataclass
class Case:
    """A place, and what may stand there."""

    open: Callable[[], RecordStore]
    """The same place, as another process or another node sees it."""
    rows: Mapping[Any, Any]
    changed: Callable[[Any], Any]
    """Another row of the same key."""

    @property
    def table(self) -> Table:
        return self.open().table


def restated(row: DnsRecord) -> DnsRecord:
    return replace(row, ttl=90)


def turned(row: ConsulService) -> ConsulService:
    return replace(row, passing=not row.passing, reason="turned", tags=("c",))


@pytest.fixture(scope="module")
def servers(
    require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], NameServer]]:
    """Real name servers, each started when it is first asked for."""
    started: dict[str, NameServer] = {}

    def server(program: str) -> NameServer:
        if program not in started:
            started[program] = NameServer(require(program), tmp_path_factory.mktemp(program))
            started[program].start()
        return started[program]

    yield server
    for running in started.values():
        running.kill()


def in_memory(rows: Rows, changed: Callable[[Any], Any], table: Table) -> Case:
    board = Board()
    return Case(lambda: MemoryRecordStore(board, table), rows, changed)


def in_zone(server: NameServer, folder: Path) -> Case:
    files = (folder / f"names{number}" for number in count())
    settings = DnsSettings(
        server=server.address, port=server.port, zone=ZONE, tsig_key_file=server.key_file, subdomain="lb"
    )
    return Case(lambda: DnsZone(settings, next(files)), RECORDS, restated)


@pytest.fixture(params=["memory", "knotd", "named"])
async def dns(
    request: pytest.FixtureRequest, servers: Callable[[str], NameServer], tmp_path: Path
) -> AsyncIterator[Case]:
    async for case in dns_case(request.param, servers, tmp_path):
        yield case


async def dns_case(kind: str, servers: Callable[[str], NameServer], folder: Path) -> AsyncIterator[Case]:
    case = in_memory(RECORDS, restated, "dns_records") if kind == "memory" else in_zone(servers(kind), folder)
    yield case
    place = case.open()
    await write(place, {key: (row, None) for key, row in (await place.look(NAMES)).items()})
    assert await place.look(NAMES) == {}


async def consul_case(agent: Agent) -> AsyncIterator[Case]:
    opened: list[RecordStore] = []

    def open_another() -> RecordStore:
        opened.append(ConsulServices(ConsulSettings(address=agent.address), "lb1", 15.0))
        return opened[-1]

    yield Case(open_another, SERVICES, turned)
    for place in opened:
        await place.close()
    for id in json.loads(agent.call("GET", "/v1/agent/services")):
        agent.call("PUT", f"/v1/agent/service/deregister/{id}")


@pytest.fixture(params=["memory", "knotd", "named", "services in memory", "consul"])
async def case(
    request: pytest.FixtureRequest, servers: Callable[[str], NameServer], tmp_path: Path
) -> AsyncIterator[Case]:
    if request.param == "services in memory":
        yield in_memory(SERVICES, turned, "consul_services")
    elif request.param == "consul":
        async for case in consul_case(request.getfixturevalue("agent")):
            yield case
    else:
        async for case in dns_case(request.param, servers, tmp_path):
            yield case


async def write(place: RecordStore, rows: Mapping[Any, tuple[Any, Any]]) -> dict[Any, str]:
    """From old to new rows; the reasons by key."""
    changes = [Change(place.table, key, old, new) for key, (old, new) in rows.items()]
    return {change.key: reason async for change, reason in place.write(changes)}


async def create(place: RecordStore, rows: Rows) -> dict[Any, str]:
    return await write(place, {key: (None, row) for key, row in rows.items()})


async def test_at_first_nothing_is_ours(case: Case) -> None:
    assert await case.open().look(NAMES) == {}


async def test_what_was_written_is_seen_by_everybody(case: Case) -> None:
    place = case.open()
    await place.look(NAMES)
    assert await create(place, case.rows) == dict.fromkeys(case.rows, "")
    assert await place.look(NAMES) == case.rows
    assert await case.open().look(NAMES) == case.rows


async def test_rows_are_changed_and_removed_one_by_one(case: Case) -> None:
    place = case.open()
    await place.look(NAMES)
    await create(place, case.rows)
    left = dict(case.rows)
    for key, row in case.rows.items():
        if len([other for other in left if getattr(other, "name", other) == getattr(key, "name", key)]) == 1:
            assert await write(place, {key: (row, case.changed(row))}) == {key: ""}  # an RRset has one time to live
            assert (await place.look(NAMES))[key] == case.changed(row)
            row = case.changed(row)
        assert await write(place, {key: (row, None)}) == {key: ""}
        del left[key]
        assert await place.look(NAMES) == left
    assert left == {}


async def test_what_another_one_has_changed_is_a_lost_race(dns: Case) -> None:
    """And nothing of the change is made."""
    first, second = dns.open(), dns.open()
    key, more = DnsKey(WWW, "A", "192.0.2.10"), DnsKey(WWW, "A", "192.0.2.11")
    for place in (first, second):
        await place.look(NAMES)
    assert await create(first, {key: ROW}) == {key: ""}
    assert await create(second, {key: ROW}) == {key: RACED}
    for place in (first, second):
        assert await place.look(NAMES) == {key: ROW}
    assert await write(first, {key: (ROW, None)}) == {key: ""}
    assert await write(second, {key: (ROW, None)}) == {key: RACED}
    assert await second.look(NAMES) == {}
    assert await create(second, {key: ROW}) == {key: ""}
    assert await first.look(NAMES) == {key: ROW}
    assert await create(first, {more: ROW}) == {more: ""}
    assert await second.look(NAMES) == {key: ROW, more: ROW}


async def test_what_was_ours_is_found_again_although_nobody_asks_for_its_name(dns: Case) -> None:
    place = dns.open()
    await place.look(NAMES)
    await create(place, dns.rows)
    assert await place.look(()) == dns.rows
