"""The doctor's judgement, on facts that are made up: what is fine, and what each thing amiss is called."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from anycastlb import settings
from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.drivers.interfaces import Interface, KernelRoute
from anycastlb.adapters.drivers.sysctls import PROBING, TAKEOVER
from anycastlb.cli.commands.doctor import report
from anycastlb.cli.render.style import plain
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.model import Catalog, Entry, SyncDaemon, Tree
from anycastlb.doctor import Facts, Finding, diagnose
from anycastlb.doctor.collect import exabgp, host, processes
from anycastlb.doctor.collect.startup import at_start, with_catalog
from anycastlb.doctor.diagnosis import WITH_CATALOG, preflight
from anycastlb.doctor.facts import (
    Agent,
    Api,
    ExabgpFacts,
    Folder,
    HaproxyFacts,
    Kernel,
    Needs,
    Process,
    Socket,
    Trial,
    Unseen,
)
from anycastlb.doctor.finding import worst

NODE = '[node]\nname = "lb1"\nvip_ranges = ["192.0.2.0/24", "2001:db8:2::/64"]\n'
FOUR, SIX = ip_address("10.1.0.1"), ip_address("fd00::1")
EVERYTHING = (1 << 41) - 1
CONF = """process anycastlb {
    run /usr/bin/env anycastlb-bridge --config /etc/anycastlb/node.toml;
    encoder json;
}
template {
    neighbor tor {
        api {
            processes [ anycastlb ];
            neighbor-changes;
        }
    }
}
neighbor 198.51.100.1 {
    inherit tor;
}
"""
DAEMON = Process(7, ("anycastlb", "run"), 1, capabilities=EVERYTHING, files=65536, namespace="net:[1]")
EXABGP = Process(8, ("exabgp", "server"), 1, uid=901, gid=901, namespace="net:[1]")
BRIDGE = Process(9, ("anycastlb-bridge",), 8, uid=901, gid=901)
SYSCTLS = {
    **TAKEOVER, **PROBING, "net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/all/disable_ipv6": "0", "net/ipv6/conf/lo/disable_ipv6": "0", "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/eth0/rp_filter": "2", "net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2",
    "net/ipv4/vs/conntrack": "0", "net/ipv4/vs/pmtu_disc": "1",
    "net/ipv4/vs/sync_threshold": "2 50", "net/ipv4/vs/sync_refresh_period": "0",
    "net/netfilter/nf_conntrack_count": "10", "net/netfilter/nf_conntrack_max": "1000",
}  # fmt: skip
WELL = Facts(
    config="/etc/anycastlb/node.toml",
    settings=settings.parse(NODE),
    me=Process(1000, ("anycastlb", "doctor"), 1, capabilities=EVERYTHING, files=1024, namespace="net:[1]"),
    node=DAEMON,
    kernel=Kernel(
        "6.12.1", info="IP Virtual Server version 1.2.1 (size=4096)", loadable={"ip_vs": True, "ip_vs_mh": True},
        config={"tcp_timeout": 300, "tcpfin_timeout": 60, "udp_timeout": 300}, table_bits=20, sysctls=SYSCTLS,
    ),
    links=(Interface("lo", 65536, True, ("127.0.0.1/8",)), Interface("eth0", 1600, True, ("10.1.0.9/24",))),
    routes={FOUR: KernelRoute("eth0", 1600), SIX: KernelRoute("eth0", 1600)},
    needs=Needs(2, 4, 4, (), ("mh",), {(FOUR, "tunnel"): "web/b1", (SIX, "gue"): "web/b2", (FOUR, "nat"): "ftp/b1"},
                (ip_address("192.0.2.1"), ip_address("2001:db8:2::1"))),
    speaker=ExabgpFacts(
        "5.0.15", "beside anycastlb", (EXABGP,), (BRIDGE,), "/etc/exabgp/exabgp.conf", CONF,
        Socket("/run/anycastlb/bgp.sock", "socket", 0o660, 0, 901, "exabgp", True, 1),
        Trial("as user 901: anycastlb-bridge --check", 0, "the settings can be used"),
    ),
    agent=Agent("http://127.0.0.1:8500", leader="10.0.0.1:8300", latency=0.001, version="1.8.7", name="host1",
                writable=True, holder="host1"),
    api=Api("127.0.0.1:4672", 200, ""),
    state=Folder("/var/lib/anycastlb", True, True, 2**34),
    synchronised=True,
)  # fmt: skip


def amiss(facts: Facts) -> list[Finding]:
    return [finding for finding in diagnose(facts) if finding.level != "ok"]


def with_capability(text: str) -> str:
    """An exabgp.conf with this in the neighbor's template."""
    return CONF.replace("api {", f"capability {{ {text} }} api {{")


