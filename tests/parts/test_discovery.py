"""Discovery against a real Consul and a real DNS server, through the follower, as the daemon wires them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.discovery import Kind
from anycastlb.adapters.discovery.dns import DnsDiscovery
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.events import Event
from anycastlb.core.model import Backend, Catalog, Discover, DnsInstances, Feed
from anycastlb.engine.catalog_parser import CatalogParts
from anycastlb.engine.follower import Follower
from anycastlb.engine.parts import make_kinds, make_source
from anycastlb.settings import parse
from tests.lab import lateness
from tests.lab.process import GIVE_UP
from tests.support.consul import ROOT_TOKEN, Agent, Registry
from tests.support.nsd import NameServer

GRACE = 2.0
"""Seconds that a loss of all instances is doubted: the product's own, five, would only be waited for."""
WEB: dict[str, Any] = {"vip": "192.0.2.10", "port": 80, "backends_from": {"consul": {"service": "web"}}}


class Following:
    """A follower at work on real parts, and what it published. ``port``: where name servers listen."""

    def __init__(self, text: str, state_dir: Path, port: int = 53) -> None:
        given = parse(text)
        node = given.node.model_copy(update={"state_dir": str(state_dir)})
        self.settings = given.model_copy(update={"node": node})
        self.seen: list[tuple[Catalog, Feed]] = []
        self.moments: list[float] = []
        """When each of them was published."""
        self.journal = Journal()
        self.source = make_source(self.settings)
        kinds = make_kinds(self.settings)

        def kind(wanted: Discover) -> Kind:
            made = kinds(wanted)
            if isinstance(wanted, DnsInstances):
                return replace(made, make=lambda: DnsDiscovery(wanted, port))
            return replace(made, doubt=replace(made.doubt, grace=GRACE))

        self.follower = Follower(
            CatalogParts(self.source, PARAMS, kind), self.settings, self._publish, self.journal
        )  # fmt: skip

    def _publish(self, catalog: Catalog, feed: Feed) -> None:
        self.seen.append((catalog, feed))
        self.moments.append(time.monotonic())

    @property
    def catalog(self) -> Catalog:
        return self.seen[-1][0] if self.seen else Catalog()

    def backends(self, service: str = "web") -> dict[str, Backend]:
        found = [one for one in self.catalog.services if one.name == service]
        return {backend.name: backend for one in found for backend in one.backends}

    def problems(self) -> list[str]:
        return [str(problem) for problem in self.catalog.problems]

    async def until(self, what: Callable[[], object]) -> None:
        """Wait until it is so."""
        async with asyncio.timeout(GIVE_UP):
            while not what():
                await asyncio.sleep(0.01)

    async def names(self, *names: str, service: str = "web") -> None:
        """Wait until these are the backends."""
        await self.until(lambda: list(self.backends(service)) == list(names))

    def kept(self, since: int) -> float:
        """For how many seconds a catalog of then or later had a problem and all its backends, by when each was
        published."""
        gone = next(place for place in range(since, len(self.seen)) if not self._backends(place))
        doubted = next(place for place in range(since, gone) if self.seen[place][0].problems)
        return self.moments[gone] - self.moments[doubted]

    def _backends(self, place: int) -> int:
        return sum(len(service.backends) for service in self.seen[place][0].services)

    async def soon(self, *names: str) -> None:
        """These are the backends before any doubt could have ended."""
        since = lateness.now()
        await self.names(*names)
        lateness.kept(GRACE / 2, since, f"the backends were {names}")

    def fewest(self, since: int = 0) -> int:
        """The fewest backends that were ever in force since then."""
        return min(self._backends(place) for place in range(since, len(self.seen)) if self.seen[place][1].loaded)

    def events(self, kind: str) -> list[Event]:
        return [record.event for record in self.journal.records() if record.event.kind == kind]


SETTINGS = """
    [node]
    vip_ranges = ["192.0.2.0/24"]
    [catalog]
    confirm = "{confirm}"
    [consul]
    address = "{address}"
    wait = "10s"
"""


@asynccontextmanager
async def following(address: str, state_dir: Path, confirm: str = "never") -> AsyncIterator[Following]:
    found = Following(SETTINGS.format(address=address, confirm=confirm), state_dir)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(found.follower.run())
        try:
            yield found
        finally:
            running.cancel()
    await found.source.close()


