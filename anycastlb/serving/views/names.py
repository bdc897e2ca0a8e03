"""How the names of a node stand: each place they are written to, and each name of one VIP, in words.

Pure; every reason is the decision's or the place's own.
"""

from __future__ import annotations

from typing import Any

from anycastlb.core.model import NO_REASON, Address, ConsulKey, DnsKey, Reason, Table
from anycastlb.serving.views.format import reason_fields
from anycastlb.serving.views.index import Index

NameState = tuple[bool | None, str, str]
"""Does it hold (None: it need not), the object, and what to say of it."""


def record_stores(index: Index) -> list[dict[str, Any]]:
    """One entry for each place where names are written."""
    snapshot = index.snapshot
    return [
        {
            "table": registrar.table,
            "place": registrar.place,
            "seen": registrar.seen,
            "error": registrar.error,
            "since_seconds": index.age(registrar.since),
            "rows": len(getattr(snapshot.actual, registrar.table)),
            "refused": [{"object": str(key), **reason_fields(reason)} for key, reason in registrar.refused.items()],
        }
        for registrar in snapshot.registrars
    ]


def names_of_vip(index: Index, vip: Address) -> list[NameState]:
    """Every name of a VIP, the records of DNS first."""
    return [*_dns(index, vip), *_consul(index, vip)]


def name_refusal(index: Index, table: Table, key: Any) -> Reason:
    """Why a name is not as it should be: it was refused, or its place is away; ``NO_REASON`` if neither."""
    for registrar in index.snapshot.registrars:
        if registrar.table == table:
            away = Reason("place_away", registrar.error) if registrar.error else NO_REASON
            return registrar.refused.get(key, away)
    return NO_REASON


def _dns(index: Index, vip: Address) -> list[NameState]:
    actual, desired = index.snapshot.actual.dns_records, index.snapshot.decision.desired.dns_records
    known = {**actual, **desired}
    hosts = {key.name for key in known if key.data == str(vip)}
    keys = [key for key in known if key.data == str(vip) or (key.type == "SRV" and key.data.split()[-1] in hosts)]
    return [_record(index, key) for key in sorted(keys, key=str)]


def _record(index: Index, key: DnsKey) -> NameState:
    row = index.snapshot.actual.dns_records.get(key)
    wanted = index.snapshot.decision.desired.dns_records.get(key)
    against = name_refusal(index, "dns_records", key).text
    if row and wanted:
        text = f"published, TTL {row.ttl} s" if row == wanted else f"published with TTL {row.ttl} s"
        return True, str(key), f"{text}; but {against}" if against else text
    if wanted:
        return False, str(key), f"not published: {against}" if against else "about to be published"
    return None, str(key), f"still published: {against}" if against else "about to be removed"


def _consul(index: Index, vip: Address) -> list[NameState]:
    actual, desired = index.snapshot.actual.consul_services, index.snapshot.decision.desired.consul_services
    keys = [key for key in {**actual, **desired} if key.vip == vip]
    return [_service(index, key) for key in sorted(keys, key=str)]


def _service(index: Index, key: ConsulKey) -> NameState:
    actual = index.snapshot.actual.consul_services.get(key)
    wanted = index.snapshot.decision.desired.consul_services.get(key)
    against = name_refusal(index, "consul_services", key).text
    row = actual or wanted
    name = f"consul {row.name or key.service}" if row else str(key)
    if actual and wanted:
        text = f"{'passing' if actual.passing else 'critical'}: {actual.reason or 'no reason given'}"
        return (actual.passing or None), name, f"{text}; but {against}" if against else text
    if wanted:
        return False, name, f"not registered: {against}" if against else "about to be registered"
    return None, name, f"still registered: {against}" if against else "about to be deregistered"