def sysctl(**values: str | None) -> dict[str, Any]:
    """A kernel with other values: dots as double underscores."""
    changed = {name.replace("__", "/"): value for name, value in values.items()}
    kept = {name: value for name, value in {**SYSCTLS, **changed}.items() if value is not None}
    return {"kernel": replace(WELL.kernel, sysctls=kept)}


def speaks(**changes: Any) -> dict[str, Any]:
    return {"speaker": replace(WELL.speaker, **changes)}


def bridged(**changes: Any) -> dict[str, Any]:
    return speaks(socket=replace(WELL.speaker.socket, **changes))


def consul(**changes: Any) -> dict[str, Any]:
    assert WELL.agent
    return {"agent": replace(WELL.agent, **changes)}


def kernel_config(**changes: Any) -> dict[str, Any]:
    """A kernel whose IPVS has other settings; None: not there."""
    assert not isinstance(WELL.kernel.config, Unseen)
    rows = {name: row for name, row in {**WELL.kernel.config, **changes}.items() if row is not None}
    return {"kernel": replace(WELL.kernel, config=rows)}


def needs(**changes: Any) -> dict[str, Any]:
    assert isinstance(WELL.needs, Needs)
    return {"needs": replace(WELL.needs, **changes)}


def test_nothing_is_amiss_on_a_good_node() -> None:
    assert amiss(WELL) == []
    assert {finding.area for finding in diagnose(WELL)} == {"settings", "kernel", "network", "bgp", "catalog", "node"}
    assert all(finding.evidence for finding in diagnose(WELL))


