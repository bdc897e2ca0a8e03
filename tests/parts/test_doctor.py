"""The doctor beside a real Consul with ACLs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anycastlb.cli.settings_file import load
from anycastlb.doctor import Finding, collect, diagnose
from tests.support.consul import ROOT_TOKEN, Agent, under_acl

NODE = """\
[node]
name = "lb1"
vip_ranges = ["192.0.2.0/24"]
state_dir = "{folder}"
[consul]
address = "{address}"
token_file = "{folder}/token"
[bgp]
socket = "{folder}/bgp.sock"
[api]
listen = "127.0.0.1:1"
"""


@pytest.fixture
def agent(require: Callable[[str], str], tmp_path: Path) -> Iterator[Agent]:
    with under_acl(require("consul"), tmp_path) as agent:
        agent.put("anycastlb/services/web", '{"vip": "192.0.2.1", "port": 80}')
        yield agent


def token(agent: Agent, name: str, rules: str) -> str:
    agent.call("PUT", "/v1/acl/policy", json.dumps({"Name": name, "Rules": rules}))
    made = json.loads(agent.call("PUT", "/v1/acl/token", json.dumps({"Policies": [{"Name": name}]})))
    return str(made["SecretID"])


def findings(agent: Agent, folder: Path, token: str) -> list[Finding]:
    (folder / "token").write_text(token)
    config = folder / "node.toml"
    config.write_text(NODE.format(folder=folder, address=agent.address))
    return [f for f in diagnose(collect(str(config), load(str(config)))) if f.area == "catalog"]


def test_rights_of_tokens(agent: Agent, tmp_path: Path) -> None:
    found = findings(agent, tmp_path, ROOT_TOKEN)
    assert {finding.level for finding in found} == {"ok"}, found
    assert any(f.evidence.startswith("1 services") for f in found)
    read = token(agent, "read", 'key_prefix "anycastlb/" { policy = "read" }')
    found = findings(agent, tmp_path, read)
    assert {f.level for f in found} == {"ok", "notice"}, found
    (only,) = (f for f in found if "read the catalog only" in f.what)
    assert only.mend == 'acl policy: key_prefix "anycastlb/" { policy = "write" }'
    write = token(agent, "write", 'key_prefix "anycastlb/" { policy = "write" }')
    assert any("may write the catalog" in f.what for f in findings(agent, tmp_path, write))
    none = token(agent, "none", 'key_prefix "other/" { policy = "read" }')
    found = findings(agent, tmp_path, none)
    (unread,) = (f for f in found if f.level == "error")
    assert "may not read the catalog" in unread.what


def test_looking_writes_nothing(agent: Agent, tmp_path: Path) -> None:
    before = json.loads(agent.call("GET", "/v1/kv/?recurse"))
    findings(agent, tmp_path, ROOT_TOKEN)
    assert json.loads(agent.call("GET", "/v1/kv/?recurse")) == before


def test_another_machine_of_the_same_name(agent: Agent, tmp_path: Path) -> None:
    other = {"Node": "host2", "Address": "127.0.0.9"}
    agent.call("PUT", "/v1/catalog/register", json.dumps(other))
    session = json.loads(agent.call("PUT", "/v1/session/create", json.dumps({"Node": "host2", "Checks": []})))["ID"]
    agent.call("PUT", f"/v1/kv/anycastlb/nodes/lb1?acquire={session}", "{}")
    found = findings(agent, tmp_path, ROOT_TOKEN)
    (twin,) = (f for f in found if f.level == "error")
    assert "another machine calls itself lb1 too" in twin.what
    assert "host2" in twin.evidence


def test_a_consul_that_is_gone(agent: Agent, tmp_path: Path) -> None:
    agent.kill()
    found = findings(agent, tmp_path, ROOT_TOKEN)
    assert [f.what for f in found] == ["Consul cannot be used"]
