"""The rules about Consul, the catalog, and what else the node uses: state directory, API, clock. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anycastlb.doctor.facts import Agent, Facts, Unseen
from anycastlb.doctor.finding import Finding, Level

MAX_LATENCY = 0.2
"""Seconds for one round trip to an agent that should run on this machine."""
MAX_SKEW = 2.0
"""Seconds; the logs and sessions of nodes whose clocks differ more cannot be compared."""
MIN_FREE = 64 * 1024 * 1024
"""Bytes in the state directory."""
MIN_CONSUL = (1, 4)


def judge(facts: Facts) -> Iterator[Finding]:
    if facts.settings is None:
        return
    if facts.agent is not None:
        yield from _agent(facts, facts.agent)
    yield from _catalog(facts)
    yield from _state(facts)
    yield from _api(facts)
    if facts.synchronised is False:
        what = "nobody keeps this machine's clock right: its log cannot be compared with those of other nodes"
        yield Finding("notice", "node", what, "adjtimex: the clock is not synchronised", "timedatectl set-ntp true")


def _agent(facts: Facts, agent: Agent) -> Iterator[Finding]:
    if agent.error:
        yield Finding(
            "error", "catalog", "Consul cannot be used", agent.error, f"curl {agent.address}/v1/status/leader"
        )
        return
    evidence = f"{agent.address}: leader {agent.leader or 'none'}, {agent.latency * 1000:.1f} ms"
    if not agent.leader:
        yield Finding(
            "error", "catalog", "Consul has no leader: nothing can be read or written", evidence, "consul members"
        )
    elif agent.latency > MAX_LATENCY:
        what = "Consul is slow; use the agent on this machine"
        yield Finding("warning", "catalog", what, evidence, '[consul] address = "http://127.0.0.1:8500" in node.toml')
    else:
        yield Finding("ok", "catalog", "Consul answers", evidence)
    yield from _version(agent)
    yield from _rights(facts, agent)
    if abs(agent.skew) > MAX_SKEW:
        what = f"the clocks of Consul's agent and of this machine differ by {abs(agent.skew):.0f} s"
        yield Finding("warning", "catalog", what, f"Date of {agent.address}", "timedatectl set-ntp true  # on both")
    name = facts.settings.node.name if facts.settings else ""
    if agent.holder and agent.name and agent.holder != agent.name:
        what = f"another machine calls itself {name} too: its session holds this node's key"
        evidence = f"nodes/{name} is held from Consul node {agent.holder}, this agent is {agent.name}"
        yield Finding("error", "catalog", what, evidence, "set [node] name in one of the two node.toml")


def _version(agent: Agent) -> Iterator[Finding]:
    if isinstance(agent.version, Unseen):
        what = "Consul's version could not be seen; nothing else depends on it"
        yield Finding("notice", "catalog", what, agent.version.why, 'acl policy: agent_prefix "" { policy = "read" }')
        return
    version = re.match(r"(\d+)\.(\d+)", agent.version)
    if version and (int(version[1]), int(version[2])) < MIN_CONSUL:
        what = "this Consul is older than what is known to work"
        yield Finding("warning", "catalog", what, f"version {agent.version}", "upgrade it to 1.8 or later")
    elif version:
        yield Finding("ok", "catalog", "Consul is new enough", f"version {agent.version}")


def _rights(facts: Facts, agent: Agent) -> Iterator[Finding]:
    prefix = facts.settings.consul.prefix if facts.settings else ""
    if agent.readable is False:
        what = "the token may not read the catalog: it looks empty"
        mend = f'acl policy: key_prefix "{prefix}" {{ policy = "write" }}'
        yield Finding("error", "catalog", what, f"a transaction below {prefix}: permission denied to read", mend)
    elif isinstance(agent.writable, Unseen):
        yield Finding("notice", "catalog", "the right to write could not be tried", agent.writable.why)
    elif agent.writable:
        evidence = f"a transaction below {prefix} was refused for its index, not for its token"
        yield Finding("ok", "catalog", "the token may write the catalog", evidence)
    else:
        what = "the token may read the catalog only: this node's API and commands cannot change it"
        mend = f'acl policy: key_prefix "{prefix}" {{ policy = "write" }}'
        yield Finding("notice", "catalog", what, f"a transaction below {prefix}: permission denied", mend)


def _catalog(facts: Facts) -> Iterator[Finding]:
    needs = facts.needs
    assert facts.settings is not None
    if isinstance(needs, Unseen):
        if facts.agent is None or not (facts.agent.error or facts.agent.readable is False):  # which says why
            yield Finding("error", "catalog", "the catalog cannot be read", needs.why, "anycastlb status")
        return
    evidence = f"{needs.services} services, {needs.backends} backends, {needs.probes} checks"
    for problem in needs.problems[:10]:
        yield Finding("warning", "catalog", "a document of the catalog has a problem", problem, "fix the document")
    if len(needs.problems) > 10:
        what = f"{len(needs.problems)} problems in the catalog, the first ten are shown"
        yield Finding("warning", "catalog", what, evidence, "anycastlb status")
    if not needs.services:
        mend = "anycastlb import FILE"
        yield Finding("notice", "catalog", "the catalog has no services", evidence, mend)
    elif not needs.problems:
        yield Finding("ok", "catalog", "the catalog can be read, and has no problems", evidence)


def _state(facts: Facts) -> Iterator[Finding]:
    folder = facts.state
    mend = f"install -d {folder.path}"
    if not folder.exists:
        yield Finding("notice", "node", "the state directory is not there; the node makes it", folder.path, mend)
        return
    evidence = f"{folder.path}: {folder.free // 2**20} MiB free"
    if isinstance(folder.writable, Unseen):
        what = "whether the node may write its state directory could not be seen"
        yield Finding("notice", "node", what, folder.writable.why, "run it as root")
    elif not folder.writable:
        what = "the state directory cannot be written: a node that starts without its source has no catalog"
        yield Finding("error", "node", what, evidence, f"chmod u+w {folder.path}; findmnt -T {folder.path}")
    elif folder.free < MIN_FREE:
        level: Level = "error" if not folder.free else "warning"
        yield Finding(level, "node", "there is little room for the node's state", evidence, f"df -h {folder.path}")
    else:
        yield Finding("ok", "node", "the state directory can be written", evidence)


def _api(facts: Facts) -> Iterator[Finding]:
    api = facts.api
    if api.status is None:
        if facts.node is not None:
            what = "the node runs, but its API does not answer"
            yield Finding("error", "node", what, f"{api.listen}: {api.text}", "journalctl -u anycastlb -n 50")
        else:
            evidence = f"no process `anycastlb run`; {api.listen}: {api.text}"
            yield Finding("notice", "node", "the node does not run", evidence, "systemctl start anycastlb")
        return
    evidence = f"{api.listen}/readyz: {api.status} {api.text}".strip()
    if api.status == 200:
        yield Finding("ok", "node", "the node runs, and is ready", evidence)
    elif api.status == 503:
        yield Finding("warning", "node", "the node runs, and is not ready", evidence, "anycastlb status")
    else:
        what = "somebody else listens where the node's API should"
        yield Finding("error", "node", what, evidence, f"ss -ltnp 'sport = :{api.listen.rsplit(':', 1)[-1]}'")