UNMANAGED = settings.parse(NODE + "[ipvs]\nmanage_sysctls = false\n")
DAEMON_ROW = SyncDaemon("eth0", 7, ip_address("224.0.0.81"), 8848)
SYNC: dict[str, Any] = {"sync_master": DAEMON_ROW, "sync_backup": DAEMON_ROW, "tcp_timeout": 900, "udp_timeout": 20}
SYNCED = settings.parse(NODE + '[ipvs]\nsync_interface = "eth0"\nsync_id = 7\nudp_timeout = "20s"\n')
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("an old kernel", {"kernel": replace(WELL.kernel, release="5.10.0-8")}, "error", "IFA_PROTO"),
    ("no ip_vs", {"kernel": replace(WELL.kernel, family="no such file", loadable={"ip_vs_mh": True})}, "error",
     "no IPVS"),
    ("ip_vs unloaded", {"kernel": replace(WELL.kernel, family="no such file")}, "error", "not loaded"),
    ("a secret for everybody", {"exposed_secrets": ("/etc/write",)}, "warning", "can read /etc/write"),
    ("no scheduler", needs(schedulers=("mh", "wlc")), "error", 'no IPVS scheduler "wlc"'),
    ("no capability", {"node": replace(DAEMON, capabilities=0)}, "error", "lacks CAP_NET_ADMIN"),
    ("a user namespace", {"kernel": replace(WELL.kernel, owns_machine=False)}, "error", "user namespace"),
    ("sloppy_tcp", sysctl(net__ipv4__vs__sloppy_tcp="0"), "warning", "sloppy_tcp is 0"),
    ("unmanaged", {"node": None, "settings": UNMANAGED, "api": Api("x", 200),
                   **sysctl(net__ipv4__vs__sloppy_tcp="0")}, "warning", "sloppy_tcp is 0"),
    ("read-only sysctls", {"node": None, "api": Api("x", 200), "me": replace(WELL.me, uid=0),
                           "kernel": replace(sysctl(net__ipv4__vs__sloppy_tcp="0")["kernel"],
                                             read_only=frozenset({"net/ipv4/vs/sloppy_tcp"}))},
     "warning", "may not write it"),
    ("accept_local", needs(through=True) | sysctl(net__ipv4__conf__all__accept_local="0"), "warning", "accept_local"),
    ("long time-outs", kernel_config(tcp_timeout=900), "warning", "tcp_timeout 300 s"),
    ("long time-outs nobody manages", {"settings": UNMANAGED, **kernel_config(tcp_timeout=900)}, "notice",
     "tcp_timeout 300 s"),
    ("a time-out that is set", {"settings": SYNCED, **kernel_config(**{**SYNC, "udp_timeout": 77})}, "warning",
     "udp_timeout 20 s"),
    ("no sync", {"settings": SYNCED, **kernel_config(**{**SYNC, "sync_master": None})}, "warning",
     "(master) does not run"),
    ("other sync", {"settings": SYNCED, **kernel_config(**{**SYNC, "sync_backup": replace(DAEMON_ROW, sync_id=9)})},
     "warning", "(backup) does not run as the settings say"),
    ("unasked sync", kernel_config(sync_master=DAEMON_ROW), "notice", "(master) runs, which node.toml does not ask"),
    ("sync nowhere", {"settings": SYNCED, **kernel_config(**SYNC), "links": (WELL.links[0],)},  # type: ignore[index]
     "error", "no interface eth0"),
    ("sync down", {"settings": SYNCED, **kernel_config(**SYNC),
                   "links": (WELL.links[0], replace(WELL.links[1], up=False))}, "warning", "is down"),  # type: ignore[index]
    ("sync told seldom", {"settings": SYNCED, "kernel": replace(
        kernel_config(**SYNC)["kernel"], sysctls={**SYSCTLS, "net/ipv4/vs/sync_threshold": "3 50"})}, "warning",
     "sync_threshold is 3 50"),
    ("unseen time-outs", {"kernel": replace(WELL.kernel, config=Unseen("EPERM"))}, "notice", "could not be seen"),
    ("a small table", {"kernel": replace(WELL.kernel, table_bits=12)}, "warning", "4096 buckets"),
    ("a table that is small still", {"kernel": replace(WELL.kernel, table_bits=15)}, "warning", "32768 buckets"),
    ("nothing is counted", sysctl(net__ipv4__vs__run_estimation="0"), "warning", "run_estimation is 0"),
    ("a setting the kernel lacks", sysctl(net__ipv4__vs__sloppy_tcp=None), "warning", "has no net.ipv4.vs.sloppy_tcp"),
    ("a kernel of no number", {"kernel": replace(WELL.kernel, release="custom")}, "notice", "nobody can tell"),
    ("conntrack", sysctl(net__ipv4__vs__conntrack="1"), "notice", "conntrack entry"),
    ("conntrack full", sysctl(net__netfilter__nf_conntrack_count="950"), "warning", "nearly full"),
    ("files", needs(probes=70000), "warning", "open files"),
    ("keepalived", {"rivals": (Process(5, ("/usr/sbin/keepalived", "-D")),)}, "warning", "keepalived runs too"),
    ("another namespace", {"node": replace(DAEMON, namespace="net:[2]")}, "warning", "another network namespace"),
    ("an unseen namespace", {"node": replace(DAEMON, namespace="")}, "notice", "namespace could not be seen"),
    ("no links", {"links": Unseen("EPERM")}, "notice", "interfaces and routes could not be seen"),
    ("lo down", {"links": (Interface("lo", 65536, False), Interface("eth0", 1600, True))}, "error", "loopback"),
    ("no IPv6", sysctl(net__ipv6__conf__lo__disable_ipv6="1"), "error", "IPv6 is off"),
    ("rp_filter", sysctl(net__ipv4__conf__eth0__rp_filter="1"), "warning", "strict on eth0"),
    ("rp_filter all", sysctl(net__ipv4__conf__all__rp_filter="1", net__ipv4__conf__eth0__rp_filter="0"), "warning",
     "strict on eth0"),
    ("arp_ignore", sysctl(net__ipv4__conf__all__arp_ignore="0") | needs(vips=(ip_address("10.1.0.200"),)), "warning",
     "answers ARP"),
    ("arp_announce", sysctl(net__ipv4__conf__all__arp_announce="0") | needs(forwards={(FOUR, "dr"): "a/b"}), "notice",
     "ARP requests"),
    ("more ways than are looked at", needs(forwards={(FOUR + n, "dr"): f"web/b{n}" for n in range(2_001)}),
     "notice", "only the ways to 2000 of 2001 backends"),
    ("no forwarding", sysctl(net__ipv4__ip_forward="0"), "error", "net.ipv4.ip_forward is 0, so replies of nat"),
    ("no way", {"routes": {FOUR: KernelRoute(error="network is unreachable")}}, "error", "no way to backend web/b1"),
    ("mtu 1500", {"routes": {FOUR: KernelRoute("eth0", 1500)}, "links": (WELL.links[0], Interface("eth0", 1500, True))},  # type: ignore[index]
     "notice", "full packets do not fit through tunnel on eth0: clients are told"),
    ("mtu 1400", {"routes": {FOUR: KernelRoute("eth1", 1400)}}, "warning", "by more than what the tunnel adds"),
    ("mtu 1300", {"routes": {SIX: KernelRoute("eth0", 1300)}}, "error", "1280 bytes, which IPv6 needs"),
    ("no pmtu", sysctl(net__ipv4__vs__pmtu_disc="0") | {"routes": {FOUR: KernelRoute("eth0", 1500)}}, "warning",
     "cut in pieces"),
    ("no exabgp", speaks(installed=""), "notice", "not installed"),
    ("exabgp 4", speaks(installed="4.2.25"), "error", "too old"),
    ("exabgp 6", speaks(installed="6.0.0"), "warning", "newer"),
    ("exabgp dead", speaks(processes=(), trial=WELL.speaker.trial), "warning", "does not run"),
    ("no bridge", speaks(bridges=()), "error", "but no bridge"),
    ("two bridges", speaks(bridges=(BRIDGE, replace(BRIDGE, pid=10))), "warning", "more than one bridge"),
    ("another config", speaks(text="neighbor 1.2.3.4 {\n}\n# run anycastlb-bridge"), "error",
     "runs no anycastlb-bridge"),
    ("text for the bridge", speaks(text=CONF.replace("encoder json", "encoder text")), "error",
     "to the bridge as text"),
    ("no encoder", speaks(text=CONF.replace("encoder json;", "")), "error", "to the bridge as text"),
    ("no reports", speaks(text=CONF.replace("neighbor-changes;", "")), "warning",
     "does not report the session with 198.51.100.1"),
    ("a neighbor without us", speaks(text=CONF + "neighbor 198.51.100.9 {\n  local-as 1;\n}\n"), "error",
     "neighbor 198.51.100.9 does not use the bridge"),
    ("networkd on lo", {"loopback_manager": "systemd-networkd"}, "warning", "may take the VIPs away"),
    ("NetworkManager on lo", {"loopback_manager": "NetworkManager"}, "warning", "may take the VIPs away"),
    ("graceful restart", speaks(text=with_capability("graceful-restart 120;")), "warning", "graceful restart is on"),
    ("its default", speaks(text=with_capability("graceful-restart;")), "warning", "graceful restart is on"),
    ("respawn", speaks(text=CONF.replace("encoder", "respawn disable; encoder")), "warning", "respawn is off"),
    ("no hold time", speaks(text=CONF.replace("api {", "hold-time 0; api {")), "warning", "has no hold time"),
    ("no neighbor", speaks(text=CONF.partition("neighbor 198")[0]), "warning", "has no neighbor"),
    ("config unseen", speaks(text=Unseen("EACCES")), "notice", "could not be read"),
    ("no socket", bridged(kind="missing"), "error", "is not there"),
    ("no socket", bridged(kind="other"), "error", "is no socket"),
    ("an unseen socket", bridged(kind="unreachable"), "notice", "could not be seen"),
    ("a dead socket", bridged(listening=False, connections=0), "warning", "dead daemon"),
    ("nobody connected", bridged(connections=0), "error", "no bridge is connected"),
    ("a closed socket", bridged(gid=0, group="root"), "error", "may not use the daemon's socket"),
    ("a failed trial", speaks(trial=Trial("x", 1, "permission denied")), "error", "cannot run the bridge"),
    ("no trial", speaks(trial=Unseen("only root")), "notice", "was not tried"),
    ("no consul", consul(error="connection refused"), "error", "Consul cannot be used"),
    ("no leader", consul(leader=""), "error", "no leader"),
    ("slow", consul(latency=0.5), "warning", "slow"),
    ("version unseen", consul(version=Unseen("403")), "notice", "version could not be seen"),
    ("old consul", consul(version="1.2.3"), "warning", "older"),
    ("read only", consul(writable=False), "notice", "read the catalog only"),
    ("no rights", consul(readable=False, writable=False), "error", "may not read the catalog"),
    ("write unseen", consul(writable=Unseen("503")), "notice", "could not be tried"),
    ("skew", consul(skew=-30.0), "warning", "differ by 30 s"),
    ("a twin", consul(holder="host2"), "error", "calls itself lb1 too"),
    ("a bad document", needs(problems=("services/web: port: missing",)), "warning", "has a problem"),
    ("an unread catalog", {"needs": Unseen("403")}, "error", "catalog cannot be read"),
    ("an empty catalog", {"needs": Needs()}, "notice", "has no services"),
    ("no state", {"state": Folder("/x")}, "notice", "is not there"),
    ("read-only state", {"state": Folder("/x", True, False, 2**34)}, "error", "cannot be written"),
    ("state unseen", {"state": Folder("/x", True, Unseen("user 9"), 2**34)}, "notice", "could not be seen"),
    ("full", {"state": Folder("/x", True, True, 2**20)}, "warning", "little room"),
    ("api silent", {"api": Api("x:1", None, "refused")}, "error", "does not answer"),
    ("not running", {"api": Api("x:1", None, "refused"), "node": None}, "notice", "does not run"),
    ("not ready", {"api": Api("x:1", 503, "no catalog yet")}, "warning", "not ready"),
    ("a stranger", {"api": Api("x:1", 404, "nginx")}, "error", "somebody else listens"),
    ("clock", {"synchronised": False}, "notice", "clock right"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "level", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_thing_amiss_is_one_finding(changes: dict[str, Any], level: str, text: str) -> None:
    findings = amiss(replace(WELL, **changes))
    assert [(finding.level, text in finding.what) for finding in findings] == [(level, True)], findings
    assert findings[0].evidence
    if level != "notice":
        assert findings[0].mend


def test_connection_sync_as_asked_for_is_fine() -> None:
    assert amiss(replace(WELL, settings=SYNCED, **kernel_config(**SYNC))) == []
    assert amiss(replace(WELL, settings=SYNCED, node=None)) == []


def test_time_outs_of_a_catalog_that_needs_its_entries_stay_as_they_are() -> None:
    assert amiss(replace(WELL, **kernel_config(tcp_timeout=900), **needs(caches=False))) == []


def test_managed_sysctls_of_a_node_that_does_not_run_are_fine() -> None:
    facts = replace(WELL, node=None, **sysctl(net__ipv4__vs__sloppy_tcp="0"))
    assert amiss(facts) == []


HAPROXY = HaproxyFacts("/usr/sbin/haproxy", "2.6.12-1+deb12u4", (Process(7, ("haproxy",)),))


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        ({}, "ok", "HAProxy runs"),
        ({"version": ""}, "warning", "not installed"),
        ({"version": "2.2.9-2"}, "warning", "too old"),
        ({"version": Unseen("denied")}, "notice", "could not be read"),
        ({"directory": False}, "warning", "no directory"),
        ({"silence": "connection refused"}, "error", "cannot be talked to"),
        ({"silence": "no such file or directory", "processes": ()}, "error", "does not run"),
        ({"silence": "no such file or directory", "processes": (), "config": False}, "notice", "no configuration yet"),
    ],
)
def test_haproxy_is_looked_at_where_it_is_asked_for(changes: dict[str, Any], level: str, text: str) -> None:
    assert not [finding for finding in diagnose(WELL) if finding.area == "http"]
    findings = [f for f in diagnose(replace(WELL, haproxy=replace(HAPROXY, **changes))) if f.area == "http"]
    assert any(finding.level == level and text in finding.what for finding in findings), findings
    assert all(finding.mend for finding in findings if finding.level != "ok")


