"""The service and backend documents: one merged document to a ``Service``, or every problem in it.

Pure. Where documents come from, how they are merged and what is kept of a bad one is ``catalog``'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, TypeVar

from pydantic import ValidationError

from anycastlb.core.catalog.schema import BackendDocument, CheckDocument, DiscoverDocument, ServiceDocument
from anycastlb.core.fields import Document, problems, shown
from anycastlb.core.model import (
    Address,
    Announce,
    AnycastlbError,
    Backend,
    Check,
    Combination,
    ConsulInstances,
    ConsulName,
    Damping,
    Discover,
    DnsInstances,
    DnsName,
    Network,
    Problem,
    Protocol,
    Route,
    Service,
    Share,
    VirtualService,
)
from anycastlb.core.model.catalog import most_failed

FLAGS = {"mh-port": "mh", "mh-fallback": "mh", "sh-port": "sh", "sh-fallback": "sh"}
"""Flags that belong to one scheduler; ``flag-1`` to ``flag-3`` go with any."""
CANONICAL = {
    ("mh", "flag-1"): "mh-fallback",
    ("mh", "flag-2"): "mh-port",
    ("sh", "flag-1"): "sh-fallback",
    ("sh", "flag-2"): "sh-port",
}
"""The kernel has three bits; where a scheduler names one, that is its name."""
COMBINED = ("all", "any")
"""Check types made of other checks."""
UNAIMED = ("none", "icmp", "command", "syslog")
"""Check types that need no port, or know their own."""
TIMETABLE = {"interval", "timeout", "rise", "fall", "fast_interval", "down_interval", "via"}
MAX_DEPTH = 3
MAX_PARTS = 64
"""Checks in one combined check, at all depths together."""
CheckTypes = Mapping[str, type[Document]]
"""Check type -> the model of its parameters."""


class Limits(Document):
    """What this node allows: only VIPs and firewall marks of its own ranges."""

    vip_ranges: tuple[Any, ...]
    fwmark_ranges: tuple[tuple[int, int], ...] = ()


def parse_service(
    key: str, name: str, document: Mapping[str, Any], limits: Limits, check_types: CheckTypes
) -> Service | tuple[Problem, ...]:
    """The service ``name`` from its whole, merged document (backends in canonical order), or all its problems."""
    try:
        parsed = ServiceDocument.model_validate(document)
    except ValidationError as exc:
        return problems(exc, key)
    wrong = [Problem(key, path, expected) for path, expected in _contradictions(parsed, limits)]
    protocol: Protocol = "fwmark" if parsed.fwmark else parsed.protocol or "tcp"
    backends: list[Backend] = []
    read: dict[object, _ReadCheck] = {}
    for backend_name, backend in parsed.backends.items():
        try:
            backends.append(_backend(key, backend_name, backend, parsed, protocol, check_types, read))
        except _InvalidField as exc:
            wrong += exc.problems
    wrong += [Problem(key, path, expected) for path, expected in _clashes(backends)]
    return tuple(dict.fromkeys(wrong)) or _service(name, protocol, parsed, backends)


class _InvalidField(AnycastlbError):
    """A part of a service document that cannot be used, with its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def _service(name: str, protocol: Protocol, parsed: ServiceDocument, backends: Sequence[Backend]) -> Service:
    announce = parsed.announce
    return Service(
        name=name,
        vips=tuple(dict.fromkeys(parsed.vip)),
        protocol=protocol,
        port=parsed.fwmark or parsed.port or 0,
        virtual=_virtual(protocol, parsed, backends),
        backends=tuple(backends),
        announce=Announce(
            min_backends=announce.min_backends,
            reopen=announce.reopen,
            when=announce.when,
            fail=announce.fail,
            fallback=announce.fallback,
            last=announce.last,
            damping=Damping(**announce.damping.model_dump()) if announce.damping else None,
            hold_up=announce.hold_up,
            hold_down=announce.hold_down,
            route=Route(
                communities=tuple(sorted(set(announce.communities))),
                large_communities=tuple(sorted(set(announce.large_communities))),
                med=announce.med,
                local_preference=announce.local_preference,
                as_path_prepend=announce.as_path_prepend,
            ),
        ),
        drain=parsed.drain,
        slow_start=0.0 if parsed.slow_start == "history" else parsed.slow_start,
        slow_start_by_history=parsed.slow_start == "history",
        max_failed=parsed.max_failed,
        backends_from=_discover(parsed.backends_from),
        dns=_filled(DnsName, parsed.dns),
        consul=_filled(ConsulName, parsed.consul),
    )


