"""The rules about HAProxy of a node with ``[http]``: is it installed, running, and can the daemon talk to it? Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anycastlb.doctor.facts import Facts, HaproxyFacts, Unseen
from anycastlb.doctor.finding import Finding

MIN_VERSION = (2, 6)
UNIT = "anycastlb-haproxy"
TUNNELS = {4: ("tunl0", "ipip"), 6: ("ip6tnl0", "ip6_tunnel")}
"""Where packets arrive that came through a tunnel to an address of this family, and the module that brings it."""


def judge(facts: Facts) -> Iterator[Finding]:
    if facts.haproxy is not None:
        yield from installed(facts)
        yield _running(facts.haproxy)
        yield from _sharing(facts)


def installed(facts: Facts) -> Iterator[Finding]:
    """Is it there, and one that this version of anycastlb can drive?"""
    tier = facts.haproxy
    if tier is None:
        return
    if isinstance(tier.version, Unseen):
        yield Finding("notice", "http", "HAProxy's version could not be read", tier.version.why, f"{tier.program} -v")
        return
    if not tier.version:
        what, mend = "HAProxy is not installed: no gateway is served", "apt install haproxy; or set [http] program"
        yield Finding("warning", "http", what, f"no {tier.program}", mend)
        return
    numbers = tuple(int(part) for part in re.findall(r"\d+", tier.version)[:2])
    evidence = f"haproxy {tier.version} ({tier.program})"
    if numbers < MIN_VERSION:
        what, mend = "this HAProxy is too old", "install HAProxy 2.6 or newer, as in Debian 12"
        yield Finding("warning", "http", what, evidence, mend)
    else:
        yield Finding("ok", "http", "HAProxy is installed", evidence)
    if not tier.directory:
        what = "there is no directory for HAProxy's configuration: no gateway is served"
        yield Finding("warning", "http", what, "see [http] directory", "systemd-tmpfiles --create anycastlb.conf")


def _running(tier: HaproxyFacts) -> Finding:
    if not tier.silence:
        pids = ", ".join(str(process.pid) for process in tier.processes) or "unknown"
        return Finding("ok", "http", "HAProxy runs, and answers the daemon", f"processes {pids}")
    if tier.processes:
        what = "HAProxy runs, but cannot be talked to: its gateways are not announced"
        return Finding("error", "http", what, f"its socket: {tier.silence}", f"systemctl restart {UNIT}")
    if not tier.config:
        what = "HAProxy does not run: the daemon has written no configuration yet"
        return Finding("notice", "http", what, "no gateway was in the catalog so far", f"systemctl enable --now {UNIT}")
    what, evidence = "HAProxy does not run: no gateway is announced", f"its socket: {tier.silence}"
    return Finding("error", "http", what, evidence, f"systemctl enable --now {UNIT}")


def _sharing(facts: Facts) -> Iterator[Finding]:
    """Can this node take the connections out of tunnels that other nodes send it, and mark those of clients?"""
    http = facts.settings.http if facts.settings else None
    if http is None or http.address is None or isinstance(facts.links, Unseen):
        return
    links = {link.name: link for link in facts.links}
    missing = [name for name in http.ingress if name not in links]
    if missing:
        what = "an interface by which clients' packets should come in is not there: no connection is shared"
        evidence = f"[http] ingress: no {', '.join(missing)}"
        yield Finding("warning", "http", what, evidence, "ip link; correct [http] ingress")
    name, module = TUNNELS[http.address.version]
    if name not in links or not links[name].up:
        what = "connections that other nodes send here through a tunnel are lost: they see it and send none"
        evidence = f"{name}: {'down' if name in links else 'no such interface'}"
        yield Finding("warning", "http", what, evidence, f"modprobe {module}; ip link set dev {name} up")
    elif not missing:
        yield Finding("ok", "http", "connections of gateways can be shared with other nodes", f"{name}: up")
