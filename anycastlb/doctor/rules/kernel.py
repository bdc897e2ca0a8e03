"""The kernel and what this node may do with it: IPVS, modules, capabilities, sysctls, limits. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anycastlb.adapters.drivers.sysctls import PROBING, TAKEOVER
from anycastlb.doctor.facts import Facts, Needs, Unseen
from anycastlb.doctor.finding import Finding, Level
from anycastlb.doctor.preflight import CAP_NET_ADMIN, IFA_PROTO_SINCE
from anycastlb.doctor.rules import ipvs

CAP_NET_RAW = 13
SPARE_FILES = 256
"""Descriptors a node needs beside its probes: API, Consul, log."""
CROWDED = 0.8
"""Of nf_conntrack's table, above which it will soon drop."""
UNIT = "systemctl edit anycastlb"
BACKENDS_NEED = {
    "tunnel": "modprobe ipip; ip link set tunl0 up (IPv6: ip6_tunnel, ip6tnl0)",
    "gue": "modprobe fou ipip; ip fou add port 6080 gue; ip link set tunl0 up",
    "gre": "modprobe ip_gre; ip tunnel add gre1 mode gre local ADDRESS; ip link set gre1 up",
}


def judge(facts: Facts) -> Iterator[Finding]:
    yield _release(facts)
    yield from _ipvs(facts)
    yield from _modules(facts)
    yield from _privilege(facts)
    yield from _takeover(facts)
    yield from ipvs.judge(facts)
    yield from _table(facts)
    yield from _conntrack(facts)
    yield from _files(facts)
    yield from _rivals(facts)


def _release(facts: Facts) -> Finding:
    release = facts.kernel.release
    version = re.match(r"(\d+)\.(\d+)", release)
    if version and (int(version[1]), int(version[2])) < IFA_PROTO_SINCE:
        what = "this kernel cannot mark addresses as ours (IFA_PROTO), which takes 5.18 or later"
        return Finding("error", "kernel", what, f"release {release}", "apt-get install linux-image-amd64")
    return Finding("ok", "kernel", "the kernel is new enough", f"release {release}")


def _ipvs(facts: Facts) -> Iterator[Finding]:
    kernel = facts.kernel
    if not kernel.family:
        yield Finding("ok", "kernel", "IPVS is there", kernel.info or "netlink family IPVS answers")
    elif kernel.loadable.get("ip_vs"):
        mend = "modprobe ip_vs; echo ip_vs > /etc/modules-load.d/ipvs.conf"
        level: Level = "warning" if facts.node is None else "error"
        yield Finding(level, "kernel", "the module ip_vs is not loaded", f"netlink family IPVS: {kernel.family}", mend)
    else:
        what = "this kernel has no IPVS, and no module ip_vs to load"
        mend = f"apt-get install linux-modules-{kernel.release} (Ubuntu), or linux-image-amd64 (Debian, not -cloud)"
        yield Finding("error", "kernel", what, f"netlink family IPVS: {kernel.family}; modprobe -n ip_vs fails", mend)


def _modules(facts: Facts) -> Iterator[Finding]:
    if isinstance(facts.needs, Unseen):
        return
    wanted = sorted({*facts.needs.schedulers} - {"none"})
    for name in wanted:
        if not facts.kernel.loadable.get(f"ip_vs_{name}"):
            what = f'the kernel has no IPVS scheduler "{name}", which the catalog uses'
            yield Finding("error", "kernel", what, f"modprobe -n ip_vs_{name} fails", f"modprobe ip_vs_{name}")
    if there := [name for name in wanted if facts.kernel.loadable.get(f"ip_vs_{name}")]:
        evidence = ", ".join(f"ip_vs_{name}" for name in there)
        yield Finding("ok", "kernel", "the schedulers of the catalog are there", evidence)
    for forward in sorted({forward for _, forward in facts.needs.forwards} & BACKENDS_NEED.keys()):
        what = f"{forward}: IPVS wraps packets by itself, this node needs no further module; its backends do"
        yield Finding("ok", "kernel", what, f"on each backend: {BACKENDS_NEED[forward]}")