Named = TypeVar("Named", DnsName, ConsulName)


def _filled(kind: type[Named], document: Document | None) -> Named | None:
    return None if document is None else kind(**document.model_dump(exclude_none=True))


def discover(document: Any) -> Discover | None:
    """What a raw ``backends_from`` asks for; None if it asks for nothing or is bad (``parse_service`` reports it)."""
    try:
        return _discover(DiscoverDocument.model_validate(document))
    except ValidationError:
        return None


def _discover(document: DiscoverDocument | None) -> Discover | None:
    if document is None:
        return None
    if document.consul is not None:
        return ConsulInstances(**document.consul.model_dump())
    return DnsInstances(**document.dns.model_dump()) if document.dns else None


def _virtual(protocol: Protocol, parsed: ServiceDocument, backends: Sequence[Backend]) -> VirtualService:
    flags = parsed.scheduler_flags
    if flags is None:
        flags = ("mh-port", "mh-fallback") if parsed.scheduler == "mh" else ()
    one_packet = parsed.one_packet
    if one_packet is None:
        # Stateless UDP: every packet is hashed. Not with nat, whose replies need the connection entry.
        stateful = parsed.persistence or any(backend.forward == "nat" for backend in backends)
        one_packet = protocol == "udp" and parsed.scheduler == "mh" and not stateful
    keep = parsed.persistence
    return VirtualService(
        scheduler=parsed.scheduler,
        flags=frozenset(CANONICAL.get((parsed.scheduler, flag), flag) for flag in flags),
        one_packet=one_packet,
        persistence=round(keep.timeout) if keep else 0,
        persistence_prefix=keep.netmask or 0 if keep else 0,
    )


def _backend(
    key: str,
    name: str,
    backend: BackendDocument,
    service: ServiceDocument,
    protocol: Protocol,
    check_types: CheckTypes,
    read: dict[object, _ReadCheck],
) -> Backend:
    path = f"backends.{name}"
    port = backend.port if backend.port is not None else (service.port or 0)
    forward = backend.forward or service.forward
    if backend.min_connections > backend.max_connections:
        raise _InvalidField([Problem(key, f"{path}.min_connections", "expected at most max_connections")])
    document = merged_check(service.check, backend.check)
    document.setdefault("type", "tcp" if protocol in ("tcp", "fwmark") and port else "none")
    where = f"{path}.check" if backend.check is not None else "check"
    through = document.get("via") == "forward"
    return Backend(
        name=name,
        address=backend.address,
        port=0 if protocol == "fwmark" and backend.port is None else port,
        # Through IPVS the probe goes to the VIP and the service's port.
        check=_check(
            _DocumentPath(key, where, check_types, read),
            document,
            backend.address,
            (service.port or port) if through else port,
            through,
        ),
        weight=backend.weight,
        drain=backend.drain,
        forward=forward,
        tunnel_port=(backend.tunnel_port or service.tunnel_port) if forward == "gue" else 0,
        upper=backend.max_connections,
        lower=backend.min_connections,
        through=through,
        fallback=backend.fallback,
        override=backend.override,
    )


@dataclass(frozen=True, slots=True)
class _ReadCheck:
    """The fields that all check types have, those of the type, and what is wrong with them."""

    common: Mapping[str, Any]
    own: Mapping[str, Any]
    timing: CheckDocument | None
    params: Document | None
    wrong: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _DocumentPath:
    """The place of a check in its document, for its problems, and the known check types."""

    key: str
    path: str
    types: CheckTypes
    read: dict[object, _ReadCheck]
    """Those that were read before."""

    def bad(self, path: str, expected: str) -> _InvalidField:
        return _InvalidField([Problem(self.key, f"{self.path}.{path}", expected)])


def _check(
    where: _DocumentPath, document: Mapping[str, Any], address: Address, port: int, through: bool, depth: int = 0
) -> Check:
    """One check document, with those inside of it. Raises ``_Bad``."""
    kind = document.get("type", "tcp")
    if not isinstance(kind, str) or kind not in where.types:
        raise where.bad("type", f"expected one of {', '.join(where.types)}, not {shown(kind)}")
    read = _read_check(where, kind, document)
    timing = read.timing
    params: Document | Combination | None = read.params
    if through and where.types[kind].direct_only:
        able = ", ".join(name for name, model in where.types.items() if not model.direct_only)
        raise where.bad("via", f"expected direct: {kind} cannot go through IPVS (forward is for {able})")
    if timing is None or params is None:
        raise _InvalidField(
            [Problem(where.key, f"{where.path}.{problem.path}", problem.expected) for problem in read.wrong]
        )
    target, aim = timing.address or address, timing.port or port
    if kind in COMBINED:
        params = _combination(where, read.own, read.common, target, aim, through, depth)
    elif not aim and kind not in UNAIMED:
        raise where.bad("port", "missing; expected the port to check, as the backend has none")
    return Check(
        type=kind,
        address=target,
        port=aim,
        params=params,
        interval=timing.interval,
        timeout=timing.timeout,
        rise=timing.rise,
        fall=timing.fall,
        fast_interval=timing.fast_interval,
        down_interval=timing.down_interval,
    )


