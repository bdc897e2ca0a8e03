"""The plan as JSON-ready dicts: every change with its reason, and with what the machine answered to it.

Pure: values in, dicts out. Nothing here decides: every reason is the one the decision gave.
"""

from __future__ import annotations

from anycastlb.core.http.names import original
from anycastlb.core.model import HTTP_TABLES, NAMES, NO_REASON, Change, Reason, Snapshot
from anycastlb.serving.views.format import TABLE_NOUNS, fields_of
from anycastlb.serving.views.index import Index
from anycastlb.serving.views.names import name_refusal
from anycastlb.serving.views.vips import View

LEAVING = Reason("row_leaving", "nothing asks for it any more; its flows are draining")
RELOAD = Reason("reload", "pools, listeners, headers or limits differ, which HAProxy takes only by a reload")
UNASKED = Reason("unasked", "no document asks for it")


def plan_view(snapshot: Snapshot, now: float) -> View:
    """What is still to be changed, in the order of the doing, with its reason and what the machine said to it."""
    index = Index(snapshot, now)
    return {"node": snapshot.inputs.node, "changes": [change_view(index, change) for change in snapshot.pending]}


def change_view(index: Index, change: Change) -> View:
    why, refused = _why(index, change), _refused(index, change)
    return {
        "verb": "move" if change.moved else change.verb,
        "table": change.table,
        "object": f"{TABLE_NOUNS[change.table]} {change.key}",
        "before": fields_of(change.old),
        "after": fields_of(change.new),
        "why": why.text,
        "why_code": why.code,
        "refused": refused.text,
        "refused_code": refused.code,
    }


def _refused(index: Index, change: Change) -> Reason:
    """Why the change was refused in the last cycle, by the machine or by the place of a name."""
    if change.table in NAMES:
        return name_refusal(index, change.table, change.key)
    return index.failure(change.table, change.key)


def _why(index: Index, change: Change) -> Reason:
    """The decision's own reason for the object this change is about."""
    decision, key = index.snapshot.decision, change.key
    if change.table in ("services", "destinations") and index.probes(getattr(key, "service", key)):
        return _of_probe(change)
    if (change.table, key) in decision.memory.leaving:
        return LEAVING
    if change.table == "destinations" and (backend := decision.backends.get(key)):
        return backend.reason
    if change.table in ("addresses", "routes") and (verdict := decision.verdicts.get(key)):
        return verdict.reason
    if change.table == "services" and (service := index.by_key.get(key)):
        return Reason(service.reason.code, f"{service.service}: {service.reason}", service.service)
    if change.table == "dns_records":
        return _of_record(change)
    if change.table == "consul_services" and change.new:
        return Reason("registration", str(change.new.reason))
    if change.table in HTTP_TABLES:
        return _of_http(index, change)
    if change.table in ("sysctls", "config"):
        return _of_setting(index, change)
    return UNASKED if change.new is None else NO_REASON


def _of_probe(change: Change) -> Reason:
    if change.new:
        return Reason("probe_path", "the way of a probe through IPVS (via forward)")
    return Reason("probe_over", "no probe goes this way any more")


def _of_record(change: Change) -> Reason:
    if change.new:
        return Reason("announced", f"{change.key.data if change.key.type != 'SRV' else 'its VIP'} is announced")
    return Reason("not_announced", "no node announces it, or no document asks for it")


def _of_http(index: Index, change: Change) -> Reason:
    """The decision's reason for the pool's backend, or the route, that a row of HAProxy is about."""
    verdicts, catalog = index.snapshot.decision.http, index.snapshot.inputs.catalog
    if change.table == "http_servers":
        pool = verdicts.pools.get(original(change.key.section))
        backend = pool.backends.get(original(change.key.server)) if pool else None
        if backend is not None:
            return backend.reason
    elif change.table == "http_sites" and change.new:
        named = (one.name for one in catalog.routes if change.key.host in one.hostnames)
        verdict = next((verdicts.routes[name] for name in named if name in verdicts.routes), None)
        if verdict is not None:
            return Reason(verdict.reason.code, f"{verdict.route}: {verdict.reason}", verdict.route)
    elif change.table == "http_engine" and change.new:
        return RELOAD
    elif change.table == "http_certificates" and change.new:
        return Reason("certificate_used", f"used by {', '.join(change.new.gateways)}")
    return UNASKED if change.new is None else NO_REASON


def _of_setting(index: Index, change: Change) -> Reason:
    if index.snapshot.inputs.originals.get(change.table, {}).get(change.key, change.old) == change.new:
        return Reason("given_back", "gives back what was found before the node first changed it")
    return Reason("takeover", "lets a node take over the flows of another")
