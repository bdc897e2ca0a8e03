"""Stories of the HTTP tier, told by the whole daemon in virtual time, with a HAProxy in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from anycastlb.adapters.drivers.haproxy.beside import FALL, INTERVAL
from anycastlb.adapters.drivers.haproxy.errors import Away, Unfinished
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.memory import MemoryHaproxy
from anycastlb.adapters.drivers.haproxy.sockets import LIFE, RELOAD
from anycastlb.core.events import Event
from anycastlb.core.model import HttpServerKey, Tries, TryCounters
from anycastlb.engine.node import Node
from anycastlb.engine.passive import LONGEST
from tests.support.waiting import begun as during
from tests.support.world import SEED, VIP, WEB, World, until

HTTP = ip_address("192.0.2.80")
SILENT = INTERVAL * FALL + LIFE
"""Seconds in which a HAProxy that lives, and does not answer, is noticed."""
DEATHS = 40
CHECK = WEB["check"] | {"type": "tcp"}
GATEWAY = {"vip": str(HTTP), "port": 80, "protocol": "http", "drain": "10s"}


def pool(*last: int, **more: Any) -> dict[str, Any]:
    backends = {f"b{n}": {"address": f"10.2.0.{n}"} for n in last}
    return {"port": 8080, "check": CHECK, "drain": "10s", "backends": backends, **more}


def route(host: str, *pools: str, **more: Any) -> dict[str, Any]:
    rules = [{"backendRefs": [{"name": name} for name in pools]}]
    return {"gateways": ["web"], "hostnames": [host], "rules": rules, **more}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return http_world(tmp_path)


def http_world(tmp_path: Path, **node: Any) -> World:
    """With two pools of two backends behind a gateway, and a service beside it. ``node``: settings of node.toml."""
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    tables = f'[http]\ncertificate_dir = "{certificates}"\n'
    world = World(str(tmp_path / "state"), tables, **node)
    files = Installation(tmp_path / "run", certificates, tmp_path / "s", tmp_path / "m")
    world.haproxy = MemoryHaproxy(files)
    world.put("services/dns", WEB)
    world.put("services/blog", pool(1, 2))
    world.put("services/shop", pool(3, 4))
    world.put("gateways/web", GATEWAY)
    world.put("routes/blog", route("blog.example", "blog"))
    world.put("routes/shop", route("shop.example", "shop"))
    return world


def haproxy(world: World) -> MemoryHaproxy:
    assert world.haproxy is not None
    return world.haproxy


def sites(world: World) -> set[str]:
    """The hostnames that are served, as ``web|shop.example``."""
    worker = haproxy(world).worker
    return set(dict(worker.maps[str(haproxy(world).files.map("site"))])) if worker else set()


def served(world: World) -> set[str]:
    """The servers that get requests, as ``shop/b3``."""
    worker = haproxy(world).worker
    servers = worker.servers if worker else {}
    return {str(key) for key, row in servers.items() if row.state == "ready" and row.weight}


async def begun(world: World) -> None:
    """Wait until everything is served."""
    await until(lambda: haproxy(world).files.config.exists(), within=5)
    haproxy(world).start()
    await until(lambda: {VIP, HTTP} <= world.announced, within=10)
    await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b3", "shop/b4"}, within=5)


async def test_a_gateway_is_announced_when_its_haproxy_serves_it(world: World) -> None:
    async with world.node() as node:
        await until(lambda: VIP in world.announced, within=5)
        await asyncio.sleep(5)
        assert HTTP not in world.announced, "HAProxy does not run"
        reason = node.snapshot.decision.verdicts[HTTP].reason
        assert (reason.code, reason.text) == (
            "refused",
            "HAProxy is not running: systemctl status anycastlb-haproxy",
        )
        await begun(world)
        http = node.snapshot.decision.http
        assert http.gateways["web"].reason.text == "2/2 routes can be served"
        assert http.routes["shop"].reason.text == "shop: 2/2 backends up"
        worker = haproxy(world).worker
        assert worker is not None and HttpServerKey("blog", "b1") in worker.servers
        assert HTTP in world.kernel.rows["addresses"]
        assert not [key for key in world.kernel.rows["services"] if key.address == HTTP], "IPVS has no part in it"


async def test_a_rule_is_added_without_a_reload(world: World) -> None:
    async with world.node() as node:
        await begun(world)
        await asyncio.sleep(5)
        before = haproxy(world).reloads
        world.put("routes/new", route("new.example", "shop"))
        await until(lambda: "new" in node.snapshot.decision.http.routes and not node.snapshot.pending, within=2)
        worker = haproxy(world).worker
        assert worker is not None
        assert "web|new.example" in dict(worker.maps[str(haproxy(world).files.map("site"))])
        assert haproxy(world).reloads == before


async def test_a_dead_backend_a_dead_pool_and_dead_pools(world: World) -> None:
    async with world.node() as node:
        await begun(world)
        world.dead.add("10.2.0.3")
        await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b4"}, within=5)
        world.dead.add("10.2.0.4")
        await until(lambda: served(world) == {"blog/b1", "blog/b2"}, within=5)
        await asyncio.sleep(2)
        assert HTTP in world.announced, "the other route is served"
        assert node.snapshot.decision.http.gateways["web"].reason.text == "1/2 routes can be served"
        world.dead |= {"10.2.0.1", "10.2.0.2"}
        await until(lambda: HTTP not in world.announced, within=5)
        assert VIP in world.announced
        assert node.snapshot.decision.verdicts[HTTP].reason.code == "routes_dead"
        world.dead.clear()
        await until(lambda: HTTP in world.announced, within=10)


async def test_a_gateway_whose_vip_is_decided_together_with_another_goes_by_its_routes(tmp_path: Path) -> None:
    """Such VIPs are known by the first of them; it was once another VIP that was decided anew for the gateway."""
    world = http_world(tmp_path, fwmark_ranges=["1-99"])
    world.put(
        "services/marked", {"vip": ["192.0.2.70", str(HTTP)], "fwmark": 7, "check": {"type": "none"}, "backends": {}}
    )
    pools = {f"10.2.0.{n}" for n in range(1, 5)}
    async with world.node() as node:
        await begun(world)
        await until(lambda: HTTP in world.announced, within=10)
        for turn in range(3):
            world.dead |= pools
            await until(lambda: HTTP not in world.announced, within=5)
            assert node.snapshot.decision.verdicts[HTTP].services[-1].reason.code == "routes_dead", turn
            world.dead -= pools
            await until(lambda: HTTP in world.announced, within=10)


async def test_all_routes_can_be_asked_for(world: World) -> None:
    world.put("gateways/web", {**GATEWAY, "announce": {"when": "all"}})
    async with world.node():
        await begun(world)
        world.dead |= {"10.2.0.3", "10.2.0.4"}
        await until(lambda: HTTP not in world.announced, within=5)


def kill(haproxy: MemoryHaproxy) -> None:
    haproxy.kill()


def stop(haproxy: MemoryHaproxy) -> None:
    haproxy.stopped = True


def hide(haproxy: MemoryHaproxy) -> None:
    haproxy.hidden = True


def exchange(haproxy: MemoryHaproxy) -> None:
    """For the other release, as an upgrade does. It starts some time later."""
    haproxy.version = "2.6.12"
    haproxy.kill()


def restore(haproxy: MemoryHaproxy) -> None:
    haproxy.stopped = haproxy.hidden = False
    if haproxy.worker is None:
        haproxy.start()


@pytest.mark.parametrize(("befall", "within"), [(kill, 0.1), (stop, SILENT), (hide, SILENT), (exchange, 0.1)])
async def test_haproxy_goes_and_only_its_gateways_with_it(
    world: World, befall: Callable[[MemoryHaproxy], None], within: float
) -> None:
    """R20: within its bounds, and when it is back nothing is lost, what was changed meanwhile included."""
    async with world.node() as node:
        await begun(world)
        await asyncio.sleep(5)
        world.forget()
        befall(haproxy(world))
        await until(lambda: HTTP not in world.announced, within=within)
        world.put("routes/new", route("new.example", "shop"))
        await asyncio.sleep(10)
        assert VIP in world.announced and {change.key for change in world.writes} == {HTTP}
        assert "anycastlb-haproxy" in node.snapshot.decision.verdicts[HTTP].reason.text
        restore(haproxy(world))
        await until(lambda: HTTP in world.announced, within=5)
        assert served(world) == {"blog/b1", "blog/b2", "shop/b3", "shop/b4"}
        await until(lambda: "web|new.example" in sites(world), within=2)
        assert {"web|blog.example", "web|shop.example"} < sites(world)
        world.put("services/shop", pool(3))
        await until(lambda: "shop/b4" not in served(world), within=15)


async def test_the_cycle_that_misses_haproxy_withdraws_its_vips(world: World) -> None:
    """R20: it does not first fail to write all that HAProxy had."""
    async with world.node() as node:
        await begun(world)
        await asyncio.sleep(5)
        newest = node.journal.records()[-1].id
        kill(haproxy(world))
        await until(lambda: HTTP not in world.announced, within=0.1)
        await asyncio.sleep(0.1)
        told = [record.event for record in node.journal.records() if record.id > newest]
        kinds = [event.kind for event in told]
        assert kinds[:2] == ["gate", "routes.delete"] and "failure" in kinds, told


class Slow(MemoryHaproxy):
    """Takes its time to answer, to check and to reload. Its death ends every connection."""

    def __init__(self, files: Installation, chance: Random) -> None:
        super().__init__(files)
        self._chance, self._death = chance, asyncio.Event()
        self.busy_with = ""
        """What it was asked for last, as long as it has not answered."""

    def kill(self) -> None:
        self._death.set()
        self._death = asyncio.Event()
        super().kill()

    async def ask(self, commands: Sequence[str]) -> list[str]:
        await self.connect()
        await self._take("look", 0.4)
        return await super().ask(commands)

    async def check(self, config: Path) -> str:
        with suppress(Away):  # it is a process of its own
            await self._take("check", 3.0)
        return await super().check(config)

    async def reload(self) -> str:
        self._listen()
        await self._take("reload", 2.0)
        return await super().reload()

    async def _take(self, what: str, longest: float) -> None:
        self.busy_with = what
        try:
            async with asyncio.timeout(self._chance.uniform(0.0, longest)):
                await self._death.wait()
        except TimeoutError:
            return
        finally:
            self.busy_with = ""
        raise Away("it closed the connection")


async def test_haproxy_dies_again_and_again_whatever_it_is_amid(world: World) -> None:
    """R20: its VIP is withdrawn within 100 ms each time, also while its last death or a change is still handled."""
    loop, chance = asyncio.get_running_loop(), Random(SEED)
    slow = world.haproxy = Slow(haproxy(world).files, Random(SEED))
    amid, hosts = set[str](), {"web|blog.example", "web|shop.example"}

    async def is_served_or_withdrawn() -> None:
        lived = loop.time()
        while True:
            if slow.worker is not None or HTTP not in world.announced:
                lived = loop.time()
            assert loop.time() - lived <= 0.1, f"dead since {lived:.3f}, and announced"
            await asyncio.sleep(0.01)

    async with world.node(), during(is_served_or_withdrawn()):
        await begun(world)
        for number in range(DEATHS):
            await asyncio.sleep(chance.choice((0.0, 5.0)))
            if chance.random() < 0.7:
                world.put(f"services/new-{number}", pool(number))
                world.put(f"routes/new-{number}", route(f"new-{number}.example", f"new-{number}"))
                hosts.add(f"web|new-{number}.example")
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            amid.add(slow.busy_with)
            slow.kill()
            await asyncio.sleep(chance.uniform(0.0, 3.0))
            slow.start()
        await until(lambda: HTTP in world.announced, within=20)
        await until(lambda: hosts <= sites(world), within=20)
    assert {"look", "reload"} <= amid, "it died amid both"


async def test_a_reload_that_is_refused_takes_nothing_with_it(world: World) -> None:
    """R20: not even the gateway whose new configuration it was, nor a rule that needs no reload."""
    async with world.node() as node:
        await begun(world)
        await asyncio.sleep(5)
        world.forget()
        haproxy(world).refuses = lambda text: "unknown keyword" if "backend new" in text else ""
        world.put("services/new", pool(5))
        world.put("routes/new", route("new.example", "new"))
        world.put("routes/more", route("more.example", "shop"))
        await until(lambda: "web|more.example" in sites(world), within=5)
        await asyncio.sleep(40)
        assert {failure.reason.code for failure in node.snapshot.failures} == {"haproxy_refused"}
        assert {VIP, HTTP} <= world.announced and not world.writes
        haproxy(world).refuses = lambda text: ""
        await until(lambda: "web|new.example" in sites(world), within=60)


async def test_a_reload_that_is_slow_withdraws_nothing_and_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wanted is there as soon as the new worker is, and not at the next look at the whole machine."""
    async with world.node() as node:
        await begun(world)
        await asyncio.sleep(5)
        world.forget()

        async def reload() -> str:
            await asyncio.sleep(RELOAD)
            raise Unfinished("HAProxy was asked to reload, and is not done after 15 s")

        monkeypatch.setattr(haproxy(world), "reload", reload)
        world.put("services/new", pool(5))
        world.put("routes/new", route("new.example", "new"))
        for _ in range(60):
            await asyncio.sleep(1)
            assert {VIP, HTTP} <= world.announced and not node.snapshot.failures
        monkeypatch.undo()
        haproxy(world).start()
        await until(lambda: "web|new.example" in sites(world), within=RELOAD + 5)
        assert not world.writes


