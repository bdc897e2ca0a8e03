"""keepalived.conf to service documents: its virtual_server blocks, and a note for everything else in it.

Pure. keepalived's defaults are written down where ours differ (a check a minute, NAT, wlc).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from anycastlb.core.catalog.scheduler import FLAGS
from anycastlb.core.catalog.schema import SCHEDULERS
from anycastlb.core.importers.documents import (
    Documents,
    Note,
    Real,
    UnreadableInput,
    Virtual,
    address,
    document,
    number,
    prefix,
    weight,
)
from anycastlb.core.importers.keepalived_checks import CHECKERS, SCHEDULE, check, last
from anycastlb.core.importers.keepalived_text import Include, Statement, parse
from anycastlb.core.model import Address

MAX_VIPS = 1024
"""Of one virtual server group."""
DEFAULT_PERSISTENCE = 360
METHODS = {"NAT": "nat", "DR": "dr", "TUN": "tunnel"}
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
    """The documents, and what could not be carried over. Raises ``Unreadable``."""
    notes: list[Note] = []
    statements = parse(text, include, notes)
    groups = {s.words[1]: s for s in statements if s.keyword == "virtual_server_group" and len(s.words) > 1}
    documents: Documents = {}
    for statement in statements:
        if statement.keyword == "virtual_server":
            try:
                for virtual in _virtuals(statement, groups, notes):
                    _put(documents, virtual, statement, notes)
            except UnreadableInput as exc:
                raise exc if exc.line != statement.line or not statement.name else statement.bad(str(exc)) from None
        elif statement.keyword != "virtual_server_group":
            what = ELSEWHERE.get(statement.keyword, "nothing like it here")
            notes.append(statement.note(f"{' '.join(statement.words)[:60]}: {what}; left out"))
    if not documents and not any(s.keyword in ELSEWHERE or s.keyword == "virtual_server" for s in statements):
        raise UnreadableInput(0, "expected a keepalived.conf with virtual_server blocks")
    return documents, sorted(set(notes))


def _put(documents: Documents, virtual: Virtual, statement: Statement, notes: list[Note]) -> None:
    key = f"services/{virtual.name}"
    if key in documents:
        notes.append(statement.note(f"a second virtual_server of {virtual.name}; left out"))
    else:
        documents[key] = document(virtual)


def _virtuals(statement: Statement, groups: Mapping[str, Statement], notes: list[Note]) -> Iterator[Virtual]:
    """One service for each port of the virtual server."""
    targets = _targets(statement, groups, notes)
    if not targets:
        return
    _leftovers(statement, VIRTUAL, notes)
    model = _model(statement, notes)
    if model is None:
        return
    for port, vips in targets.items():
        virtual = replace(model, vips=tuple(dict.fromkeys(vips)), port=port, reals=[])
        virtual.reals = list(_reals(statement, virtual, notes))
        yield virtual


def _targets(statement: Statement, groups: Mapping[str, Statement], notes: list[Note]) -> dict[int, list[Address]]:
    """VIPs by port."""
    words = statement.words[1:]
    if not words:
        raise statement.bad("expected an address and port, fwmark or group after virtual_server")
    if words[0] == "group":
        if len(words) != 2 or words[1] not in groups:
            raise statement.bad(f"expected the name of a virtual_server_group, not {' '.join(words[1:])!r:.60}")
        lines = groups[words[1]].inside()
    else:
        lines = [Statement(words, statement.line, statement.name)]
    by_port: dict[int, list[Address]] = {}
    for line in lines:
        if line.keyword == "fwmark":
            notes.append(line.note(f"{' '.join(line.words)[:40]}: a service needs its VIP; left out"))
            continue
        port = number(line.words[1], line.line, "a port", 0, 65535) if len(line.words) > 1 else 0
        by_port.setdefault(port, []).extend(_range(line))
    return by_port


def _range(line: Statement) -> list[Address]:
    """``192.0.2.1``, ``192.0.2.1-10``, ``192.0.2.250-192.0.3.10`` or ``192.0.2.8/29``. Raises ``Unreadable``."""
    text = line.keyword
    try:
        if "/" in text:
            network = ip_network(text, strict=False)
            if network.num_addresses > MAX_VIPS:
                raise ValueError
            return list(network)
        low, dash, high = text.partition("-")
        first = address(low, line.line)
        if not dash:
            return [first]
        if high.isalnum():
            joint = ":" if first.version == 6 else "."
            high = joint.join([*low.split(joint)[:-1], high])
        last = ip_address(high)
        if last.version != first.version or not 0 <= int(last) - int(first) < MAX_VIPS:
            raise ValueError
    except ValueError:
        raise line.bad(f"expected an address or a range of at most {MAX_VIPS}, not {text!r:.60}") from None
    return [type(first)(value) for value in range(int(first), int(last) + 1)]


def _model(statement: Statement, notes: list[Note]) -> Virtual | None:
    """The virtual server without its addresses and servers."""
    protocol = (_word(statement, "protocol") or "TCP").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise statement.bad(f"expected protocol TCP, UDP or SCTP, not {protocol!r:.40}")
    scheduler = _word(statement, "lvs_sched", "lb_algo") or "wlc"
    if scheduler not in SCHEDULERS:
        notes.append(statement.note(f"scheduler {scheduler!r:.40} is not known here; the service is left out"))
        return None
    flags = [s for s in statement.inside() if s.keyword in FLAGS or s.keyword.startswith("flag-")]
    foreign = [flag for flag in flags if FLAGS.get(flag.keyword, scheduler) != scheduler]
    notes += [flag.note(f"{flag.keyword}: no flag of {scheduler}; left out") for flag in foreign]
    one_packet = last(statement, "ops")
    if one_packet and protocol != "udp":
        notes.append(one_packet.note(f"ops: one-packet scheduling is for UDP, not {protocol}; left out"))
    keep = last(statement, "persistence_timeout")
    mask = last(statement, "persistence_granularity")
    persistence = 0
    if keep or mask:
        persistence = DEFAULT_PERSISTENCE
        if keep and len(keep.words) > 1:
            persistence = number(keep.words[1], keep.line, "seconds of persistence", 1)
    return Virtual(
        protocol,
        (),
        0,
        scheduler,
        tuple(sorted({flag.keyword for flag in flags if flag not in foreign})),
        bool(one_packet) and protocol == "udp",
        persistence,
        prefix(mask.words[1] if len(mask.words) > 1 else "", mask.line) if mask else None,
        announce=_announce(statement, notes),
    )


def _announce(statement: Statement, notes: list[Note]) -> dict[str, Any]:
    """The quorum, with its hysteresis, as thresholds of the announcement."""
    quorum, slack = last(statement, "quorum"), last(statement, "hysteresis")
    least = number(_argument(quorum), quorum.line, "a quorum", 1, 10**9 - 1) if quorum else 1
    band = number(_argument(slack), slack.line, "a hysteresis", 0, 10**8) if slack else 0
    if least == 1 and not band:
        return {}
    if (sorry := last(statement, "sorry_server")) and least > 1:
        notes.append(sorry.note("sorry_server: a fallback serves when no server is up, not already below the quorum"))
    made = {"min_backends": f"weight {max(1, least - band)}"}
    if band:
        made["reopen"] = f"weight {min(least + band, 10**9 - 1)}"
    return made


def _reals(statement: Statement, virtual: Virtual, notes: list[Note]) -> Iterator[Real]:
    method = _method(last(statement, "lvs_method", "lb_kind"), ("nat", None), notes)
    for inner in statement.inside():
        if inner.keyword == "real_server":
            _leftovers(inner, REAL, notes)
            forward, tunnel_port = _method(last(inner, "lvs_method"), method, notes)
            given = last(inner, "weight")
            checkers = [s for s in inner.inside() if s.keyword in CHECKERS]
            host, port = _endpoint(inner, virtual.port)
            share = number(_argument(given), given.line, "a weight", 0) if given else 1
            upper, lower = (_connections(inner, name) for name in ("uthreshold", "lthreshold"))
            yield Real(
                host, port, forward, weight(share, inner.line, notes), tunnel_port, upper, min(lower, upper),
                check(checkers, (inner, statement), notes),
            )  # fmt: skip
        elif inner.keyword == "sorry_server":
            host, port = _endpoint(inner, virtual.port)
            forward, tunnel_port = _method(last(statement, "sorry_server_lvs_method"), method, notes)
            yield Real(host, port, forward, 1, tunnel_port, check={"type": "none"}, fallback=True)


def _connections(statement: Statement, keyword: str) -> int:
    setting = last(statement, keyword)
    return number(_argument(setting), setting.line, "a number of connections") if setting else 0


def _endpoint(statement: Statement, port: int) -> tuple[Address, int]:
    host = address(_argument(statement), statement.line)
    if len(statement.words) > 2:
        return host, number(statement.words[2], statement.line, "a port", 0, 65535)
    return host, port


def _method(statement: Statement | None, default: tuple[str, int | None], notes: list[Note]) -> tuple[str, int | None]:
    """The forwarding method and, for GUE, its port."""
    if statement is None:
        return default
    kind, *rest = (*statement.words[1:], "")[:8]
    if kind.upper() not in METHODS:
        raise statement.bad(f"expected NAT, DR or TUN after {statement.keyword}, not {kind!r:.40}")
    forward, port = METHODS[kind.upper()], None
    words = iter(rest)
    for word in words:
        if word == "type":
            forward = {"gue": "gue", "gre": "gre"}.get(next(words, ""), forward)
        elif word == "port":
            port = number(next(words, ""), statement.line, "a GUE port", 1, 65535)
        elif word in ("csum", "remcsum"):
            notes.append(statement.note(f"{word}: {forward} is sent without checksums here"))
    return forward, port if forward == "gue" else None


def _leftovers(statement: Statement, known: set[str], notes: list[Note]) -> None:
    for inner in statement.inside():
        if inner.keyword not in known:
            words = " ".join(inner.words)[:60]
            notes.append(inner.note(f"{statement.keyword} {_argument(statement)[:40]}: {words}: left out"))


def _word(statement: Statement, *keywords: str) -> str:
    setting = last(statement, *keywords)
    return _argument(setting) if setting else ""


def _argument(statement: Statement) -> str:
    return statement.words[1] if len(statement.words) > 1 else ""