SHARING = settings.parse(f'{NODE}\n[http]\naddress = "10.0.0.1"\ningress = ["eth0"]\n')


@pytest.mark.parametrize(
    ("links", "level", "text"),
    [
        ({"eth0": True, "tunl0": True}, "ok", "can be shared"),
        ({"tunl0": True}, "warning", "no connection is shared"),
        ({"eth0": True}, "warning", "through a tunnel are lost"),
        ({"eth0": True, "tunl0": False}, "warning", "through a tunnel are lost"),
    ],
)
def test_a_node_that_shares_connections_needs_its_interfaces(links: dict[str, bool], level: str, text: str) -> None:
    known = tuple(Interface(name, 1500, up) for name, up in {"lo": True, **links}.items())
    findings = diagnose(replace(WELL, settings=SHARING, haproxy=HAPROXY, links=known))
    assert [finding.level for finding in findings if finding.area == "http" and text in finding.what] == [level]


def test_preflight_reports_errors_first_and_nothing_that_is_fine() -> None:
    facts = replace(WELL, node=None, starting=True)
    assert preflight(facts) == preflight(facts, WITH_CATALOG) == ()
    bad = replace(
        facts,
        me=replace(WELL.me, capabilities=0),
        kernel=replace(WELL.kernel, family="no such file"),
        exposed_secrets=("/etc/write",),
    )
    assert [(finding.level, finding.what[:22]) for finding in preflight(bad)] == [
        ("error", "this process lacks CAP"),
        ("warning", "the module ip_vs is no"),
        ("warning", "every user of this mac"),
    ]