async def test_a_restart_of_the_daemon_changes_nothing(world: World) -> None:
    async with world.node():
        await begun(world)
        await asyncio.sleep(5)
    world.forget()
    before = haproxy(world).reloads
    async with world.node():
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert served(world) == {"blog/b1", "blog/b2", "shop/b3", "shop/b4"}
            assert HTTP in world.announced
    assert (world.writes, haproxy(world).reloads) == ([], before)


async def test_a_removed_gateway_is_served_for_its_drain(world: World) -> None:
    async with world.node():
        await begun(world)
        world.source.delete("gateways/web")
        await until(lambda: HTTP not in world.announced, within=2)
        await asyncio.sleep(5)
        assert "bind 192.0.2.80:80" in haproxy(world).files.config.read_text()
        assert HTTP in world.kernel.rows["addresses"]
        await until(lambda: HTTP not in world.kernel.rows["addresses"], within=10)
        await until(lambda: "bind 192.0.2.80:80" not in haproxy(world).files.config.read_text(), within=5)


async def test_a_removed_backend_is_drained_first(world: World) -> None:
    async with world.node():
        await begun(world)
        world.put("services/shop", pool(3))
        worker = haproxy(world).worker
        assert worker is not None
        gone = HttpServerKey("shop", "b4")
        await until(lambda: worker.servers[gone].state == "drain", within=2)
        await until(lambda: worker.servers.get(gone) is None or worker.servers[gone].state == "maint", within=15)