@pytest.fixture
def registry(agent: Agent) -> Registry:
    return Registry(agent)


@pytest.fixture
async def node(agent: Agent, tmp_path: Path) -> AsyncIterator[Following]:
    async with following(agent.address, tmp_path / "state") as node:
        yield node


async def three(registry: Registry, node: Following) -> None:
    """The service has three instances, and the node knows them."""
    registry.put(WEB)
    for number in (1, 2, 3):
        registry.register(number)
    await node.names("web1", "web2", "web3")


async def test_instances_come_and_leave_one_by_one(registry: Registry, node: Following) -> None:
    registry.put(WEB)
    registry.register(1)
    await node.names("web1")
    for number in (2, 3, 4):
        registry.register(number)
    await node.names("web1", "web2", "web3", "web4")
    backend = node.backends()["web2"]
    assert (str(backend.address), backend.port, backend.weight) == ("10.1.0.2", 8080, 1)
    for number, left in ((2, ("web1", "web3", "web4")), (1, ("web3", "web4")), (4, ("web3",))):
        registry.deregister(number)
        await node.soon(*left)  # one by one nothing is doubted
    registry.register(1)
    await node.names("web3", "web1")  # by age: it is the newest now
    assert not node.problems()
    assert any("+web1" in event.reason for event in node.events("discovery"))


async def test_all_vanish_at_once(registry: Registry, node: Following) -> None:
    await three(registry, node)
    since = len(node.seen)
    registry.deregister(1, 2, 3)
    await node.until(lambda: any("3 of 3 instances vanished at once: kept for 2 s" in told for told in node.problems()))
    assert list(node.backends()) == ["web1", "web2", "web3"]
    await node.names()
    assert node.kept(since) > GRACE / 2
    assert node.problems() == [
        "services/web: backends_from: no instance: Consul has none of 'web' (or this token may not see it)"
    ]
    assert node.catalog.vips, "the service is still there"
    registry.register(2)
    await node.names("web2")
    assert not node.problems()


async def test_a_loss_that_is_undone_was_never_seen(registry: Registry, node: Following) -> None:
    await three(registry, node)
    since = len(node.seen)
    registry.deregister(1, 2, 3)
    await node.until(node.problems)
    for number in (3, 2, 1):
        registry.register(number)
    await node.until(lambda: list(node.backends()) == ["web3", "web2", "web1"] and not node.problems())
    assert node.fewest(since) == 3


async def test_a_confirmed_loss_is_believed_at_once(registry: Registry, node: Following) -> None:
    await three(registry, node)
    assert not node.follower.confirm()
    registry.deregister(1, 2)
    await node.until(node.problems)
    assert node.follower.confirm()
    await node.soon("web3")
    assert not node.follower.confirm()


async def test_failing_checks(registry: Registry, node: Following) -> None:
    """Who fails leaves at once, all of them too: that is known, not missing."""
    await three(registry, node)
    registry.set(2, "critical")
    await node.soon("web1", "web3")
    registry.set(3, "warning")
    await node.names("web1")
    registry.set(1, "critical")
    await node.soon()
    told = "services/web: backends_from: no instance: none of the 3 of 'web' passes its checks in Consul"
    assert node.problems() == [told]
    for number in (3, 1, 2):
        registry.set(number, "passing")
    await node.names("web1", "web2", "web3")  # their age is that of the registration
    assert not node.problems()
    registry.agent.call("PUT", "/v1/agent/service/maintenance/web2?enable=true")
    await node.names("web1", "web3")


async def test_weights_follow_health_where_health_does_not_choose(registry: Registry, node: Following) -> None:
    registry.put({**WEB, "backends_from": {"consul": {"service": "web", "passing": False}}})
    for number in (1, 2, 3):
        registry.register(number, Weights={"Passing": 10 * number, "Warning": number})
    await node.names("web1", "web2", "web3")
    registry.set(2, "warning")
    registry.set(3, "critical")

    def weights() -> dict[str, int]:
        return {name: backend.weight for name, backend in node.backends().items()}

    await node.until(lambda: weights() == {"web1": 10, "web2": 2, "web3": 3})
    registry.register(1, Weights={"Passing": 40, "Warning": 1})
    await node.until(lambda: weights() == {"web1": 40, "web2": 2, "web3": 3})