def test_answers_to_probes_through_ipvs_are_dropped_unless_some_interface_accepts_them() -> None:
    def found(managed: bool, **accept_local: str) -> list[str]:
        sysctls = {f"net/ipv4/conf/{name}/accept_local": value for name, value in accept_local.items()}
        facts = Facts(
            "node.toml",
            settings=WELL.settings if managed else UNMANAGED,
            starting=True,
            kernel=Kernel("", sysctls=sysctls),
            needs=Needs(through=True),
        )
        return [finding.mend.partition("  #")[0] for finding in preflight(facts, WITH_CATALOG)]

    assert found(False, all="0", eth0="0") == ["sysctl -w net.ipv4.conf.all.accept_local=1"]
    assert found(True, all="0", eth0="0") == [], "the daemon sets it"
    assert found(False, all="0", eth0="1") == []


async def test_the_facts_of_a_start_are_read_inside_an_event_loop() -> None:
    facts = at_start(UNMANAGED)
    assert (facts.starting, facts.me.pid, facts.kernel.release) == (True, os.getpid(), os.uname().release)


def test_a_catalog_that_probes_through_ipvs_is_recognised() -> None:
    def needs(**changes: Any) -> Any:
        document = {"vip": "192.0.2.1", "port": 80, "backends": {"b1": {"address": "10.1.0.1"}}, **changes}
        tree = Tree({"services/web": Entry(json.dumps(document).encode())})
        facts = with_catalog(UNMANAGED, parse_catalog(tree, Catalog(), UNMANAGED.node.vip_ranges, (), PARAMS))
        return facts.needs

    assert not needs().through and needs(check={"type": "tcp", "via": "forward"}).through
    assert needs(forward="nat").forwards == {(FOUR, "nat"): "web/b1"}


