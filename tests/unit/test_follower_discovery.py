"""The follower with discoveries: what becomes of their answers, and what is left of them on disk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.discovery import Kind, LossRule
from anycastlb.adapters.discovery.memory import MemoryDiscovery
from anycastlb.adapters.sources.cache import SavedInstances
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.model import Catalog, ConsulInstances, Discover, DnsInstances, Feed, Instance, Share, SourceError
from anycastlb.engine.catalog_parser import CatalogParts
from anycastlb.engine.follower import Follower
from anycastlb.settings import parse

pytestmark = pytest.mark.virtual_time

PATIENCE = 10.0
WEB = {"vip": "192.0.2.10", "port": 80, "backends_from": {"consul": {"service": "web"}}}
STATIC = {"vip": "192.0.2.10", "port": 80, "backends": {"old": {"address": "10.1.0.9"}}}
WANTED = ConsulInstances("web")


def some(*numbers: int) -> tuple[Instance, ...]:
    return tuple(Instance(f"web{n}", ip_address(f"10.1.0.{n}"), 8080, created=n) for n in numbers)


async def inline(function: Callable[..., Any], /, *args: Any) -> Any:
    return function(*args)


class Node:
    """A follower over a source and discoveries in memory, and what it published."""

    def __init__(
        self,
        state_dir: Path,
        source: MemorySource | None = None,
        patience: float = 0.3,
        grace: float | None = 0.3,
        confirm: str = "never",
    ) -> None:
        self.source = source or MemorySource()
        self.found: dict[Discover, MemoryDiscovery] = {}
        self.seen: list[tuple[Catalog, Feed]] = []
        self.parsed = 0
        self.journal = Journal()
        node = f'[node]\nvip_ranges = ["192.0.2.0/24"]\nstate_dir = "{state_dir}"'
        self.settings = parse(f'{node}\n[catalog]\nconfirm = "{confirm}"')
        self.grace = grace
        parts = CatalogParts(self.source, PARAMS, self.kind, patience=patience, prepare=self.count)
        clock = Clock(asyncio.get_running_loop().time, chance=lambda: 0.5, offload=self.offload)
        self.follower = Follower(parts, self.settings, lambda *now: self.seen.append(now), self.journal, clock)

    def kind(self, wanted: Discover) -> Kind:
        return Kind(lambda: self.discovery(wanted), LossRule(Share(percent=50.0), self.grace))

    def discovery(self, wanted: Discover = WANTED) -> MemoryDiscovery:
        return self.found.setdefault(wanted, MemoryDiscovery())

    def count(self, _read: Catalog) -> None:
        self.parsed += 1

    @staticmethod
    async def offload(function: Callable[..., Any], /, *args: Any) -> Any:
        return function(*args)

    def put(self, document: Any, name: str = "web") -> None:
        self.source.put(f"services/{name}", json.dumps(document))

    async def __aenter__(self) -> Node:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self.follower.run())
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._task.cancel()
        await self._group.__aexit__(*error)

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (self.seen and what()):
                await asyncio.sleep(0.005)

    def names(self, service: str = "web") -> list[str]:
        found = [one for one in self.seen[-1][0].services if one.name == service] if self.seen else []
        return [backend.name for one in found for backend in one.backends]

    async def shows(self, *names: str) -> None:
        await self.until(lambda: self.names() == list(names))

    def problems(self) -> list[str]:
        return [str(problem) for problem in self.seen[-1][0].problems]

    def events(self, kind: str, after: str = "") -> list[str]:
        events = [record.event for record in self.journal.records()]
        return [event.reason for event in events if event.kind == kind and after in ("", event.after)]


async def test_instances_come_and_go(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.discovery().put(*some(1, 2))
        node.put(WEB)
        await node.shows("web1", "web2")
        node.discovery().put(*some(1, 2, 3))
        await node.shows("web1", "web2", "web3")
        assert node.events("discovery") == ["2 instances: +web1 +web2", "3 instances: +web3"]
        assert len(node.events("catalog", "applied")) == 1, "the instances tell of themselves"


async def test_a_storm_of_answers_is_parsed_together(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.put(WEB)
        await node.until(lambda: node.seen[-1][0].services)
        before = node.parsed
        for count in range(1, 200):
            node.discovery().put(*some(*range(1, count + 1)))
            await asyncio.sleep(0.001)
        await node.until(lambda: len(node.names()) == 199)
        assert 0 < node.parsed - before < 10


async def test_one_discovery_for_all_who_ask_the_same(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.discovery().put(*some(1))
        for number in range(5):
            node.put({**WEB, "vip": f"192.0.2.{number + 10}"}, f"s{number}")
        node.put({**WEB, "vip": "192.0.2.20", "backends_from": {"dns": {"name": "x.example.org"}}}, "dns")
        await node.until(lambda: all(node.names(f"s{number}") == ["web1"] for number in range(5)))
        await node.until(lambda: len(node.found) == 2)
        for number in range(5):
            node.source.delete(f"services/s{number}")
            node.put({"vip": f"192.0.2.{number + 10}", "port": 80}, f"t{number}")
        await node.until(lambda: node.discovery().closed)
        assert not node.discovery(DnsInstances("x.example.org")).closed


async def test_what_ails_a_discovery_is_a_problem_of_its_service(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.discovery().put(*some(1))
        node.put(WEB)
        await node.shows("web1")
        node.discovery().fail("nobody there")
        told = "services/web: backends_from: nobody there; the last answer (1 instance) is kept"
        await node.until(lambda: node.problems() == [told])
        assert node.names() == ["web1"]
        node.discovery().heal()
        await node.until(lambda: not node.problems())
        assert len(node.events("catalog", "problem")) == len(node.events("catalog", "solved")) == 1


async def test_the_source_may_be_away(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.discovery().put(*some(1))
        node.put(WEB)
        await node.shows("web1")
        node.source.fail()
        await node.until(lambda: not node.seen[-1][1].connected)
        node.discovery().put(*some(1, 2))
        await node.shows("web1", "web2")


async def test_a_held_catalog_stops_no_instance(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.discovery().put(*some(1))
        node.put(WEB)
        node.put({**STATIC, "vip": "192.0.2.11"}, "other")
        await node.until(lambda: node.names() == ["web1"] and node.names("other"))
        node.source._entries.clear()
        node.put({"vip": "192.0.2.12", "port": 80, "backends_from": {"dns": {"name": "x.example.org"}}}, "third")
        await node.until(lambda: node.seen[-1][1].held)
        node.discovery().put(*some(1, 2))
        await node.shows("web1", "web2")
        dns = DnsInstances("x.example.org")
        node.discovery(dns).put(*some(7))
        await node.until(lambda: node.names("third") == ["web7"])
        assert node.seen[-1][1].held and not node.discovery().closed
        assert node.follower.confirm()
        await node.until(lambda: not node.seen[-1][1].held)
        assert node.names("third") == ["web7"]
        await node.until(lambda: node.discovery().closed)


async def test_a_service_waits_for_the_first_answer_as_it_was(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.put(STATIC)
        await node.shows("old")
        node.discovery().fail("slow to start")
        node.put({**WEB, "vip": "192.0.2.11"})
        await node.until(lambda: any("slow to start; no instance is known" in told for told in node.problems()))
        assert node.names() == ["old"]
        since = len(node.seen)
        node.discovery().put(*some(1))
        node.discovery().heal()
        await node.until(lambda: node.seen[-1][1].held)
        assert node.names() == ["old"], "its VIP would be lost, the only one"
        assert node.follower.confirm()
        await node.shows("web1")
        assert [str(vip) for vip in node.seen[-1][0].vips] == ["192.0.2.11"]
        assert all(catalog.services[0].backends for catalog, _ in node.seen[since:])


async def test_a_vip_is_given_up_with_the_first_answer_only_after_a_fresh_read(tmp_path: Path) -> None:
    async with Node(tmp_path) as node:
        node.put(STATIC)
        for number in range(3):
            node.put({"vip": f"192.0.2.{20 + number}", "port": 80}, f"s{number}")
        await node.until(lambda: len(node.seen[-1][0].vips) == 4)
        node.discovery().fail()
        node.put({**WEB, "vip": "192.0.2.11"})
        await node.until(node.problems)
        node.discovery().put(*some(1))
        node.discovery().heal()
        await node.shows("web1")
        assert "192.0.2.11" in {str(vip) for vip in node.seen[-1][0].vips}


async def test_confirm_lets_a_loss_of_instances_through(tmp_path: Path) -> None:
    async with Node(tmp_path, grace=None) as node:
        node.discovery().put(*some(1, 2, 3))
        node.put(WEB)
        await node.shows("web1", "web2", "web3")
        node.discovery().put()
        await node.until(node.problems)
        assert node.names() == ["web1", "web2", "web3"]
        assert node.follower.confirm() and not node.follower.confirm()
        await node.shows()


class TestSaved:
    async def restarted(self, tmp_path: Path) -> None:
        async with Node(tmp_path) as node:
            node.discovery().put(*some(1, 2))
            node.put(WEB)
            await node.shows("web1", "web2")
            await node.until((tmp_path / "instances.json").exists)

    async def test_a_node_starts_with_them_when_all_are_away(self, tmp_path: Path) -> None:
        await self.restarted(tmp_path)
        source = MemorySource()
        source.fail()
        node = Node(tmp_path, source)
        node.discovery().fail()
        async with node:
            await node.shows("web1", "web2")
            assert node.seen[-1][1].cached
            node.discovery().put(*some(1, 2, 3))
            node.discovery().heal()
            await node.shows("web1", "web2", "web3")
            assert node.seen[-1][1].cached, "the source is still away"

    async def test_the_first_catalog_is_whole(self, tmp_path: Path) -> None:
        """With what was saved, or with the first answer: a restart must not empty a pool for a moment."""
        await self.restarted(tmp_path)
        for state in (tmp_path, tmp_path / "new"):
            source = MemorySource()
            source.put("services/web", json.dumps(WEB))
            node = Node(state, source, patience=5.0)
            node.discovery().put(*some(1, 2))
            async with node:
                await node.shows("web1", "web2")
            loaded = [catalog for catalog, feed in node.seen if feed.loaded]
            assert all(len(catalog.services[0].backends) == 2 for catalog in loaded)

    async def test_it_does_not_wait_for_ever(self, tmp_path: Path) -> None:
        source = MemorySource()
        source.put("services/web", json.dumps(WEB))
        source.put("services/other", json.dumps({**STATIC, "vip": "192.0.2.11"}))
        node = Node(tmp_path, source)
        node.discovery().fail()
        async with node:
            await node.until(lambda: node.names("other") == ["old"])
            assert node.names() == [] and "no instance is known" in node.problems()[0]

    @pytest.mark.parametrize("damage", ["cut", "flipped", "version", "noise", "shape"])
    async def test_a_damaged_file_costs_the_instances_and_nothing_else(self, tmp_path: Path, damage: str) -> None:
        await self.restarted(tmp_path)
        path = tmp_path / "instances.json"
        text = path.read_text()
        changed = {
            "cut": text[:-50],
            "flipped": text.replace("10.1.0.1", "10.1.0.7"),
            "version": text.replace('"version": 1', '"version": 2'),
            "noise": "\0" * 100,
            "shape": '{"version": 1, "source": "consul anycastlb/", "found": 7, "checksum": 7}',
        }
        path.write_text(changed[damage])
        source = MemorySource()
        source.fail()
        async with Node(tmp_path, source) as node:
            await node.until(lambda: node.seen[-1][1].loaded)
            assert node.names() == [] and any(str(path) in told for told in node.events("catalog", "unusable"))
            node.discovery().put(*some(1, 2))
            await node.shows("web1", "web2")
            await node.until(lambda: path.read_text() == text)

    def test_every_field_comes_back(self, tmp_path: Path) -> None:
        found = {
            ConsulInstances("web", "v2", False, "dc2"): some(1, 2),
            DnsInstances("x.example.org", "SRV", ip_address("2001:db8::53")): (
                Instance("a", ip_address("2001:db8::1"), None, 7, 3, True),
            ),
            DnsInstances("y.example.org"): (),
        }
        saved = SavedInstances(tmp_path, "x")
        assert saved.load() == {}
        saved.save(found)
        assert saved.load() == found
        with pytest.raises(SourceError, match="it was read from 'x', this node follows 'y'"):
            SavedInstances(tmp_path, "y").load()
