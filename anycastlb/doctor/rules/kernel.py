"""The rules about the kernel and what a node may do with it: IPVS, modules, capabilities, sysctls, limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anycastlb.adapters.drivers.sysctls import PROBING, TAKEOVER
from anycastlb.doctor.facts import Facts, Needs, Unseen
from anycastlb.doctor.finding import Finding, Level
from anycastlb.doctor.rules import ipvs

CAP_NET_ADMIN = 12
IFA_PROTO_SINCE = (5, 18)
SPARE_FILES = 256
"""File descriptors that a node needs beside its probes: API, Consul, log."""
MAX_FILL = 0.8
"""The share of nf_conntrack's table above which it will soon drop packets."""
MIN_TABLE_BITS = 16
"""Below, 200,000 connections already make long chains in IPVS's table."""
NEWER = "install a newer kernel: apt-get install linux-image-amd64"
UNIT = "systemctl edit anycastlb"
BACKENDS_NEED = {
    "tunnel": "modprobe ipip; ip link set tunl0 up (IPv6: ip6_tunnel, ip6tnl0)",
    "gue": "modprobe fou ipip; ip fou add port 6080 gue; ip link set tunl0 up",
    "gre": "modprobe ip_gre; ip tunnel add gre1 mode gre local ADDRESS; ip link set gre1 up",
}


def judge(facts: Facts) -> Iterator[Finding]:
    yield from release(facts)
    yield from ipvs_available(facts)
    yield from schedulers(facts)
    yield from _tunnel_modules(facts)
    yield from privilege(facts)
    yield from takeover_sysctls(facts)
    yield from probe_answers(facts)
    yield from ipvs.judge(facts)
    yield from _table(facts)
    yield from _conntrack(facts)
    yield from _files(facts)
    yield from _rivals(facts)


def _speaks_for_node(facts: Facts) -> bool:
    """Does what this process may do show what a node may do? A user who only looks around says nothing of it."""
    return facts.starting or facts.me.uid == 0


def release(facts: Facts) -> Iterator[Finding]:
    name = facts.kernel.release
    version = re.match(r"(\d+)\.(\d+)", name)
    if version and (int(version[1]), int(version[2])) < IFA_PROTO_SINCE:
        what = f"kernel {name} cannot mark addresses as ours (IFA_PROTO), which takes 5.18 or later"
        yield Finding("error", "kernel", what, f"release {name}", NEWER)
    elif not version:
        what = "nobody can tell from its name whether this kernel can mark addresses as ours (IFA_PROTO, since 5.18)"
        yield Finding("notice", "kernel", what, f"release {name}", "ip address add 192.0.2.1/32 dev lo proto 99")
    else:
        yield Finding("ok", "kernel", "the kernel is new enough", f"release {name}")


def ipvs_available(facts: Facts) -> Iterator[Finding]:
    kernel = facts.kernel
    evidence = f"netlink family IPVS: {kernel.family}"
    if not kernel.family:
        yield Finding("ok", "kernel", "IPVS is there", kernel.info or "netlink family IPVS answers")
    elif not kernel.loadable.get("ip_vs"):
        what = f"this kernel has no IPVS, and no module ip_vs to load ({kernel.family})"
        mend = (
            f"install the kernel's modules: apt-get install linux-modules-{kernel.release} "
            "(Ubuntu) or linux-image-amd64 instead of a -cloud kernel (Debian)"
        )
        yield Finding("error", "kernel", what, f"{evidence}; modprobe -n ip_vs fails", mend)
    else:
        mend = "modprobe ip_vs; echo ip_vs > /etc/modules-load.d/ipvs.conf"
        what = "the module ip_vs is not loaded"
        if facts.node is None:
            yield Finding("warning", "kernel", f"{what}; it will be, if the node may load it", evidence, mend)
        else:
            yield Finding("error", "kernel", what, evidence, mend)