def test_the_sum_says_how_much_a_tunnel_adds() -> None:
    tight = {FOUR: KernelRoute("eth0", 1500), SIX: KernelRoute("eth0", 1500)}
    needs = Needs(1, 6, 6, (), ("mh",), {(FOUR, "tunnel"): "a", (FOUR, "gre"): "b", (FOUR, "gue"): "c",
                                         (SIX, "tunnel"): "d", (SIX, "gre"): "e", (SIX, "gue"): "f"},
                  (ip_address("192.0.2.1"),))  # fmt: skip
    findings = [f for f in amiss(replace(WELL, routes=tight, needs=needs)) if f.area == "network"]
    added = {f.evidence.split("adds ")[1].split(",")[0] for f in findings}
    assert added == {"20", "24", "32", "40", "44", "52"}
    assert any("mtu 1520" in f.mend and "advmss 1440" in f.mend for f in findings)


def test_without_settings_the_rest_is_still_looked_at() -> None:
    facts = replace(WELL, settings=None, problems=("node.toml:2: node.vip_ranges: missing",), agent=None,
                    needs=Unseen("there are no settings"))  # fmt: skip
    findings = diagnose(facts)
    assert [f.what for f in findings if f.level == "error"] == ["node settings cannot be used"]
    assert any(f.area == "kernel" for f in findings)