async def test_an_edit_that_replaces_all_backends_keeps_the_old_ones_until_the_new_ones_are_checked(
    world: World,
) -> None:
    async with world.node():
        await begun(world)
        await asyncio.sleep(5)
        world.put("services/shop", pool(7, 8))
        world.put("services/blog", pool(5, 6))
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert HTTP in world.announced
            assert {name.split("/")[0] for name in served(world)} == {"blog", "shop"}
        assert served(world) == {"blog/b5", "blog/b6", "shop/b7", "shop/b8"}


async def test_a_stop_leaves_nothing_behind(world: World) -> None:
    async with world.node() as node:
        await begun(world)
        node.stop()
        await until(lambda: not world.announced, within=5)
        assert "bind 192.0.2.80:80" in haproxy(world).files.config.read_text(), "it serves until it is drained"
        await until(lambda: not world.kernel.rows["addresses"], within=60)


async def test_a_drained_node_that_stops_serves_the_connections_that_nobody_counts(world: World) -> None:
    async with world.node() as node:
        await begun(world)
        world.put("drain/lb1", "")
        await until(lambda: not world.announced, within=5)
        await until(lambda: node.snapshot.decision.memory.node_drain.stage == "drained", within=300)  # type: ignore[union-attr]
        node.stop()
        await asyncio.sleep(5)
        assert HTTP in world.kernel.rows["addresses"]
        assert "bind 192.0.2.80:80" in haproxy(world).files.config.read_text()
        await until(lambda: not world.kernel.rows["addresses"], within=60)


