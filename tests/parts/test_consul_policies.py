"""configs/consul/*.hcl against a real Consul with ACLs on: each lets pass what it should, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.cluster import Posted
from anycastlb.adapters.cluster.consul import ConsulRegistry
from anycastlb.adapters.discovery.consul import ConsulConnections, ConsulDiscovery
from anycastlb.adapters.sources.consul import ConsulSource
from anycastlb.adapters.sources.consul_store import ConsulStore
from anycastlb.core.model import ConsulInstances, Edit, SourceError
from anycastlb.settings import ConsulSettings
from tests.support.consul import ROOT_TOKEN, Agent, under_acl

POLICIES = Path(__file__).resolve().parents[2] / "configs/consul"
READ_KEYS = ("anycastlb/services/web", "anycastlb/defaults", "anycastlb/drain/lb1", "anycastlb/nodes/lb2")
CATALOG_KEYS = (
    "anycastlb/services/web",
    "anycastlb/services/web/backends/b1",
    "anycastlb/services/new",
    "anycastlb/defaults",
    "anycastlb/drain/lb1",
    "anycastlb/locks/drain",
    "anycastlb/locks/write",
)
SERVICE = json.dumps({"vip": "192.0.2.1", "port": 80})
WRITE = Edit("services/web", SERVICE.replace("192.0.2.1", "192.0.2.77").encode())


@pytest.fixture(scope="module")
def agent(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with under_acl(require("consul"), tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture(autouse=True)
def catalog(agent: Agent) -> None:
    """What every test begins with, written by the administrator."""
    agent.token = ROOT_TOKEN
    agent.delete("", below=True)
    for key in READ_KEYS:
        agent.put(key, SERVICE if "services" in key else "{}")
    agent.put("anycastlb2/services/theirs", "{}")
    agent.put("other/secret", "s3cret")
    register(agent, {"Name": "db", "ID": "db", "Port": 5432})


def token(agent: Agent, *policies: str) -> str:
    """A fresh token with policies of ours, by their file names."""
    known = {policy["Name"] for policy in json.loads(agent.call("GET", "/v1/acl/policies"))}
    for name in policies:
        if name not in known:
            body = {"Name": name, "Rules": (POLICIES / f"{name}.hcl").read_text()}
            agent.call("PUT", "/v1/acl/policy", json.dumps(body))
    wanted = {"Policies": [{"Name": name} for name in policies]}
    return str(json.loads(agent.call("PUT", "/v1/acl/token", json.dumps(wanted)))["SecretID"])


def register(agent: Agent, service: dict[str, Any]) -> bytes:
    return agent.call("PUT", "/v1/agent/service/register", json.dumps(service))


def allowed(act: Callable[[], Any]) -> bool:
    """Whether Consul let it pass. Any fault but a refusal is raised."""
    try:
        act()
    except OSError as exc:
        if re.search(r": 403 ", str(exc)):
            return False
        raise
    return True


def readable(agent: Agent, key: str) -> bool:
    try:
        agent.call("GET", f"/v1/kv/{key}")
    except OSError as exc:
        if re.search(r": 40[34] ", str(exc)):
            return False
        raise
    return True


@pytest.mark.parametrize(
    ("policy", "reads", "writes", "status"),
    [("node", True, False, True), ("operator", True, True, False), ("reader", True, False, False)],
)
def test_keys(agent: Agent, policy: str, reads: bool, writes: bool, status: bool) -> None:
    agent.token = token(agent, policy)
    assert [readable(agent, key) for key in READ_KEYS] == [reads] * len(READ_KEYS)
    assert [allowed(lambda key=key: agent.put(key, "{}")) for key in CATALOG_KEYS] == [writes] * len(CATALOG_KEYS)
    assert [allowed(lambda key=key: agent.delete(key)) for key in CATALOG_KEYS] == [writes] * len(CATALOG_KEYS)
    assert allowed(lambda: agent.put("anycastlb/nodes/lb1", "{}")) is status
    assert allowed(lambda: agent.delete("anycastlb/", below=True)) is False, "not even the operator takes all at once"
    for elsewhere in ("anycastlb2/services/theirs", "other/secret", "anycastlb"):
        assert not readable(agent, elsewhere)
        assert not allowed(lambda key=elsewhere: agent.put(key, "x"))


@pytest.mark.parametrize(
    ("policy", "sessions", "looks", "ours"),
    [("node", True, True, True), ("operator", True, False, False), ("reader", False, False, False)],
)
def test_the_rest(agent: Agent, policy: str, sessions: bool, looks: bool, ours: bool) -> None:
    agent.token = token(agent, policy)
    assert allowed(lambda: agent.call("PUT", "/v1/session/create", '{"TTL": "10s"}')) is sessions
    instances = json.loads(agent.call("GET", "/v1/health/service/db"))
    assert bool(instances) is looks
    assert allowed(lambda: register(agent, {"Name": "anycastlb-web", "ID": "anycastlb-web"})) is ours
    for forbidden in (
        lambda: register(agent, {"Name": "web", "ID": "web"}),
        lambda: register(agent, {"Name": "db", "ID": "db"}),
        lambda: agent.call("PUT", "/v1/agent/service/deregister/db"),
        lambda: agent.call("PUT", "/v1/agent/leave"),
        lambda: agent.call("GET", "/v1/acl/tokens"),
        lambda: agent.call("PUT", "/v1/acl/policy", '{"Name": "mine", "Rules": "acl = \\"write\\""}'),
        lambda: agent.call("GET", "/v1/snapshot"),
        lambda: agent.call("PUT", "/v1/event/fire/x"),
        lambda: agent.call("POST", "/v1/query", '{"Name": "x", "Service": {"Service": "db"}}'),
    ):
        assert not allowed(forbidden)


async def settings(agent: Agent, folder: Path, *policies: str) -> ConsulSettings:
    file = folder / "-".join(policies)
    file.write_text(await asyncio.to_thread(token, agent, *policies))
    return ConsulSettings(address=agent.address, token_file=str(file))


async def test_a_node_lives_on_its_policy(agent: Agent, tmp_path: Path) -> None:
    """The parts of the daemon themselves: source, discovery, status; and the store is refused, in words."""
    ours = await settings(agent, tmp_path, "node")
    source, registry = ConsulSource(ours), ConsulRegistry(ours)
    discovery = ConsulDiscovery(ConsulInstances(service="db"), ConsulConnections(ours))
    store = ConsulStore(ours)
    async with asyncio.timeout(180):
        tree = await source.read(None)
        assert {"services/web", "defaults", "drain/lb1"} <= tree.entries.keys()
        session = await registry.begin("lb1")
        assert await registry.write("lb1", b"{}", session)
        posted = await registry.read(None)
        assert set(posted.entries) == {"lb1", "lb2"} and isinstance(posted.entries["lb1"], Posted)
        await registry.end(session)
        found = await discovery.read(None)
        assert found
        with pytest.raises(SourceError, match=r"may not be written with this token.*consul.token_file"):
            await store.commit([WRITE])
    for part in (source, registry, discovery, store):
        await part.close()


async def test_a_policy_that_shows_less_takes_no_service_away(agent: Agent, tmp_path: Path) -> None:
    """The token is renewed with one that may read a part only: the list is shorter, and is not believed."""
    agent.put("anycastlb/services/dns", SERVICE)
    ours = await settings(agent, tmp_path, "node")
    part = 'key_prefix "anycastlb/services/w" { policy = "read" } key "anycastlb/defaults" { policy = "read" }'
    body = {"Name": "part", "Rules": part}
    agent.token = ROOT_TOKEN
    agent.call("PUT", "/v1/acl/policy", json.dumps(body))
    source = ConsulSource(ours)
    async with asyncio.timeout(180):
        whole = await source.read(None)
        Path(str(ours.token_file)).write_text(await asyncio.to_thread(token, agent, "part"))
        first = ConsulSource(ours)
        for one, before in ((source, whole), (first, None)):  # also of a node that starts for the first time
            with pytest.raises(SourceError, match=r"403 .*consul\.token_file.* reads key_prefix"):
                await one.read(before)
    await source.close()
    await first.close()


async def test_with_the_operators_policy_too_a_nodes_api_can_write(agent: Agent, tmp_path: Path) -> None:
    store = ConsulStore(await settings(agent, tmp_path, "node", "operator"))
    async with asyncio.timeout(180):
        await store.commit([WRITE])
    await store.close()
    agent.token = ROOT_TOKEN
    assert b"192.0.2.77" in agent.call("GET", "/v1/kv/anycastlb/services/web?raw")
    # Together they may write the status too: Consul lets the more specific rule win, and write win over read.
    agent.token = token(agent, "node", "operator")
    assert allowed(lambda: agent.put("anycastlb/nodes/lb1", "{}"))
