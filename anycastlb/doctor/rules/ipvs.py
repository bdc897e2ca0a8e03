"""The rules about the settings of IPVS that decide whether flows can be taken over: time-outs and sync. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from anycastlb.core.model import SyncDaemon
from anycastlb.doctor.facts import Facts, Needs, Unseen
from anycastlb.doctor.finding import Finding, Level
from anycastlb.settings import IpvsSettings

TIMEOUTS = ("tcp_timeout", "tcpfin_timeout", "udp_timeout")
"""In the order of ``ipvsadm --set``."""
ROLES = {"sync_master": "master", "sync_backup": "backup"}
Config = Mapping[str, int | SyncDaemon]


def judge(facts: Facts) -> Iterator[Finding]:
    config = facts.kernel.config
    if facts.settings is None or facts.kernel.family:
        return
    if isinstance(config, Unseen):
        what = "IPVS time-outs and connection sync could not be seen"
        yield Finding("notice", "kernel", what, config.why, "run it as root")
        return
    ipvs = facts.settings.ipvs
    starts = ipvs.manage_sysctls and facts.node is None
    yield from _timeouts(facts, ipvs, config, starts)
    yield from _sync(ipvs, config, starts)
    yield from _interface(facts, ipvs)


def _timeouts(facts: Facts, ipvs: IpvsSettings, config: Config, starts: bool) -> Iterator[Finding]:
    evidence = ", ".join(f"{name.removesuffix('_timeout')} {config.get(name)} s" for name in TIMEOUTS)
    caches = isinstance(facts.needs, Needs) and facts.needs.caches
    wanted = {**(ipvs.cached_config if caches else {}), **ipvs.config}
    other = [name for name in TIMEOUTS if name in wanted and config.get(name) != wanted[name]]
    if not other:
        yield Finding("ok", "kernel", "IPVS time-outs are those of the settings", evidence)
        return
    values = ", ".join(f"{name} {wanted[name]} s" for name in other)
    if starts:
        yield Finding("ok", "kernel", f"the node will set IPVS time-outs when it starts: {values}", evidence)
        return
    # Longer time-outs that nobody asked for, on a machine that the operator manages, only take memory.
    level: Level = "notice" if not ipvs.manage_sysctls and not set(other) & ipvs.config.keys() else "warning"
    mend = "ipvsadm --set " + " ".join(str(wanted[name]) if name in other else "0" for name in TIMEOUTS)
    what = f"IPVS time-outs are not those of the settings: {values}"
    yield Finding(level, "kernel", what, evidence, mend)


def _sync(ipvs: IpvsSettings, config: Config, starts: bool) -> Iterator[Finding]:
    good = []
    for name, role in ROLES.items():
        wanted, actual = ipvs.config.get(name), config.get(name)
        evidence = f"{role}: {actual}" if actual else f"no {role} daemon runs"
        if wanted == actual:
            good.append(evidence)
        elif starts and wanted:
            yield Finding("ok", "kernel", f"the node will start connection sync ({role}) when it starts", evidence)
        elif wanted is None:
            what = f"connection sync ({role}) runs, which node.toml does not ask for; it refuses mixed address families"
            yield Finding("notice", "kernel", what, evidence, f"ipvsadm --stop-daemon {role}")
        else:
            what = f"connection sync ({role}) does not run as the settings say: {wanted}"
            stop = f"ipvsadm --stop-daemon {role}; " if actual else ""
            yield Finding("warning", "kernel", what, evidence, stop + _start(role, wanted))
    if ipvs.sync_interface is not None and len(good) == len(ROLES):
        yield Finding("ok", "kernel", "connection sync runs: other nodes know the flows of this one", ", ".join(good))


def _start(role: str, row: int | SyncDaemon) -> str:
    assert isinstance(row, SyncDaemon)
    return (
        f"ipvsadm --start-daemon {role} --mcast-interface {row.interface} --syncid {row.sync_id} "
        f"--mcast-group {row.group} --mcast-port {row.port} --mcast-ttl {row.ttl}"
    )


def _interface(facts: Facts, ipvs: IpvsSettings) -> Iterator[Finding]:
    if ipvs.sync_interface is None or isinstance(facts.links, Unseen):
        return
    link = next((link for link in facts.links if link.name == ipvs.sync_interface), None)
    if link is None:
        names = ", ".join(link.name for link in facts.links)
        what = f"there is no interface {ipvs.sync_interface}, which connection sync is to use"
        yield Finding("error", "kernel", what, f"interfaces: {names}", f"set sync_interface in {facts.config}")
    elif not link.up:
        what = f"{link.name}, which connection sync uses, is down"
        yield Finding("warning", "kernel", what, f"{link.name}: down", f"ip link set {link.name} up")