class Requests:
    """How requests to the pool ``shop`` have ended, and how often somebody has asked for that."""

    def __init__(self) -> None:
        self.failed, self.good, self.asked, self.away = 0, 0, 0, False

    async def count(self, sections: Sequence[str]) -> Mapping[str, Tries] | None:
        self.asked += 1
        assert list(sections) == ["shop"], "no other pool has max_fails"
        if self.away:
            return None
        at = [(ip_address(f"10.2.0.{number}"), 8080) for number in (3, 4)]
        counters = TryCounters(self.good, redispatched=self.failed), TryCounters(self.good + self.failed)
        return {"shop": {("shop", one): each for one, each in zip(at, counters, strict=True)}}


def passive_events(node: Node) -> list[Event]:
    return [record.event for record in node.journal.records() if record.event.kind == "passive"]


async def test_a_backend_that_fails_requests_is_out_for_a_while(world: World) -> None:
    requests = Requests()
    world.count_tries = requests.count
    async with world.node() as node:
        await begun(world)
        assert not requests.asked, "no pool wants to know"
        world.put("services/shop", pool(3, 4, max_fails=2, fail_timeout="20s"))
        await until(lambda: requests.asked > 2, within=5)
        requests.failed, requests.good = 2, 5
        await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b4"}, within=2)
        (event,) = passive_events(node)
        assert (event.subject, event.before, event.after, event.level) == ("shop/b3", "in", "out", "warning")
        assert event.reason == "out: 2 of 7 requests failed within 20 s; it gets none for 20 s"
        assert HTTP in world.announced
        world.dead.add("10.2.0.4")
        await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b3"}, within=5)
        world.dead.clear()
        await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b4"}, within=5)
        requests.away = True
        await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b3", "shop/b4"}, within=20)
        assert passive_events(node)[-1].after == "in"
        world.put("services/shop", pool(3, 4))
        await asyncio.sleep(5)
        asked = requests.asked
        await asyncio.sleep(5)
        assert requests.asked == asked and not node.snapshot.inputs.passive