async def test_tags_choose(registry: Registry, node: Following) -> None:
    for number, tags in ((1, ["v1"]), (2, ["v2", "x"]), (3, ["V2"]), (4, [])):
        registry.register(number, Tags=tags)
    registry.put({**WEB, "backends_from": {"consul": {"service": "web", "tag": "v2"}}})
    await node.names("web2", "web3")
    for number, tags in ((1, ["v2"]), (2, ["v1"]), (3, ["v1"])):
        registry.register(number, Tags=tags)
    await node.soon("web1")  # who lost the tag is known
    registry.put({**WEB, "backends_from": {"consul": {"service": "web", "tag": "v3"}}})
    await node.until(lambda: any("none of the 4 of 'web' has the tag 'v3'" in told for told in node.problems()))


async def test_instances_under_static_backends(registry: Registry, node: Following) -> None:
    registry.register(1)
    registry.register(2)
    registry.register(3)
    backends = {"static": {"address": "10.9.0.1", "port": 8080}, "web2": {"weight": 7}}
    registry.put({**WEB, "backends": backends})
    registry.agent.put("anycastlb/services/web/backends/web3", '{"drain": true}')
    await node.names("static", "web1", "web2", "web3")
    await node.until(lambda: node.backends()["web3"].drain)
    assert node.backends()["web2"].weight == 7
    registry.deregister(2)
    await node.names("static", "web1", "web3")
    registry.register(4, Address="10.9.0.1")
    await node.until(node.problems)
    assert list(node.backends()) == ["static", "web1", "web3"]
    assert "backends.web4" in node.problems()[0] and "static has the same" in node.problems()[0]


async def test_the_address_of_the_node_and_names_of_one_agent(registry: Registry, node: Following) -> None:
    call = registry.agent.call
    registry.put({**WEB, "backends_from": {"consul": {"service": "api"}}})
    call("PUT", "/v1/agent/service/register", json.dumps({"Name": "api", "Port": 81}))
    await node.names("api.test")
    assert str(node.backends()["api.test"].address) == "127.0.0.1"
    for place in ("a", "b"):  # other agents, with the same default ID
        service = {"Service": "api", "Port": 0}
        entry = {"Node": f"node-{place}", "Address": f"10.2.0.{ord(place)}", "Service": service}
        call("PUT", "/v1/catalog/register", json.dumps(entry))
    await node.names("api.test", "api.node-a", "api.node-b")
    assert (str(node.backends()["api.node-a"].address), node.backends()["api.node-a"].port) == ("10.2.0.97", 80)
    odd = {"ID": "x/y z", "Name": "api", "Address": "not-an-address", "Port": 1}
    call("PUT", "/v1/agent/service/register", json.dumps(odd))
    await node.until(node.problems)
    assert "the instance 'x/y z' is left out: its address is expected to be" in node.problems()[0]
    call("PUT", "/v1/agent/service/register", json.dumps(odd | {"Address": "2001:db8::1"}))
    await node.names("api.test", "api.node-a", "api.node-b", "x-y-z")
    assert not node.problems()
    call("PUT", "/v1/catalog/deregister", json.dumps({"Node": "node-a"}))
    await node.soon("api.test", "api.node-b", "x-y-z")


async def test_from_written_backends_to_discovered_ones_without_a_gap(registry: Registry, node: Following) -> None:
    registry.put({"vip": "192.0.2.10", "port": 80, "backends": {"old": {"address": "10.1.0.1"}}})
    await node.names("old")
    since = len(node.seen)
    registry.put(WEB)  # nothing is registered: is the name misspelt?
    await node.until(lambda: any("no instance: Consul has none of 'web'" in told for told in node.problems()))
    assert list(node.backends()) == ["old"]
    registry.register(1)
    await node.names("web1")
    assert node.fewest(since) == 1 and not node.problems()
    since = len(node.seen)
    registry.put({**WEB, "backends_from": {"consul": {"service": "wbe"}}})
    await node.until(node.problems)
    assert list(node.backends()) == ["web1"]
    await node.names()  # it stays so: it was meant
    assert node.kept(since) > GRACE / 2