def schedulers(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.needs, Unseen):
        return
    wanted = sorted({*facts.needs.schedulers} - {"none"})
    available = [name for name in wanted if facts.kernel.loadable.get(f"ip_vs_{name}")]
    for name in wanted:
        if name not in available:
            evidence = f"services use it, and modprobe -n ip_vs_{name} fails"
            what = f'the kernel has no IPVS scheduler "{name}"'
            yield Finding("error", "kernel", what, evidence, f"modprobe ip_vs_{name}")
    if available:
        evidence = ", ".join(f"ip_vs_{name}" for name in available)
        yield Finding("ok", "kernel", "the schedulers of the catalog are there", evidence)


def _tunnel_modules(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.needs, Unseen):
        return
    for forward in sorted({forward for _, forward in facts.needs.forwards} & BACKENDS_NEED.keys()):
        what = f"{forward}: IPVS wraps packets by itself, this node needs no further module; its backends do"
        yield Finding("ok", "kernel", what, f"on each backend: {BACKENDS_NEED[forward]}")


def privilege(facts: Facts) -> Iterator[Finding]:
    process = facts.node or facts.me
    name = f"anycastlb run (process {process.pid})" if facts.node else "this process"
    evidence = f"{name}: CapEff {process.capabilities:016x}"
    if process.capabilities >> CAP_NET_ADMIN & 1:
        yield Finding("ok", "kernel", f"{name} has CAP_NET_ADMIN", evidence)
    else:
        level: Level = "error" if facts.node or _speaks_for_node(facts) else "notice"
        mend = (
            f"{UNIT}  # AmbientCapabilities=CAP_NET_ADMIN CAP_KILL"
            if facts.node
            else "run it as root, or put AmbientCapabilities=CAP_NET_ADMIN into its systemd unit"
        )
        yield Finding(level, "kernel", f"{name} lacks CAP_NET_ADMIN, which IPVS and addresses need", evidence, mend)
    if not facts.kernel.owns_machine:
        what = "this process is in a user namespace of its own, from which the kernel allows no IPVS"
        mend = "run it outside, as the machine's root (not in a rootless container)"
        yield Finding("error", "kernel", what, "/proc/self/uid_map", mend)


def takeover_sysctls(facts: Facts) -> Iterator[Finding]:
    """Those that let any node of a cluster take over the flows of another, and those that node.toml asks for."""
    if facts.settings is None:
        return
    will_be_set = facts.settings.ipvs.manage_sysctls and facts.node is None
    good = []
    for name, value in {**TAKEOVER, **facts.settings.ipvs.sysctls}.items():
        dotted, actual = name.replace("/", "."), facts.kernel.sysctls.get(name)
        if actual is None:
            if not facts.kernel.family:  # else ip_vs is not loaded, which has its own finding
                what = f"this kernel has no {dotted}, and a cluster node needs {value}"
                yield Finding("warning", "kernel", what, f"no /proc/sys/{name}", NEWER)
            continue
        evidence = f"{dotted} = {actual}"
        what = f"{dotted} is {actual}, and a cluster node needs {value}"
        mend = f'sysctl -w "{dotted}={value}"' if " " in value else f"sysctl -w {dotted}={value}"
        if actual == value:
            good.append(evidence)
        elif not will_be_set:
            yield Finding("warning", "kernel", what, evidence, mend)
        elif name in facts.kernel.read_only and _speaks_for_node(facts):
            what = f"{dotted} is {actual}, a cluster node needs {value}, and this process may not write it"
            yield Finding("warning", "kernel", what, evidence, mend)
        else:
            what = f"{dotted} will be set to {value} when the node starts"
            yield Finding("ok", "kernel", what, f"{evidence}, and [ipvs] manage_sysctls is on")
    if good:
        yield Finding("ok", "kernel", "sysctls let this node take over flows of others", ", ".join(good))