def _read_check(where: _DocumentPath, kind: str, document: Mapping[str, Any]) -> _ReadCheck:
    """The check's document without regard to whose it is: most backends share one."""
    same = tuple((name, id(value)) for name, value in document.items())  # the values live as long as the service's
    if (known := where.read.get(same)) is not None:
        return known
    common = {name: document[name] for name in CheckDocument.model_fields if name in document}
    own = {name: value for name, value in document.items() if name not in CheckDocument.model_fields}
    wrong: list[Problem] = []
    timing: CheckDocument | None = None
    params: Document | None = None
    try:
        timing = CheckDocument.model_validate(common)
    except ValidationError as exc:
        wrong += problems(exc, where.key)
    try:
        params = where.types[kind].model_validate(own)
    except ValidationError as exc:
        wrong += problems(exc, where.key)
    where.read[same] = _ReadCheck(common, own, timing, params, tuple(wrong))
    return where.read[same]


def _combination(
    where: _DocumentPath,
    own: Mapping[str, Any],
    common: Mapping[str, Any],
    address: Address,
    port: int,
    through: bool,
    depth: int,
) -> Combination:
    """The checks inside an ``all`` or ``any``; they run by the time-table of the whole."""
    parts = own.get("checks")
    if depth == 0 and parts_of(own) > MAX_PARTS + 1:
        raise where.bad("checks", f"expected at most {MAX_PARTS} checks in all, at all depths together")
    if depth > MAX_DEPTH or not isinstance(parts, list) or not 1 <= len(parts) <= 16:
        raise where.bad("checks", f"expected a list of 1 to 16 checks, at most {MAX_DEPTH + 1} deep")
    inherited = {name: value for name, value in common.items() if name != "type"}
    checks: list[Check] = []
    wrong: list[Problem] = []
    for place, part in enumerate(parts):
        inside = replace(where, path=f"{where.path}.checks.{place}")
        try:
            if not isinstance(part, dict):
                raise inside.bad("type", f"expected an object, not {shown(part)}")
            if scheduled := sorted(set(part) & TIMETABLE):
                raise inside.bad(scheduled[0], "expected the time-table outside, in the whole check")
            checks.append(_check(inside, {**inherited, **part}, address, port, through, depth + 1))
        except _InvalidField as exc:
            wrong += exc.problems
    if wrong:
        raise _InvalidField(wrong)
    return Combination(tuple(checks))


def parts_of(check: Any) -> int:
    """How many checks a raw check document is, with those inside of it."""
    level, count = [check], 0
    while level:
        count += len(level)
        lists = [one.get("checks") for one in level if isinstance(one, dict)]
        level = [part for some in lists if isinstance(some, list) for part in some]
    return count


def strange_check(key: str, document: Mapping[str, Any], check_types: CheckTypes) -> tuple[Problem, ...]:
    """What is wrong with a check that belongs to no backend yet, as in the defaults. Of one that names no type only the
    fields that all types have are known."""
    known = document if "type" in document else {n: v for n, v in document.items() if n in CheckDocument.model_fields}
    sample = ip_address("192.0.2.1")
    try:
        _check(_DocumentPath(key, "check", check_types, {}), {"type": "none", **known}, sample, 80, through=False)
    except _InvalidField as exc:
        return tuple(exc.problems)
    return ()


def merged_check(under: Mapping[str, Any] | None, over: Mapping[str, Any] | None) -> dict[str, Any]:
    """A check over another: field by field if it is the same type, else the upper one alone."""
    under, over = under or {}, over or {}
    if "type" in over and over["type"] != under.get("type", over["type"]):
        return dict(over)
    return {**under, **over}