async def test_it_stops_asking_for_what_nobody_wants(registry: Registry, node: Following) -> None:
    registry.register(1)
    registry.put(WEB)
    registry.put({**WEB, "vip": "192.0.2.11"}, service="web-too")
    await node.until(lambda: list(node.backends()) == ["web1"] == list(node.backends("web-too")))
    watches = node.follower._watches._watches
    assert len(watches) == 1, "one for both"
    registry.agent.delete("anycastlb/services/web")
    await node.until(lambda: len(node.catalog.services) == 1)
    assert len(watches) == 1
    registry.put({"vip": "192.0.2.11", "port": 80}, service="web-too")
    await node.until(lambda: not node.follower._watches._watches and not node.backends("web-too"))


class TestAway:
    async def test_the_agent_restarts(self, registry: Registry, node: Following) -> None:
        registry.put(WEB)
        for number in (1, 2, 3):
            registry.register(number)
        await node.names("web1", "web2", "web3")
        since = len(node.seen)
        registry.agent.kill()
        await node.until(lambda: any("the last answer (3 instances) is kept" in told for told in node.problems()))
        await asyncio.to_thread(registry.agent.start)
        registry.register(4)
        await node.until(lambda: list(node.backends()) == ["web1", "web2", "web3", "web4"] and not node.problems())
        assert node.fewest(since) == 3

    async def test_a_frozen_agent(self, registry: Registry, node: Following) -> None:
        registry.put(WEB)
        registry.register(1)
        await node.names("web1")
        registry.agent.freeze()
        await asyncio.sleep(1)
        since = len(node.seen)
        registry.agent.thaw()
        registry.register(2)
        await node.names("web1", "web2")
        assert node.fewest(since) >= 1 and not node.problems()

    async def test_a_node_starts_with_what_it_knew(self, registry: Registry, agent: Agent, tmp_path: Path) -> None:
        registry.put(WEB)
        registry.register(1, Weights={"Passing": 5, "Warning": 1})
        registry.register(2)
        async with following(agent.address, tmp_path / "state") as node:
            await node.names("web1", "web2")
            before = node.backends()
            await node.until((tmp_path / "state" / "catalog.json").exists)  # the last that is saved
        agent.kill()
        async with following(agent.address, tmp_path / "state") as node:
            await node.until(lambda: node.seen and node.seen[-1][1].loaded)
            assert node.seen[-1][1].cached and node.backends() == before
            await node.until(lambda: any("the last answer (2 instances) is kept" in told for told in node.problems()))
            await asyncio.to_thread(agent.start)
            registry.register(1)
            registry.register(2)
            registry.register(3)
            await node.names("web1", "web2", "web3")

    async def test_a_restart_has_the_same_catalog_at_once(
        self, registry: Registry, agent: Agent, tmp_path: Path
    ) -> None:
        """Also without a saved one: it waits for the first answer."""
        registry.put(WEB)
        registry.register(1)
        registry.register(2)
        for turn in range(2):
            async with following(agent.address, tmp_path / f"state-{turn}") as node:
                await node.names("web1", "web2")
                assert node.fewest() == 2

    async def test_a_server_that_lost_its_data(self, registry: Registry, agent: Agent, tmp_path: Path) -> None:
        """Its own agents register again within moments; nobody may notice."""
        registry.put(WEB)
        registry.register(1)
        registry.register(2)
        async with following(agent.address, tmp_path / "state") as node:
            await node.names("web1", "web2")
            since = len(node.seen)
            agent.kill()
            await asyncio.to_thread(agent.start, empty=True)
            await node.until(lambda: any("2 of 2 instances vanished at once" in told for told in node.problems()))
            registry.put(WEB)
            registry.register(1)
            registry.register(2)
            await node.until(lambda: not node.problems())
            assert list(node.backends()) == ["web1", "web2"] and node.fewest(since) == 2