def probe_answers(facts: Facts) -> Iterator[Finding]:
    """Are the answers to checks that go through IPVS accepted? They come from a VIP, an address of this node too."""
    if facts.settings is None or isinstance(facts.needs, Unseen) or not facts.needs.through:
        return
    values = {name: value for name, value in facts.kernel.sysctls.items() if name.endswith("/accept_local")}
    (everywhere, value), *_ = PROBING.items()
    dotted = everywhere.replace("/", ".")
    evidence = ", ".join(f"{name.replace('/', '.')} = {actual}" for name, actual in sorted(values.items())[:8])
    if "1" in values.values():
        yield Finding("ok", "kernel", 'answers to checks with "via": "forward" are accepted', evidence)
    elif facts.settings.ipvs.manage_sysctls and facts.node is None:
        what = f"{dotted} will be set to {value} when the node starts"
        yield Finding("ok", "kernel", what, f"{evidence or dotted}, and [ipvs] manage_sysctls is on")
    else:
        what = (
            'accept_local is 0 on every interface: over IPv4, checks with "via": "forward" get no answer from backends '
            "reached by dr, tunnel, gue or gre"
        )
        mend = f"sysctl -w {dotted}={value}  # or the same on just the interfaces towards the backends"
        yield Finding("warning", "kernel", what, evidence or dotted, mend)


def _table(facts: Facts) -> Iterator[Finding]:
    """Is the table of connections large enough? It does not grow above ``conn_tab_bits``, whatever ``conn_lfactor`` is:
    measured on Linux 7.2 with 200,000 connections."""
    bits = facts.kernel.table_bits
    if bits is None:
        return
    evidence = f"conn_tab_bits = {bits}"
    if bits >= MIN_TABLE_BITS:
        yield Finding("ok", "kernel", f"the table of connections has {2**bits} buckets", evidence)
        return
    what = (
        f"the table of connections has {2**bits} buckets and never grows: at 200,000 connections IPVS takes 11.9 us a "
        "packet with 4096 of them, and 1.0 us with 20 bits"
    )
    mend = "echo options ip_vs conn_tab_bits=20 > /etc/modprobe.d/anycastlb.conf  # and load ip_vs anew, or boot"
    yield Finding("warning", "kernel", what, evidence, mend)


def _conntrack(facts: Facts) -> Iterator[Finding]:
    sysctls = facts.kernel.sysctls
    if sysctls.get("net/ipv4/vs/conntrack", "0") != "0":
        what = "IPVS makes a conntrack entry of every connection, which only NAT with packet filter rules needs"
        mend = "sysctl -w net.ipv4.vs.conntrack=0"
        yield Finding("notice", "kernel", what, "net.ipv4.vs.conntrack = 1", mend)
    count, limit = (
        sysctls.get("net/netfilter/nf_conntrack_count", ""),
        sysctls.get("net/netfilter/nf_conntrack_max", ""),
    )
    if count.isdigit() and limit.isdigit() and int(limit):
        evidence = f"nf_conntrack_count {count} of nf_conntrack_max {limit}"
        if int(count) > MAX_FILL * int(limit):
            mend = f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(limit)}"
            what = "conntrack's table is nearly full; when it is, packets of every service are dropped"
            yield Finding("warning", "kernel", what, evidence, mend)
        else:
            yield Finding("ok", "kernel", "conntrack has room", evidence)


def _files(facts: Facts) -> Iterator[Finding]:
    process = facts.node or facts.me
    if not process.files:
        return
    probes = facts.needs.probes if isinstance(facts.needs, Needs) else 0
    evidence = f"{'anycastlb run' if facts.node else 'here'}: {process.files} open files, {probes} checks"
    if process.files < probes + SPARE_FILES:
        what = "the limit of open files is below what the checks of the catalog may need at once"
        level: Level = "warning" if facts.node else "notice"
        yield Finding(level, "kernel", what, evidence, f"{UNIT}  # LimitNOFILE={2 * (probes + SPARE_FILES)}")
    else:
        yield Finding("ok", "kernel", "enough files may be open", evidence)


def _rivals(facts: Facts) -> Iterator[Finding]:
    for process in facts.rivals:
        name = process.rival
        what = f"{name} runs too: two masters of IPVS and of the VIPs undo each other's work"
        evidence = f"process {process.pid}: {' '.join(process.argv)[:100]}"
        yield Finding("warning", "kernel", what, evidence, f"systemctl disable --now {name}")