async def test_a_haproxy_that_was_slow_to_answer_is_soon_asked_again(world: World) -> None:
    """What it took to answer says little of what it costs: the machine may have been busy."""
    requests, began = Requests(), list[float]()

    async def count(sections: Sequence[str]) -> Mapping[str, Tries] | None:
        began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(3.0 if len(began) == 3 else 0.0)
        return await requests.count(sections)

    world.count_tries = count
    world.put("services/shop", pool(3, 4, max_fails=2, fail_timeout="20s"))
    async with world.node():
        await begun(world)
        await until(lambda: len(began) > 4, within=30)
    pauses = [after - before for before, after in pairwise(began)]
    assert max(pauses[:2]) < 1.5 and pauses[2] < 3.0 + LONGEST + 0.5 and pauses[3] < 1.5, pauses


async def test_a_fault_in_counting_requests_stops_nothing_and_is_over_with_it(world: World) -> None:
    requests = Requests()
    fails = True

    async def count(sections: Sequence[str]) -> Mapping[str, Tries] | None:
        if fails:
            raise ZeroDivisionError
        return await requests.count(sections)

    world.count_tries = count
    world.put("services/shop", pool(3, 4, max_fails=2, fail_timeout="20s"))
    async with world.node():
        await begun(world)
        await asyncio.sleep(5)
        assert HTTP in world.announced
        fails = False
        await until(lambda: requests.asked > 1, within=120)
        requests.failed = 2
        await until(lambda: served(world) == {"blog/b1", "blog/b2", "shop/b4"}, within=2)


async def test_consul_is_away_while_haproxy_is_reloaded_and_the_daemon_restarted(world: World) -> None:
    """Somebody reloads HAProxy, and its new worker begins with what was true just before, though no catalog says so."""
    async with world.node():
        await begun(world)
        await asyncio.sleep(5)
        world.source.fail()
        world.dead.add("10.2.0.3")
        await until(lambda: "shop/b3" not in served(world), within=5)
        world.forget()
        await asyncio.sleep(1)
        haproxy(world).start()
        for _ in range(50):
            assert served(world) == {"blog/b1", "blog/b2", "shop/b4"}, "R15"
            await asyncio.sleep(0.1)
        world.dead.clear()
        await until(lambda: "shop/b3" in served(world), within=10)
    haproxy(world).start()
    async with world.node():
        for _ in range(100):
            assert served(world) == {"blog/b1", "blog/b2", "shop/b3", "shop/b4"}
            await asyncio.sleep(0.1)
        world.source.heal()
        world.put("routes/new", route("new.example", "shop"))
        await until(lambda: "web|new.example" in sites(world), within=30)
    assert not world.writes
    assert sites(world) == {"web|blog.example", "web|shop.example", "web|new.example"}


def _serves(world: World, name: str) -> bool:
    return name in sites(world)


async def test_haproxy_is_reloaded_by_somebody_else_amid_changes(world: World) -> None:
    """What was written to the worker before is written to the new one within a second or so, without a resync."""
    async with world.node():
        await begun(world)
        await asyncio.sleep(5)
        reloads = haproxy(world).reloads
        for number in range(20):
            world.put(f"routes/new-{number}", route(f"new-{number}.example", "shop"))
            await asyncio.sleep(0.03 * number)
            haproxy(world).start()
            await until(partial(_serves, world, f"web|new-{number}.example"), within=2.5)
        assert haproxy(world).reloads == reloads + 20
        await asyncio.sleep(2)
        assert {f"web|new-{number}.example" for number in range(20)} < sites(world)
        assert {VIP, HTTP} <= world.announced