def _privilege(facts: Facts) -> Iterator[Finding]:
    who = facts.node or facts.me
    name = f"anycastlb run (process {who.pid})" if facts.node else "this process"
    evidence = f"{name}: CapEff {who.capabilities:016x}"
    # What this process lacks says nothing of a node that does not run.
    level: Level = "error" if facts.node or who.uid == 0 else "notice"
    mend = f"{UNIT}  # AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW" if facts.node else "run it as root"
    if not who.capabilities >> CAP_NET_ADMIN & 1:
        what = f"{name} lacks CAP_NET_ADMIN, which IPVS, addresses and marked probes need"
        yield Finding(level, "kernel", what, evidence, mend)
    else:
        yield Finding("ok", "kernel", f"{name} has CAP_NET_ADMIN", evidence)
    if not facts.kernel.owns_machine:
        what = "this process is in a user namespace of its own, from which the kernel allows no IPVS"
        yield Finding("error", "kernel", what, "/proc/self/uid_map", "run it outside, as the machine's root")


def _takeover(facts: Facts) -> Iterator[Finding]:
    if facts.settings is None:
        return
    managed = facts.settings.ipvs.manage_sysctls
    through = isinstance(facts.needs, Needs) and facts.needs.through
    wanted = {**TAKEOVER, **(PROBING if through else {}), **facts.settings.ipvs.sysctls}
    good = []
    for name, value in wanted.items():
        dotted, actual = name.replace("/", "."), facts.kernel.sysctls.get(name)
        if actual is None:
            continue  # ip_vs is not loaded, which has its own finding
        if actual == value:
            good.append(f"{dotted} = {actual}")
        elif managed and facts.node is None:
            what = f"{dotted} will be set to {value} when the node starts"
            yield Finding("ok", "kernel", what, f"{dotted} = {actual}, and [ipvs] manage_sysctls is on")
        else:
            what = f"{dotted} is not {value}, which a node of a cluster needs"
            setting = f'"{dotted}={value}"' if " " in value else f"{dotted}={value}"
            yield Finding("warning", "kernel", what, f"{dotted} = {actual}", f"sysctl -w {setting}")
    if good:
        yield Finding("ok", "kernel", "sysctls let this node take over flows of others", ", ".join(good))


def _table(facts: Facts) -> Iterator[Finding]:
    kernel = facts.kernel
    resizes = "net/ipv4/vs/conn_lfactor" in kernel.sysctls
    if kernel.table_bits is not None and kernel.table_bits < 16 and not resizes:
        what = f"the table of connections has {2**kernel.table_bits} buckets and never grows"
        mend = "echo options ip_vs conn_tab_bits=20 > /etc/modprobe.d/ip_vs.conf  # and load ip_vs anew"
        yield Finding("notice", "kernel", what, f"conn_tab_bits = {kernel.table_bits}", mend)


def _conntrack(facts: Facts) -> Iterator[Finding]:
    sysctls = facts.kernel.sysctls
    if sysctls.get("net/ipv4/vs/conntrack", "0") != "0":
        what = "IPVS makes a conntrack entry of every connection, which only NAT with packet filter rules needs"
        mend = "sysctl -w net.ipv4.vs.conntrack=0"
        yield Finding("notice", "kernel", what, "net.ipv4.vs.conntrack = 1", mend)
    count, most = sysctls.get("net/netfilter/nf_conntrack_count", ""), sysctls.get("net/netfilter/nf_conntrack_max", "")
    if count.isdigit() and most.isdigit() and int(most):
        evidence = f"nf_conntrack_count {count} of nf_conntrack_max {most}"
        if int(count) > CROWDED * int(most):
            mend = f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}"
            what = "conntrack's table is nearly full; when it is, packets of every service are dropped"
            yield Finding("warning", "kernel", what, evidence, mend)
        else:
            yield Finding("ok", "kernel", "conntrack has room", evidence)


def _files(facts: Facts) -> Iterator[Finding]:
    who = facts.node or facts.me
    if not who.files:
        return
    probes = facts.needs.probes if isinstance(facts.needs, Needs) else 0
    evidence = f"{'anycastlb run' if facts.node else 'here'}: {who.files} open files, {probes} checks"
    if who.files < probes + SPARE_FILES:
        what = "the limit of open files is below what the checks of the catalog may need at once"
        level: Level = "warning" if facts.node else "notice"
        yield Finding(level, "kernel", what, evidence, f"{UNIT}  # LimitNOFILE={2 * (probes + SPARE_FILES)}")
    else:
        yield Finding("ok", "kernel", "enough files may be open", evidence)


def _rivals(facts: Facts) -> Iterator[Finding]:
    for process in facts.rivals:
        name = process.argv[0].rsplit("/", 1)[-1] if process.argv else "?"
        what = f"{name} runs too: two masters of IPVS and of the VIPs undo each other's work"
        evidence = f"process {process.pid}: {' '.join(process.argv)[:100]}"
        yield Finding("warning", "kernel", what, evidence, f"systemctl disable --now {name}")