def _contradictions(parsed: ServiceDocument, limits: Limits) -> Iterator[tuple[str, str]]:
    for place, vip in enumerate(parsed.vip):
        if not allowed(vip, limits.vip_ranges):
            ranges = ", ".join(map(str, limits.vip_ranges))
            yield f"vip.{place}", f"expected an address inside this node's vip_ranges ({ranges}), not {vip}"
    if parsed.fwmark:
        if parsed.port is not None or parsed.protocol is not None:
            yield "fwmark", "expected either fwmark, or port and protocol, not both"
        if not any(low <= parsed.fwmark <= high for low, high in limits.fwmark_ranges):
            yield "fwmark", f"expected a mark inside this node's fwmark_ranges, not {parsed.fwmark}"
    elif parsed.port is None:
        yield "port", "missing; expected a port from 1 to 65535 (0 = every port, with persistence), or fwmark"
    elif parsed.port == 0 and not parsed.persistence:
        yield "port", "expected a port from 1 to 65535; 0 (every port) needs persistence"
    if parsed.one_packet and parsed.protocol != "udp":
        yield "one_packet", "expected protocol udp: one-packet scheduling is for datagrams"
    if parsed.dns and parsed.dns.srv and not parsed.port:
        yield "dns.srv", "expected a service with a port, which an SRV record tells; this one has none"
    reopen, least = parsed.announce.reopen, parsed.announce.min_backends
    if reopen and _unit(reopen) != _unit(least):
        yield "announce.reopen", f"expected the same kind of threshold as min_backends ({least}), not {reopen}"
    elif reopen and _amount(reopen) < _amount(least):
        yield "announce.reopen", f"expected at least min_backends ({least}), not {reopen}"
    for flag in parsed.scheduler_flags or ():
        if not re.fullmatch(r"flag-[123]", flag) and FLAGS.get(flag) != parsed.scheduler:
            names = [name for name, scheduler in FLAGS.items() if scheduler == parsed.scheduler]
            offer = ", ".join([*names, "flag-1", "flag-2", "flag-3"])
            yield "scheduler_flags", f"expected flags of {parsed.scheduler} ({offer}), not {shown(flag)}"
    netmask = parsed.persistence.netmask if parsed.persistence else None
    if netmask and netmask > 32 and any(vip.version == 4 for vip in parsed.vip):
        yield "persistence.netmask", f"expected a prefix length up to 32 for an IPv4 VIP, not {netmask}"


def service_notices(service: Service) -> list[tuple[str, str]]:
    """What is allowed in a service but will surprise its owner one day, with its place in the document."""
    found: list[tuple[str, str]] = []
    primaries = sum(not backend.fallback and backend.weight > 0 for backend in service.backends)
    least = service.announce.min_backends
    if service.max_failed is not None and primaries and most_failed(service.max_failed, primaries) < 1:
        text = f"a pool of {primaries} is too small for a floor of {service.max_failed}"
        found.append(("max_failed", f"{text}: no backend will ever be taken out on health"))
    if least.percent is None and least.weight is None and service.backends and least.count > primaries:
        found.append(("announce.min_backends", f"needs {least.count}, and there are {primaries}: never announced"))
    weight = sum(backend.weight for backend in service.backends if not backend.fallback)
    if least.weight is not None and service.backends and least.weight > weight:
        text = f"needs weight {least.weight}, and all have {weight}: never announced"
        found.append(("announce.min_backends", text))
    return found


def _unit(share: Share) -> str:
    return "weight" if share.weight is not None else "count" if share.percent is None else "percent"


def _amount(share: Share) -> float:
    return share.weight if share.weight is not None else share.count if share.percent is None else share.percent


def clash(other: str) -> str:
    """What is expected of a backend whose endpoint another one has."""
    return f"expected an address and port of its own; {other} has the same"


def _clashes(backends: Sequence[Backend]) -> Iterator[tuple[str, str]]:
    seen: dict[tuple[Address, int], str] = {}
    for backend in backends:
        other = seen.setdefault((backend.address, backend.port), backend.name)
        if other != backend.name:
            yield f"backends.{backend.name}", clash(other)


def unreachable(key: str, service: Service) -> tuple[Problem, ...]:
    """The backends that cannot serve a VIP of the other address family although no other backend can.

    The catalog refuses a document that names them all itself. Where keys or discoveries bring backends, the service
    goes on: its other VIPs need them, and what one key brings or takes must not stop the rest.
    """
    return tuple(
        Problem(
            key,
            f"backends.{backend.name}",
            f"expected an IPv{vip.version} address for VIP {vip} with {backend.forward}",
        )
        for vip in service.vips
        if not service.members(vip)
        for backend in service.backends
    )


def allowed(vip: Address, ranges: Sequence[Network]) -> bool:
    return any(vip.version == network.version and vip in network for network in ranges)