async def test_the_datacenter_is_asked_for(registry: Registry, node: Following) -> None:
    registry.register(1)
    registry.put({**WEB, "backends_from": {"consul": {"service": "web", "datacenter": "dc1"}}})
    await node.names("web1")
    registry.put({**WEB, "backends_from": {"consul": {"service": "web", "datacenter": "far"}}})
    await node.until(lambda: any("No path to datacenter" in told for told in node.problems()))
    assert list(node.backends()) == ["web1"], "it stays as it was"


async def test_a_token_that_may_not_see_the_service(require: Callable[[str], str], tmp_path: Path) -> None:
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT_TOKEN}}
    agent = Agent(require("consul"), tmp_path, acl=acl, primary_datacenter="dc1")
    agent.token = ROOT_TOKEN
    agent.start()
    try:
        registry = Registry(agent)
        service = {"ID": "web1", "Service": "web", "Port": 8080}
        entry = {"Node": "far", "Address": "10.1.0.1", "Service": service}
        agent.call("PUT", "/v1/catalog/register", json.dumps(entry))
        registry.put(WEB)
        secrets = []
        for name, rules in (
            ("keys", 'key_prefix "anycastlb/" { policy = "read" }'),
            ("all", 'key_prefix "anycastlb/" { policy = "read" } service "web" { policy = "read" } '
                    'node_prefix "" { policy = "read" }'),
        ):  # fmt: skip
            agent.call("PUT", "/v1/acl/policy", json.dumps({"Name": name, "Rules": rules}))
            made = agent.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": name}]}))
            secrets.append(json.loads(made)["SecretID"])
        token = tmp_path / "token"
        token.write_text(secrets[0])
        text = SETTINGS.format(address=agent.address, confirm="never") + f'    token_file = "{token}"\n'
        node = Following(text, tmp_path / "state")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(node.follower.run())
            await node.until(lambda: any("this token may not see it" in told for told in node.problems()))
            token.write_text(secrets[1])
            registry.put({**WEB, "drain": "1s"})
            agent.call("PUT", "/v1/catalog/register", json.dumps(entry | {"Check": {"Name": "x", "Status": "passing"}}))
            await node.names("web1")
            running.cancel()
        await node.source.close()
    finally:
        agent.kill()


class TestLeaderChange:
    """Three servers; the one that leads is killed."""

    @pytest.fixture
    def servers(self, require: Callable[[str], str], tmp_path: Path) -> Iterator[list[Agent]]:
        made = []
        for number in range(3):
            directory = tmp_path / f"server{number}"
            directory.mkdir()
            made.append(Agent(require("consul"), directory, keep=True, bootstrap_expect=3, node_name=f"server{number}"))
        files = [agent.directory / "consul.json" for agent in made]
        places = [f"127.0.0.1:{json.loads(file.read_text())['ports']['serf_lan']}" for file in files]
        for file in files:
            file.write_text(json.dumps(json.loads(file.read_text()) | {"retry_join": places, "retry_interval": "1s"}))
        yield made
        for agent in made:
            agent.kill()

    async def test_no_pool_is_emptied(self, servers: list[Agent], tmp_path: Path) -> None:
        async with asyncio.TaskGroup() as group:
            for agent in servers:
                group.create_task(asyncio.to_thread(agent.start))
        by_place = {self.place(agent): agent for agent in servers}
        leader = by_place[json.loads(servers[0].call("GET", "/v1/status/leader"))]
        ours = next(agent for agent in servers if agent is not leader)
        registry = Registry(ours)
        for number in range(1, 6):
            registry.register(number)
        registry.put(WEB)
        async with following(ours.address, tmp_path / "state") as node:
            names = [f"web{number}" for number in range(1, 6)]
            await node.names(*names)
            since = len(node.seen)
            leader.kill()
            start = time.monotonic()
            await node.until(lambda: self.led(ours, by_place, leader))
            registry.register(6)
            await node.names(*names, "web6")
            print(f"  leader killed; the next instance was seen after {time.monotonic() - start:.1f} s")
            await node.until(lambda: not node.problems())
            assert node.fewest(since) == 5

    @staticmethod
    def place(agent: Agent) -> str:
        return f"127.0.0.1:{json.loads((agent.directory / 'consul.json').read_text())['ports']['server']}"

    @staticmethod
    def led(ours: Agent, by_place: dict[str, Agent], before: Agent) -> bool:
        """Whether somebody else leads by now and accepts writes."""
        try:
            leader = json.loads(ours.call("GET", "/v1/status/leader"))
            ours.put("ready", "1")
        except (OSError, AssertionError):
            return False
        return bool(leader) and by_place[leader] is not before