def test_how_it_reads() -> None:
    findings = diagnose(replace(WELL, **sysctl(net__ipv4__conf__eth0__rp_filter="1")))
    text = plain(report(findings, findings, 80))
    assert "  ! warning: rp_filter is strict on eth0" in text
    assert "    mend: sysctl -w net/ipv4/conf/eth0/rp_filter=2" in text
    assert text.endswith(f"0 errors, 1 warning, 0 notices, {len(findings) - 1} fine\n")
    assert worst(findings) == "warning"


def test_the_exabgp_conf_that_is_shipped_is_fine() -> None:
    text = (Path(__file__).parents[2] / "exabgp/exabgp.conf").read_text()
    assert [f for f in amiss(replace(WELL, **speaks(text=text))) if f.area == "bgp"] == []
    matched = CONF.replace("processes [ anycastlb ]", "processes-match [ ^any ]")
    assert [f for f in amiss(replace(WELL, **speaks(text=matched))) if f.area == "bgp"] == []
    own = with_capability("graceful-restart 9;") + "\n"
    own = own.replace("inherit tor;", "inherit tor; capability { graceful-restart disable; }")
    assert [f for f in amiss(replace(WELL, **speaks(text=own))) if f.area == "bgp"] == []


def test_no_command_line_that_was_found_is_run(tmp_path: Path) -> None:
    """A process is called what its owner likes; ``doctor`` is run by root."""
    proof = tmp_path / "proof"
    mine = Process(8, ("exabgp", "server"), 1, uid=os.geteuid(), gid=os.getegid(), groups=tuple(os.getgroups()))
    evil = tmp_path / "anycastlb-bridge"
    evil.write_text(f"#!/bin/sh\ntouch {proof}\n")
    evil.chmod(0o755)
    config = tmp_path / "node.toml"
    config.write_text(NODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exabgp, "is_bridge", lambda pid: True)
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        found = exabgp.speaker(WELL.settings, str(config), (mine, Process(9, (str(evil),), 8, uid=os.geteuid())))
    assert isinstance(found.trial, Trial)
    assert str(evil) not in found.trial.command
    assert not proof.exists()


def test_the_one_as_whom_the_bridge_is_tried_gets_nothing_of_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """He may trace what runs as him: a terminal or a token in it would be his."""
    show = "import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', sorted(os.environ))"
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "secret")
    monkeypatch.setattr(exabgp, "_program", lambda: [sys.executable, "-c", show])
    mine = Process(8, ("exabgp", "server"), 1, uid=os.geteuid(), gid=os.getegid(), groups=tuple(os.getgroups()))
    trial = exabgp.speaker(WELL.settings, "node.toml", (mine,)).trial
    assert isinstance(trial, Trial)
    assert trial.output in ("True True ['LANG', 'PATH']", "True True ['LANG', 'LC_CTYPE', 'PATH']")


