"""Services registered in a real Consul: whose they are, what ACLs they take, what becomes of those of a dead node."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.drivers.names.consul import ConsulServices
from anycastlb.core.model import Change, ConsulKey, DriverError
from anycastlb.settings import ConsulSettings
from tests.lab import process
from tests.support.consul import Agent, under_acl
from tests.support.registration import KEY, ROW, VIP

RULES = 'service_prefix "anycastlb-" { policy = "write" }'
NODE = """
import asyncio, sys
from tests.support.registration import keep_up
asyncio.run(keep_up(sys.argv[1], sys.argv[2]))
"""
"""A node in a process of its own: Consul's address, and the node's name."""


@asynccontextmanager
async def opened(agent: Agent, node: str = "lb1", **settings: Any) -> AsyncIterator[ConsulServices]:
    place = ConsulServices(ConsulSettings(address=agent.address, **settings), node, 10.0)
    try:
        yield place
    finally:
        await place.close()


async def write(place: ConsulServices, *changes: tuple[ConsulKey, Any, Any]) -> list[str]:
    wanted = [Change("consul_services", key, old, new) for key, old, new in changes]
    return [reason async for _, reason in place.write(wanted)]


def checks(agent: Agent) -> dict[str, tuple[str, str]]:
    """Node of ours -> state and output of its check."""
    checks = json.loads(agent.call("GET", "/v1/agent/checks")).values()
    return {check["Name"].removeprefix("announced by "): (check["Status"], check["Output"]) for check in checks}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(240):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.1)


async def test_other_peoples_services_are_not_seen(agent: Agent) -> None:
    for name, meta in (("anycastlb-web", {}), ("other", {"anycastlb-node": "lb2"})):
        agent.call("PUT", "/v1/agent/service/register", json.dumps({"Name": name, "Meta": meta}))
    async with opened(agent) as place:
        assert await place.look(()) == {}
        assert await write(place, (KEY, None, ROW)) == [""]
        assert await place.look(()) == {KEY: ROW}
        assert await write(place, (KEY, ROW, None)) == [""]
    assert set(json.loads(agent.call("GET", "/v1/agent/services"))) == {"anycastlb-web", "other"}


async def test_an_agent_that_forgot_everything_is_told_again(agent: Agent) -> None:
    async with opened(agent) as place:
        await write(place, (KEY, None, ROW))
        agent.kill()
        with pytest.raises(DriverError, match="expected an agent that answers there"):
            await place.look(())
        agent.start(empty=True)
        assert await place.look(()) == {}
        (reason,) = await write(place, (KEY, ROW, replace(ROW, reason="1/2 backends up")))
        assert reason, "an update of what is not there is no success"
        assert await write(place, (KEY, None, ROW)) == [""]
        assert await place.look(()) == {KEY: ROW}


async def test_a_registration_that_is_not_as_we_make_it_is_made_anew(agent: Agent) -> None:
    async with opened(agent) as place:
        await write(place, (KEY, None, ROW))
        agent.call("PUT", "/v1/agent/check/deregister/service:anycastlb-web-192.0.2.10-lb1")
        (bare,) = (await place.look(())).values()
        assert bare != ROW
        assert await write(place, (KEY, bare, ROW)) == [""]
        assert await place.look(()) == {KEY: ROW}


class TestAcl:
    @pytest.fixture
    def agent(self, require: Callable[[str], str], tmp_path: Path) -> Iterator[Agent]:
        with under_acl(require("consul"), tmp_path) as agent:
            yield agent

    async def test_one_rule_is_enough_and_names_beyond_it_are_refused_alone(self, agent: Agent, tmp_path: Path) -> None:
        agent.call("PUT", "/v1/acl/policy", json.dumps({"Name": "lb", "Rules": RULES}))
        made = json.loads(agent.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": "lb"}]})))
        token = tmp_path / "token"
        token.write_text(made["SecretID"] + "\n")
        shop = ConsulKey("shop", VIP, "lb1")
        async with opened(agent, token_file=str(token)) as place:
            assert await place.look(()) == {}
            refused, done = await write(place, (shop, None, replace(ROW, name="shop")), (KEY, None, ROW))
            assert 'expected a token with service "shop" { policy = "write" }' in refused and done == ""
            closed = replace(ROW, passing=False, reason="0/2 backends up, needs 1")
            assert await write(place, (KEY, ROW, closed)) == [""]
            assert await place.look(()) == {KEY: closed}
            assert await write(place, (KEY, closed, None)) == [""]
            assert await place.look(()) == {}
        token.write_text("5f0c1c9e-2f3a-4b5e-9d3c-00000000dead")
        async with opened(agent, token_file=str(token)) as place:
            with pytest.raises(DriverError, match=r"403|may not read"):
                await place.look(())
                await write(place, (KEY, None, ROW))


class Deserted:
    """A Consul in which lb1 has died for good, and lb2 is a process that can be killed and started."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node: str) -> None:
        argv = [sys.executable, "-c", NODE, self.agent.address, node]
        self._processes[node] = subprocess.Popen(argv, cwd=Path(__file__).parents[2])
        process.until(lambda: self.state(node) == "passing", f"{node} is passing")

    def kill(self, node: str) -> None:
        self._processes[node].kill()
        self._processes[node].wait()
        process.until(lambda: self.state(node) == "critical", f"{node} is critical")

    def state(self, node: str) -> str:
        return checks(self.agent).get(node, ("", ""))[0]

    def end(self) -> None:
        for one in self._processes.values():
            one.kill()
            one.wait()
        self.agent.kill()


@pytest.fixture(scope="session")
def deserted(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deserted]:
    """It lasts: Consul takes at least a minute to deregister, while which the other tests go on."""
    found = Deserted(Agent(require("consul"), tmp_path_factory.mktemp("deserted")))
    try:
        found.agent.start()
        found.start("lb1")
        found.start("lb2")
        found.kill("lb1")
        yield found
    finally:
        found.end()


async def test_a_dead_node_is_critical_and_one_that_returns_goes_on(deserted: Deserted) -> None:
    assert deserted.state("lb2") == "passing", "a living node renews its check"
    deserted.kill("lb2")
    async with opened(deserted.agent, "lb2") as place:
        (row,) = (await place.look(())).values()
        assert row.reason.startswith("TTL expired") and not row.passing
    deserted.start("lb2")
    assert checks(deserted.agent)["lb2"] == ("passing", ROW.reason)


@pytest.mark.last
def test_a_dead_node_is_deregistered_by_consul_and_a_living_one_is_not(deserted: Deserted) -> None:
    """A minute after it became critical, which is the least that Consul takes."""
    process.until(lambda: not deserted.state("lb1"), "Consul has deregistered lb1", within=240)
    assert checks(deserted.agent) == {"lb2": ("passing", ROW.reason)}