# ---------------------------------------------------------------- DNS: NSD


@pytest.fixture
def name_server(require: Callable[[str], str], tmp_path: Path) -> Iterator[NameServer]:
    (tmp_path / "nsd").mkdir()
    server = NameServer(require("nsd"), tmp_path / "nsd")
    server.start()
    yield server
    server.kill()


class TestDns:
    """A directory as the catalog, and a name server for its backends."""

    @pytest.fixture
    async def node(self, name_server: NameServer, tmp_path: Path) -> AsyncIterator[Following]:
        async with self.running(name_server, tmp_path) as node:
            yield node

    @staticmethod
    @asynccontextmanager
    async def running(server: NameServer, tmp_path: Path, confirm: str = "never") -> AsyncIterator[Following]:
        (tmp_path / "catalog" / "services").mkdir(parents=True, exist_ok=True)
        text = f"""
            [node]
            vip_ranges = ["192.0.2.0/24"]
            [catalog]
            source = "file"
            path = "{tmp_path / "catalog"}"
            confirm = "{confirm}"
        """
        node = Following(text, tmp_path / "state", port=server.port)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(node.follower.run())
            yield node
            running.cancel()
        await node.source.close()

    @staticmethod
    def put(tmp_path: Path, kind: str = "A", **fields: Any) -> None:
        wanted = {"name": f"{'_http._tcp.' if kind == 'SRV' else ''}web.example.org", "type": kind}
        document = {"vip": "192.0.2.10", "port": 80, "backends_from": {"dns": wanted | {"resolver": "127.0.0.1"}}}
        path = tmp_path / "catalog" / "services" / "web.json"
        path.with_suffix(".tmp").write_text(json.dumps(document | fields))
        path.with_suffix(".tmp").rename(path)

    async def test_addresses_as_their_time_to_live_allows(
        self, name_server: NameServer, node: Following, tmp_path: Path
    ) -> None:
        name_server.put(["web 2 A 10.1.0.2", "web 2 A 10.1.0.1"])
        self.put(tmp_path)
        await node.names("10.1.0.1", "10.1.0.2")
        backend = node.backends()["10.1.0.1"]
        assert (backend.port, backend.weight) == (80, 100)
        name_server.put(["web 2 A 10.1.0.2", "web 2 A 10.1.0.3"])
        await node.names("10.1.0.2", "10.1.0.3")
        name_server.put(["web 2 A 10.1.0.9"])
        await node.names("10.1.0.9")  # another answer is believed, whole
        name_server.put(["web 60 A 10.1.0.1"])
        await node.names("10.1.0.1")
        name_server.put(["web 60 A 10.1.0.2"])
        await asyncio.sleep(3)
        assert list(node.backends()) == ["10.1.0.1"], "a minute means a minute"

    async def test_of_both_families(self, name_server: NameServer, node: Following, tmp_path: Path) -> None:
        name_server.put(["web 1 CNAME real", "real 1 AAAA 2001:db8::1", "real 1 AAAA 2001:db8::2"])
        self.put(tmp_path, "AAAA")
        await node.names("2001:db8::1", "2001:db8::2")

    async def test_services(self, name_server: NameServer, node: Following, tmp_path: Path) -> None:
        name_server.put(
            [
                "_http._tcp.web 1 SRV 10 60 8081 a",
                "_http._tcp.web 1 SRV 10 0 8082 b",
                "_http._tcp.web 1 SRV 20 5 8083 c",
                "a 1 A 10.1.0.1",
                "a 1 AAAA 2001:db8::1",
                "b 1 A 10.1.0.2",
                "c 1 A 10.1.0.3",
            ]
        )
        self.put(tmp_path, "SRV")
        names = ["10.1.0.1:8081", "10.1.0.2:8082", "10.1.0.3:8083", "[2001:db8::1]:8081"]
        await node.names(*names)
        found = [(backend.port, backend.weight, backend.fallback) for backend in node.backends().values()]
        assert found == [(8081, 60, False), (8082, 1, False), (8083, 5, True), (8081, 60, False)]
        name_server.put(["_http._tcp.web 1 SRV 10 0 8081 a", "_http._tcp.web 1 SRV 10 0 8081 gone", "a 1 A 10.1.0.1"])
        await node.names("10.1.0.1:8081")
        assert node.backends()["10.1.0.1:8081"].weight == 100
        assert node.problems() == ["services/web.json: backends_from: the target gone.example.org. has no address"]
        since = len(node.seen)
        name_server.put(["_http._tcp.web 1 SRV 0 0 0 ."])
        await node.until(lambda: any("the service is not offered" in told for told in node.problems()))
        assert node.fewest(since) == 1, "nothing is doubted, until confirmed"

    async def test_the_name_is_gone(self, name_server: NameServer, tmp_path: Path) -> None:
        """It may be a mishap: the backends stay for as long as ``catalog.confirm`` says."""
        for kind, records, told in (
            ("gone", [], "does not exist (NXDOMAIN)"),
            ("bare", ["web 1 TXT x"], "no A record"),
        ):
            name_server.put(["web 1 A 10.1.0.1", "web 1 A 10.1.0.2"])
            (tmp_path / kind).mkdir()
            async with self.running(name_server, tmp_path / kind, confirm="3s") as node:
                self.put(tmp_path / kind)
                await node.names("10.1.0.1", "10.1.0.2")
                name_server.put(records)
                await node.until(lambda told=told, node=node: any(told in said for said in node.problems()))  # type: ignore[misc]
                assert any("2 of 2 instances vanished at once: kept for 3 s" in said for said in node.problems())
                assert len(node.backends()) == 2
                name_server.put(["web 1 A 10.1.0.1", "web 1 A 10.1.0.2"])
                await node.until(lambda node=node: not node.problems())  # type: ignore[misc]
                since = len(node.seen)
                name_server.put(records)
                await node.names()
                assert node.kept(since) > 2

    async def test_a_gone_name_can_be_confirmed(self, name_server: NameServer, node: Following, tmp_path: Path) -> None:
        name_server.put(["web 1 A 10.1.0.1"])
        self.put(tmp_path)
        await node.names("10.1.0.1")
        name_server.put([])
        await node.until(lambda: any("kept until it is confirmed" in told for told in node.problems()))
        assert node.follower.confirm()
        await node.names()

    async def test_a_server_that_fails_or_hangs(self, name_server: NameServer, node: Following, tmp_path: Path) -> None:
        name_server.put(["web 1 A 10.1.0.1", "web 1 A 10.1.0.2"])
        self.put(tmp_path)
        await node.names("10.1.0.1", "10.1.0.2")
        since = len(node.seen)
        name_server.kill()
        await node.until(lambda: any("the last answer (2 instances) is kept" in told for told in node.problems()))
        name_server.start()
        await node.until(lambda: not node.problems())
        name_server.freeze()
        try:
            await node.until(lambda: any("no answer within 5 s" in told for told in node.problems()))
        finally:
            name_server.thaw()
        await node.until(lambda: not node.problems())
        assert node.fewest(since) == 2
        wanted = {"dns": {"name": "web.example.net", "resolver": "127.0.0.1"}}
        self.put(tmp_path, backends_from=wanted)
        await node.until(lambda: any("web.example.net: REFUSED" in told for told in node.problems()))
        assert list(node.backends()) == ["10.1.0.1", "10.1.0.2"]

    async def test_it_starts_with_what_it_knew(self, name_server: NameServer, tmp_path: Path) -> None:
        name_server.put(["web 1 A 10.1.0.1"])
        async with self.running(name_server, tmp_path) as node:
            self.put(tmp_path)
            await node.names("10.1.0.1")
            await node.until((tmp_path / "state" / "instances.json").exists)
        name_server.kill()
        async with self.running(name_server, tmp_path) as node:
            await node.names("10.1.0.1")
            await node.until(lambda: any("the last answer (1 instance) is kept" in told for told in node.problems()))
            name_server.start()
            await node.until(lambda: not node.problems())
            assert node.fewest() == 1