def test_no_program_of_just_anybodys_is_asked_for_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise exabgp.metadata.PackageNotFoundError(name)

    program, proof = tmp_path / "exabgp", tmp_path / "proof"
    program.write_text(f"#!/bin/sh\n: > {proof}\necho ExaBGP : 5.0.13\n")
    program.chmod(0o755)
    monkeypatch.setattr(exabgp.metadata, "version", missing)
    monkeypatch.setenv("PATH", str(tmp_path))
    tmp_path.chmod(0o777)
    assert exabgp.speaker(None, "node.toml", ()).installed == "" and not proof.exists()
    tmp_path.chmod(0o755)
    assert exabgp.speaker(None, "node.toml", ()).installed == "5.0.13" and proof.exists()


@pytest.mark.parametrize("kind", ["endless", "waiting", "large"])
def test_a_configuration_that_a_command_line_names_ends(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.conf"
    if kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path)
    found = exabgp.speaker(None, "node.toml", (Process(8, ("exabgp", str(path)), uid=12345),))
    assert isinstance(found.text, Unseen) if kind == "large" else found.config != str(path)


def test_the_name_of_a_socket_makes_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local user names a socket with line breaks in it."""
    with (
        TemporaryDirectory(prefix="lb") as folder,
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as odd,
    ):
        monkeypatch.chdir(folder)
        mine, name = f"{folder}/bgp.sock", f"x\n0: 0 0 no 0 03 0 {folder}/bgp.sock"
        server.bind(mine)
        Path(name).parent.mkdir(parents=True)
        odd.bind(name)
        found = exabgp.speaker(settings.parse(f'{NODE}[bgp]\nsocket = "{mine}"\n'), "node.toml", ()).socket
        assert (found.listening, found.connections) == (False, 0)
        server.listen()
        found = exabgp.speaker(settings.parse(f'{NODE}[bgp]\nsocket = "{mine}"\n'), "node.toml", ()).socket
        assert (found.listening, found.connections) == (True, 0)


def test_who_calls_his_process_a_node_is_not_the_node() -> None:
    mine, fake = replace(DAEMON, uid=990), replace(DAEMON, pid=66, uid=1000, namespace="net:[6]")
    config = ("anycastlb", "run", "--config", "/etc/anycastlb/node.toml")
    fake = replace(fake, argv=config)
    assert processes.nearest([fake, mine], WELL.me, "/etc/anycastlb/node.toml", [990]) == mine
    assert processes.nearest([fake], WELL.me, "/etc/anycastlb/node.toml", []) is None


def test_no_remedy_has_words_of_a_command_line_in_it() -> None:
    rival = Process(5, ("$(touch /tmp/x)", "/usr/sbin/keepalived"), uid=1000)
    assert [f.mend for f in amiss(replace(WELL, rivals=(rival,)))] == ["systemctl disable --now keepalived"]


def test_who_is_called_exabgp_besides_gets_no_access_to_the_socket() -> None:
    fake = Process(66, ("exabgp", "server"), 1, uid=1000, gid=1000)
    for speakers in ((fake, EXABGP), (EXABGP, fake)):
        found = amiss(replace(WELL, **speaks(processes=speakers)))
        assert [(f.level, f.mend) for f in found] == [("notice", "")], found


@pytest.mark.parametrize(
    ("files", "manager"),
    [
        ({}, ""),
        ({"systemd/netif/links/1": "# state\nADMIN_STATE=unmanaged\nOPER_STATE=carrier\n"}, ""),
        ({"systemd/netif/links/1": "ADMIN_STATE=configured\nOPER_STATE=carrier\n"}, "systemd-networkd"),
        ({"NetworkManager/devices/1": "[device]\nmanaged=false\n"}, ""),
        ({"NetworkManager/devices/1": "[device]\nmanaged=true\nconnection-uuid=1-2\n"}, "NetworkManager"),
    ],
)
def test_who_configures_the_loopback(files: dict[str, str], manager: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert host.loopback_manager(tmp_path) == manager
