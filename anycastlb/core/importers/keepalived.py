"""keepalived.conf to service documents: its virtual_server blocks, and a note for everything else in it.

Pure. keepalived's defaults are written down where ours differ (a check a minute, NAT, wlc, UDP). What keepalived itself
passes over or corrects, with a message in its log, is passed over or corrected in the same way here, with a note: the
table that it would have programmed is the right answer (seen on keepalived 2.2.7).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from anycastlb.core.catalog.scheduler import FLAGS
from anycastlb.core.catalog.schema import SCHEDULERS
from anycastlb.core.importers.documents import Documents, Note, Real, UnreadableInput, Virtual, document, number, prefix
from anycastlb.core.importers.keepalived_checks import CHECKERS, SCHEDULE, last
from anycastlb.core.importers.keepalived_servers import Method, method_of, servers
from anycastlb.core.importers.keepalived_targets import targets
from anycastlb.core.importers.keepalived_text import Include, Statement, attempt, parse

DEFAULT_PERSISTENCE = 360
MAX_PERSISTENCE = 2678400
VRRP = "VRRP has no counterpart: the VIP of a service is put up and announced by BGP"
ELSEWHERE = {
    "vrrp_instance": VRRP,
    "vrrp_sync_group": VRRP,
    "vrrp_script": VRRP,
    "vrrp_track_process": VRRP,
    "track_file": "files are not watched",
    "global_defs": "settings of keepalived itself",
    "SSL": "set ca_file, cert_file and key_file in the checks",
    "bfd_instance": "BFD is for ExaBGP's host (BIRD or FRR beside it)",
    "static_ipaddress": "addresses other than VIPs are the system's",
    "static_routes": "routes other than VIPs' are the system's",
    "static_rules": "rules are the system's",
}
NEEDLESS = {"alpha", "omega", "warmup", "inhibit_on_failure", "ip_family", "snmp_name"}
"""What happens here anyway: backends are unknown until checked, a node drains when it stops, who fails keeps its place
with weight 0."""
VIRTUAL = {
    "lvs_sched", "lb_algo", "lvs_method", "lb_kind", "persistence_timeout", "persistence_granularity", "protocol",
    "quorum", "hysteresis", "virtualhost", "sorry_server", "sorry_server_lvs_method", "real_server", "ops", "flag-1",
    "flag-2", "flag-3", "sh-port", "sh-fallback", "mh-port", "mh-fallback", *SCHEDULE, *NEEDLESS,
}  # fmt: skip
REAL = {"weight", "lvs_method", "uthreshold", "lthreshold", "virtualhost", *CHECKERS, *SCHEDULE, *NEEDLESS}


def convert(text: str, include: Include | None = None) -> tuple[Documents, list[Note]]:
    """The documents, and what could not be carried over. Raises ``UnreadableInput`` for what is no keepalived.conf."""
    notes: list[Note] = []
    statements = parse(text, include, notes)
    groups = _groups(statements, notes)
    made: dict[str, Virtual] = {}
    for statement in statements:
        if statement.keyword == "virtual_server":
            for virtual in _virtuals(statement, groups, notes):
                _put(made, virtual, statement, notes)
        elif statement.keyword != "virtual_server_group":
            what = ELSEWHERE.get(statement.keyword, "nothing like it here")
            notes.append(statement.note(f"{' '.join(statement.words)[:60]}: {what}; left out"))
    if not made and not any(s.keyword in ELSEWHERE or s.keyword == "virtual_server" for s in statements):
        raise UnreadableInput(0, "expected a keepalived.conf with virtual_server blocks")
    return {f"services/{name}": document(virtual) for name, virtual in made.items()}, sorted(set(notes))


def _groups(statements: Sequence[Statement], notes: list[Note]) -> dict[str, Statement]:
    """The virtual server groups by name; of two with one name, keepalived takes the first."""
    groups: dict[str, Statement] = {}
    for group in statements:
        if group.keyword != "virtual_server_group" or not group.argument:
            continue
        if groups.setdefault(group.argument, group) is not group:
            notes.append(group.note(f"a second virtual_server_group {group.argument:.40}: the first one counts"))
    return groups


def _put(made: dict[str, Virtual], virtual: Virtual, statement: Statement, notes: list[Note]) -> None:
    """The kernel has one table entry for both blocks of one address: settings of the first, the servers of both."""
    first = made.setdefault(virtual.name, virtual)
    if first is virtual:
        return
    notes.append(statement.note(f"a second virtual_server of {virtual.name}: its servers join those of the first"))
    known = {(real.address, real.port) for real in first.reals}
    first.reals += [real for real in virtual.reals if (real.address, real.port) not in known]


def _virtuals(statement: Statement, groups: Mapping[str, Statement], notes: list[Note]) -> Iterator[Virtual]:
    """One service for each port of the virtual server."""
    by_port = targets(statement, groups, notes)
    if not by_port:
        return
    _leftovers(statement, VIRTUAL, notes)
    for inner in statement.inside():
        if inner.keyword == "real_server":
            _leftovers(inner, REAL, notes)
    version = next(vip.version for vips in by_port.values() for vip in vips)
    model = _model(statement, version, notes)
    method = method_of(statement, ("lvs_method", "lb_kind"), Method("nat"), notes)
    if 0 in by_port and not model.persistence:
        notes.append(statement.note(f"port 0 needs persistence: {DEFAULT_PERSISTENCE} seconds, as keepalived sets it"))
        model.persistence = DEFAULT_PERSISTENCE
    for port, vips in by_port.items():
        virtual = replace(model, vips=tuple(dict.fromkeys(vips)), port=port)
        virtual.reals = servers(statement, virtual, method, notes)
        virtual.announce = _announce(statement, virtual.reals, notes)
        yield virtual


def _model(statement: Statement, version: int, notes: list[Note]) -> Virtual:
    """The virtual server without its addresses and servers."""
    protocol = _protocol(statement, notes)
    scheduler, flags = _scheduler(statement, notes)
    one_packet = last(statement, "ops")
    if one_packet and protocol != "udp":
        notes.append(one_packet.note(f"ops: one-packet scheduling is for UDP, not {protocol}; left out"))
    mask = last(statement, "persistence_granularity")
    if mask and version == 4 and "." not in mask.argument:
        text = f"persistence_granularity {mask.argument:.20}: no mask of IPv4 as keepalived reads it (255.255.255.0 is)"
        notes.append(mask.note(f"{text}; left out"))
        mask = None
    return Virtual(
        protocol,
        (),
        0,
        scheduler,
        flags,
        bool(one_packet) and protocol == "udp",
        _persistence(statement, notes),
        attempt(notes, None, prefix, mask.argument, mask.line) if mask else None,
    )


def _protocol(statement: Statement, notes: list[Note]) -> str:
    known = "udp"
    given = [s for s in statement.inside() if s.keyword == "protocol"]
    for line in given:
        if line.argument.lower() in ("tcp", "udp", "sctp"):
            known = line.argument.lower()
        else:
            notes.append(line.note(f"expected protocol TCP, UDP or SCTP, not {line.argument!r:.40}; {known} instead"))
    if not given:
        notes.append(statement.note("no protocol is given: udp, as keepalived has it"))
    return known


def _scheduler(statement: Statement, notes: list[Note]) -> tuple[str, tuple[str, ...]]:
    """The scheduler and its flags. A flag counts only after the scheduler it belongs to, as keepalived reads it."""
    scheduler, flags = "", {}
    for line in statement.inside():
        if line.keyword in ("lvs_sched", "lb_algo"):
            if line.argument in SCHEDULERS:
                scheduler = line.argument
            else:
                kept = scheduler or "wlc"
                notes.append(line.note(f"scheduler {line.argument!r:.40} is not known; {kept} instead"))
        elif line.keyword in FLAGS or line.keyword.startswith("flag-"):
            flags[line.keyword] = line
            if FLAGS.get(line.keyword, scheduler) != scheduler:
                notes.append(line.note(f"{line.keyword}: no flag of {scheduler or 'wlc'}; left out"))
                del flags[line.keyword]
    return scheduler or "wlc", tuple(sorted(flags))


def _persistence(statement: Statement, notes: list[Note]) -> int:
    """Seconds; 0 = none."""
    keep = last(statement, "persistence_timeout")
    if keep is None:
        return DEFAULT_PERSISTENCE if last(statement, "persistence_granularity") else 0
    if len(keep.words) == 1:
        return DEFAULT_PERSISTENCE
    return attempt(notes, 0, number, keep.argument, keep.line, "seconds of persistence", 1, MAX_PERSISTENCE)


def _announce(statement: Statement, reals: Sequence[Real], notes: list[Note]) -> dict[str, Any]:
    """The quorum, with its hysteresis, as thresholds of the announcement; neither asks for more than the pool has."""
    quorum, slack = last(statement, "quorum"), last(statement, "hysteresis")
    least = attempt(notes, 1, number, quorum.argument, quorum.line, "a quorum", 1) if quorum else 1
    band = attempt(notes, 0, number, slack.argument, slack.line, "a hysteresis") if slack else 0
    total = max(1, sum(real.weight for real in reals if not real.fallback))
    if quorum and least > total:
        notes.append(quorum.note(f"quorum {least} is more than all servers weigh; {total} instead"))
        least = total
    if slack and band >= least:
        notes.append(slack.note(f"hysteresis {band} is not below the quorum of {least}; {least - 1} instead"))
        band = least - 1
    if slack and least + band > total:
        notes.append(slack.note(f"hysteresis: the VIP returns when all servers are up, which weigh {total} together"))
    if least == 1 and not band:
        return {}
    if (sorry := last(statement, "sorry_server")) and least > 1:
        notes.append(sorry.note("sorry_server: a fallback serves when no server is up, not already below the quorum"))
    made = {"min_backends": f"weight {least - band}"}
    if band:
        made["reopen"] = f"weight {min(least + band, total)}"
    return made


def _leftovers(statement: Statement, known: set[str], notes: list[Note]) -> None:
    for inner in statement.inside():
        if inner.keyword not in known:
            words = " ".join(inner.words)[:60]
            notes.append(inner.note(f"{statement.keyword} {statement.argument[:40]}: {words}: left out"))
