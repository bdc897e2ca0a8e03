"""Publishing names at real name servers: keys, refusals, foreign names, silence, and two writers at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers.names.background import RecordDriver
from anycastlb.adapters.drivers.names.dns import DnsZone
from anycastlb.adapters.system.clock import Clock
from anycastlb.core.decision import plan
from anycastlb.core.events import Event
from anycastlb.core.model import Change, DnsKey, DnsRecord, DriverError, State
from anycastlb.settings import DnsSettings
from tests.support.name_servers import OTHER, SECRET, ZONE, NameServer

WWW = "www.lb.example.net."
ROW = DnsRecord(30, "web")
PATIENCE = 180.0
UNSIGNED = "not signed.*one that knows our key"
"""Knot from 3.4 on signs no refusal for a key that it does not know or that may do nothing."""


def a(name: str = WWW, address: str = "192.0.2.10") -> DnsKey:
    return DnsKey(name, "A", address)


@pytest.fixture(params=["knotd", "named"])
def server(request: pytest.FixtureRequest, require: Callable[[str], str], tmp_path: Path) -> Iterator[NameServer]:
    server = NameServer(require(request.param), tmp_path)
    server.start()
    yield server
    server.kill()


def zone(server: NameServer, memory: Path | None = None, attempt: float = 5.0, **settings: Any) -> DnsZone:
    values: dict[str, Any] = {"zone": ZONE, "tsig_key_file": server.key_file, **settings}
    return DnsZone(DnsSettings(server=server.address, port=server.port, **values), memory, attempt)


async def write(place: DnsZone, *changes: tuple[DnsKey, DnsRecord | None, DnsRecord | None]) -> list[str]:
    wanted = [Change("dns_records", key, old, new) for key, old, new in changes]
    return [reason async for _, reason in place.write(wanted)]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("nobody", SECRET), f"BADKEY: it does not know the key nobody|{UNSIGNED}"),
        (("writer", OTHER), "BADSIG: it has another secret for the key writer"),
    ],
)
async def test_a_wrong_key_is_named_and_its_secret_is_not(
    server: NameServer, key: tuple[str, str], expected: str
) -> None:
    server.key_file = server.keep(*key)
    with pytest.raises(DriverError, match=expected) as caught:
        await zone(server).look([WWW])
    assert key[1] not in str(caught.value)


async def test_a_key_that_may_not_write_is_refused(server: NameServer) -> None:
    server.key_file = server.keep("reader", OTHER)
    place = zone(server)
    try:
        await place.look([WWW])
        (reason,) = await write(place, (a(), None, ROW))
    except DriverError as exc:
        reason = str(exc)
    assert re.search(f"REFUSED|lets it do nothing here|{UNSIGNED}", reason)
    assert not server.dig("www.lb")


async def test_a_new_key_is_used_at_once(server: NameServer) -> None:
    server.key_file = server.keep("writer", OTHER)
    place = zone(server)
    with pytest.raises(DriverError):
        await place.look([WWW])
    server.keep("writer", SECRET)
    assert await place.look([WWW]) == {}


async def test_a_server_of_another_zone_says_so(server: NameServer) -> None:
    with pytest.raises(DriverError, match=r"REFUSED|not signed"):
        await zone(server, zone="example.org").look(["www.lb.example.org."])
    (reason,) = await write(zone(server), (a("www.example.org."), None, ROW))
    assert "does not lie in the zone" in reason


@pytest.mark.parametrize(
    "name", ["a..b.example.net.", "a b.example.net.", f"{'x' * 64}.example.net.", "\\300.example.net."]
)
async def test_a_service_whose_name_is_no_domain_name_fails_alone(server: NameServer, name: str) -> None:
    place = zone(server)
    assert await place.look([name, WWW]) == {}
    bad, good = await write(place, (a(name), None, ROW), (a(), None, ROW))
    assert "no domain name" in bad and good == ""
    assert server.dig("www.lb") == ["192.0.2.10"]


@pytest.mark.parametrize(
    ("name", "kept"), [("taken.lb", ("A", ["10.9.9.9"])), ("alias.lb", ("CNAME", ["ns.example.net."]))]
)
async def test_what_somebody_else_has_made_is_left_alone(
    server: NameServer, name: str, kept: tuple[str, list[str]]
) -> None:
    place, key = zone(server), a(f"{name}.example.net.")
    assert await place.look([key.name]) == {}
    (reason,) = await write(place, (key, None, ROW))
    assert f"records that anycastlb did not make ({kept[0]})" in reason
    assert server.dig(name, kept[0]) == kept[1]
    assert not server.dig(f"_anycastlb.{name}", "TXT")


async def test_another_ones_text_at_our_name_stays(server: NameServer) -> None:
    place, key = zone(server), a("text.lb.example.net.")
    await place.look([key.name])
    assert await write(place, (key, None, ROW)) == [""]
    assert await write(place, (key, ROW, None)) == [""]
    assert server.dig("text.lb", "TXT") == ['"somebody\'s"'] and not server.dig("text.lb")


async def test_two_owners_do_not_touch_each_others_names(server: NameServer) -> None:
    ours, theirs = zone(server), zone(server, owner="theirs")
    await ours.look([WWW])
    await write(ours, (a(), None, ROW))
    assert await theirs.look([WWW]) == {}
    (reason,) = await write(theirs, (a(), None, ROW))
    assert "belongs to somebody else" in reason and "owner=anycastlb" in reason
    assert server.dig("www.lb") == ["192.0.2.10"]


async def test_a_record_added_by_hand_at_our_name_is_seen_and_can_be_removed(server: NameServer) -> None:
    place, more = zone(server), a(address="198.51.100.1")
    await place.look([WWW])
    await write(place, (a(), None, ROW))
    server.update("www.lb", {"A": "198.51.100.1"})
    found = await place.look([WWW])
    assert more in found
    assert set(await write(place, *((key, row, None) for key, row in found.items()), (a(), None, ROW))) == {""}
    assert server.dig("www.lb") == ["192.0.2.10"] and server.ttl("www.lb") == 30


@asynccontextmanager
async def running(place: DnsZone) -> AsyncIterator[tuple[RecordDriver, list[Event]]]:
    events: list[Event] = []
    driver = RecordDriver(place, events.append, clock=Clock(chance=lambda: 0.0))
    driver.want([WWW])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(driver.run())
        yield driver, events
        task.cancel()


async def settle(driver: RecordDriver, desired: State, done: Callable[[], bool]) -> None:
    """Cycles of a reconciler, until it is so."""
    async with asyncio.timeout(PATIENCE):
        while not done():
            tables: Any = await driver.observe()
            if tables:
                await driver.apply(plan.diff(State(**tables), desired))
            await asyncio.sleep(0.05)


async def test_a_server_that_is_silent_or_dead_is_waited_for_in_the_background(server: NameServer) -> None:
    wanted = State(dns_records={a(): ROW})
    async with running(zone(server, attempt=0.5, refresh="1s")) as (driver, events):
        await settle(driver, wanted, lambda: server.dig("www.lb") == ["192.0.2.10"])
        server.freeze()
        try:
            await settle(driver, State(), lambda: bool(driver.registrar().error))
        finally:
            server.thaw()
        assert "no answer within 0.5 s" in driver.registrar().error
        await settle(driver, State(), lambda: not driver.registrar().error and not server.dig("www.lb"))
        server.kill()
        await settle(driver, wanted, lambda: bool(driver.registrar().error))
        server.start()
        await settle(driver, wanted, lambda: server.dig("www.lb") == ["192.0.2.10"])
    away = [event.after for event in events if event.kind == "names"]
    assert away[:3] == ["away", "answers", "away"]


async def test_many_writers_at_once_end_in_what_they_all_want(server: NameServer) -> None:
    """Five nodes with the same wish, then with another: nobody fails, nothing is left over."""
    first = {a(): ROW, a(address="192.0.2.11"): ROW, DnsKey(WWW, "AAAA", "2001:db8::1"): ROW}
    second = {a(address="192.0.2.11"): DnsRecord(60, "web")}
    drivers: list[RecordDriver] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            driver = RecordDriver(zone(server, refresh="1s"))
            driver.want([WWW])
            drivers.append(driver)
        tasks = [group.create_task(driver.run()) for driver in drivers]
        for wish in (first, second, {}, first):
            await asyncio.gather(
                *(settle(d, State(dns_records=wish), lambda d=d, w=wish: d._rows == w) for d in drivers)  # type: ignore[misc]
            )
            assert not any(driver.registrar().refused or driver.registrar().error for driver in drivers)
            assert server.dig("www.lb") == sorted(key.data for key in wish if key.type == "A")
        for task in tasks:
            task.cancel()


async def test_what_was_ours_is_remembered_over_a_restart(server: NameServer, tmp_path: Path) -> None:
    memory = tmp_path / "state" / "dns-names"
    before = zone(server, memory)
    await before.look([WWW])
    await write(before, (a(), None, ROW))
    after = zone(server, memory)
    assert await after.look([]) == {a(): ROW}
    assert await write(after, (a(), ROW, None)) == [""]
    assert await after.look([]) == {}
    assert memory.read_text() == ""
    memory.unlink()
    memory.mkdir()
    with pytest.raises(DriverError, match="expected the names this node has published"):
        await zone(server, memory).look([WWW])
    memory.rmdir()
