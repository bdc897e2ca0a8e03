"""A ``Snapshot`` as JSON-ready dicts: the whole picture, the plan, the journal, alive and ready.

Pure: values in, dicts out; ``now`` is monotonic seconds. Durations are seconds in fields that end in ``_seconds``,
``None`` where something never happened. Nothing here decides: every reason is the one the decision gave.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from anycastlb import __version__
from anycastlb.adapters.cluster import status_document
from anycastlb.adapters.system.journal import EventRecord
from anycastlb.core.model import NAMES, NO_REASON, Address, Change, Problem, Reason, Result, Service, Snapshot
from anycastlb.serving.views.cluster import cluster_brief, drain_view
from anycastlb.serving.views.evidence import Run, runs
from anycastlb.serving.views.format import TABLE_NOUNS, UNDECIDED, fields_of, reason_fields
from anycastlb.serving.views.index import Index, Seat
from anycastlb.serving.views.names import name_refusal, record_stores

View = dict[str, Any]

NO_LONGER = Reason("row_leaving", "no longer in the catalog; its flows are draining")
LEAVING = Reason("row_leaving", "nothing asks for it any more; its flows are draining")
UNASKED = Reason("unasked", "no document asks for it")


def status_view(snapshot: Snapshot, now: float, source: str = "") -> View:
    """The whole picture of one node. ``source`` says in words where its catalog comes from."""
    index = Index(snapshot, now)
    return picture(index, source, [vip_view(index, vip) for vip in index.vips()])


def picture(index: Index, source: str, vips: object) -> View:
    """The whole picture around its VIPs."""
    snapshot, now = index.snapshot, index.now
    return {
        "node": _node(index),
        "catalog": _catalog(index, source),
        "speaker": _speaker(index),
        "cluster": cluster_brief(snapshot, now),
        "names": record_stores(index),
        "vips": vips,
        "leaving": _leaving(index),
        "problems": [
            problem_view(found) for found in (*snapshot.inputs.catalog.problems, *snapshot.inputs.cluster.problems)
        ],
        "failures": [_change(index, f.change) for f in snapshot.failures],
        "pending": len(snapshot.pending),
    }


def plan_view(snapshot: Snapshot, now: float) -> View:
    """What is still to be changed, in the order of the doing, with its reason and what the machine said to it."""
    index = Index(snapshot, now)
    return {"node": snapshot.inputs.node, "changes": [_change(index, change) for change in snapshot.pending]}


def event_views(records: Iterable[EventRecord], after: int = 0) -> View:
    """Journal entries above ``after``, oldest first; ``last`` is what to ask for next."""
    told = [
        {
            "id": record.id,
            "at": moment(record.at_wall),
            "kind": record.event.kind,
            "object": record.event.object,
            "level": record.event.level,
            "subject": record.event.subject,
            "before": record.event.before,
            "after": record.event.after,
            "reason": record.event.reason,
            "code": record.event.code,
            "by": record.event.by,
        }
        for record in records
    ]
    return {"events": [item for item in told if int(str(item["id"])) > after], "last": told[-1]["id"] if told else 0}


def liveness(snapshot: Snapshot, now: float, alive_at: float, bound: float) -> View:
    """Does the reconciler still make progress? ``alive_at``: its last sign of life; ``bound``: seconds it may take.

    Before the first catalog is read there is nothing to make progress with: that is not ready, but alive.
    """
    silent = round(max(0.0, now - alive_at), 3)
    waiting = not snapshot.cycle and not snapshot.inputs.feed.loaded
    return {
        "alive": waiting or silent <= bound,
        "waiting_for_catalog": waiting,
        "cycle": snapshot.cycle,
        "silent_seconds": silent,
        "bound_seconds": bound,
    }


def readiness(snapshot: Snapshot) -> View:
    """Is the node in sync and able to serve? If not, ``missing`` says what it waits for, in words."""
    missing = status_document.missing(snapshot)
    return {"ready": not missing, "missing": missing}


def moment(at_wall: float) -> str | None:
    """Wall-clock seconds as RFC 3339 in UTC with milliseconds; None for "never"."""
    if not at_wall or not math.isfinite(at_wall):
        return None
    return status_document.moment(at_wall)


def _node(index: Index) -> View:
    inputs = index.snapshot.inputs
    return {
        "name": inputs.node,
        "version": __version__,
        "drained": inputs.node in inputs.catalog.drained,
        "drain": drain_view(index.snapshot, index.now),
        "stopping": inputs.stopping,
        "cycle": index.snapshot.cycle,
        "at": moment(index.snapshot.at_wall),
        "age_seconds": index.age(index.snapshot.at) if index.snapshot.cycle else None,
    }


def _catalog(index: Index, source: str) -> View:
    feed, catalog = index.snapshot.inputs.feed, index.snapshot.inputs.catalog
    held = feed.held
    return {
        "source": source,
        "loaded": feed.loaded,
        "connected": feed.connected,
        "since_seconds": index.age(feed.since),
        "error": feed.error,
        "cached": feed.cached,
        "index": catalog.index,
        "services": len(catalog.services),
        "vips": len(catalog.vips),
        "problems": len(catalog.problems),
        "drained_nodes": sorted(catalog.drained),
        "held": held
        and {
            "lost": [str(vip) for vip in held.lost],
            "of": held.of,
            "since_seconds": index.age(held.since),
            "believed_in_seconds": None if held.until is None else index.left(held.until),
        },
    }


def _speaker(index: Index) -> View:
    speaker = index.snapshot.speaker
    return {
        "connected": speaker.connected,
        "version": speaker.version,
        "sessions": [
            {"peer": s.peer, "state": s.state, "since_seconds": index.age(s.since), "reason": s.reason}
            for s in speaker.sessions
        ],
        "rejected": {str(vip): reason for vip, reason in speaker.rejected.items()},
    }


def vip_view(index: Index, vip: Address) -> View:
    """One VIP with its services and their backends."""
    services = [service_view(index, service, vip, _backends(index, service, vip)) for service in index.on(vip)]
    return vip_around(index, vip, services)


def _backends(index: Index, service: Service, vip: Address) -> list[View]:
    return [backend_view(index, seat, check_view(index, seat)) for seat in index.seats(service, vip)]


def vip_around(index: Index, vip: Address, services: object) -> View:
    """One VIP around its services."""
    verdict = index.verdict(vip)
    leaving = not index.on(vip)
    undecided = NO_LONGER if leaving else UNDECIDED
    return {
        "vip": str(vip),
        "open": bool(verdict and verdict.open),
        **reason_fields(verdict.reason if verdict else undecided),
        "kept": verdict.kept if verdict else "",
        "since_seconds": index.age(verdict.since) if verdict else None,
        "leaving": leaving,
        "address": vip in index.snapshot.actual.addresses,
        "announced": vip in index.snapshot.actual.routes,
        "sessions_up": [session.peer for session in index.carriers(vip) if session.state == "up"],
        "rejected": index.snapshot.speaker.rejected.get(vip, ""),
        "damping": _damping(index, vip),
        "services": services,
    }


def _damping(index: Index, vip: Address) -> View | None:
    damping, verdict, gate = index.damping(vip), index.verdict(vip), index.gate(vip)
    if damping is None:
        return None
    return {
        "penalty": round(verdict.penalty, 1) if verdict else 0.0,
        "suppressed": bool(gate and gate.suppressed_since is not None),
        "suppress": damping.suppress,
        "reuse": damping.reuse,
        "half_life_seconds": damping.half_life,
        "longest_seconds": damping.longest,
    }


def service_view(index: Index, service: Service, vip: Address, backends: object) -> View:
    key, verdict = service.key(vip), index.service(vip, service.name)
    return {
        "service": service.name,
        "key": str(key),
        "protocol": service.protocol,
        "port": service.port,
        "scheduler": service.virtual.scheduler,
        "flags": sorted(service.virtual.flags),
        "open": bool(verdict and verdict.open),
        "up": verdict.up if verdict else None,
        "total": verdict.total if verdict else None,
        "needed": verdict.needed if verdict else None,
        "min_backends": str(service.announce.min_backends),
        "reopen": str(service.announce.reopen) if service.announce.reopen else None,
        "unsettled_seconds": verdict.unsettled if verdict else 0.0,
        "backends_from": str(service.backends_from) if service.backends_from else None,
        **reason_fields(verdict.reason if verdict else UNDECIDED),
        "programmed": key in index.snapshot.actual.services,
        "refused": index.refusal("services", key),
        "refused_code": index.refusal_code("services", key),
        "backends": backends,
    }


def backend_view(index: Index, seat: Seat, check: object) -> View:
    backend, verdict = seat.backend, seat.verdict
    return {
        "backend": backend.name,
        "address": str(backend.address),
        "port": backend.port,
        "forward": backend.forward,
        "drain": backend.drain,
        "fallback": backend.fallback,
        "up": verdict.up if verdict else None,
        "weight": verdict.weight if verdict else None,
        "nominal_weight": backend.weight,
        "weights": verdict
        and {
            "nominal": verdict.weights.nominal,
            "admin": verdict.weights.admin,
            "health": verdict.weights.health,
            "ramp": verdict.weights.ramp,
        },
        **reason_fields(verdict.reason if verdict else UNDECIDED),
        "notes": list(verdict.notes) if verdict else [UNDECIDED.text],
        "kernel_weight": seat.row.weight if seat.row else None,
        "leaves_in_seconds": None if seat.leaves is None else index.left(seat.leaves),
        "refused": index.refusal("destinations", seat.key),
        "refused_code": index.refusal_code("destinations", seat.key),
        "check": check,
    }


def check_view(index: Index, seat: Seat) -> View:
    check, state, probe_path = seat.check, seat.state, index.probe_path(seat.check)
    last, (good, of) = state.last if state else None, state.record if state else (0.0, 0)
    percent, drain = state.asks if state else (None, False)
    return {
        "check": str(check),
        "interval_seconds": check.interval,
        "fast_interval_seconds": check.fast_interval,
        "down_interval_seconds": check.down_interval,
        "timeout_seconds": check.timeout,
        "rise": check.rise,
        "fall": check.fall,
        "up": state.up if state else None,
        "since_seconds": index.age(state.since) if state and state.up is not None else None,
        "streak": state.streak if state else 0,
        "last": result_view(index, last) if last else None,
        "runs": [_run(index, run) for run in runs(state)],
        "record": {"good": round(good, 1), "of": of},
        "asks": {"percent": percent, "drain": drain},
        "via": check.via
        and {
            "forward": check.via.forward,
            "address": str(check.via.address),
            "mark": probe_path if isinstance(probe_path, int) else None,
            "problem": probe_path if isinstance(probe_path, str) else "",
        },
    }


def result_view(index: Index, found: Result) -> View:
    return {
        "ok": found.ok,
        "detail": found.detail,
        "duration_seconds": round(found.duration, 6),
        "age_seconds": index.age(found.at),
    }


def _run(index: Index, run: Run) -> View:
    durations = [result.duration for result in run.results]
    return {
        "ok": run.last.ok,
        "detail": run.last.detail,
        "times": len(run.results),
        "earlier": run.earlier,
        "newest_seconds": index.age(run.last.at),
        "oldest_seconds": index.age(run.first.at),
        "fastest_seconds": round(min(durations), 6),
        "slowest_seconds": round(max(durations), 6),
    }


def _leaving(index: Index) -> list[View]:
    return [
        {"table": table, "object": str(key), "for_seconds": index.left(item.until)}
        for (table, key), item in index.snapshot.decision.memory.leaving.items()
    ]


def problem_view(problem: Problem) -> View:
    return {"key": problem.key, "path": problem.path, "expected": problem.expected, "line": problem.line}


def _change(index: Index, change: Change) -> View:
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


def _of_setting(index: Index, change: Change) -> Reason:
    if index.snapshot.inputs.originals.get(change.table, {}).get(change.key, change.old) == change.new:
        return Reason("given_back", "gives back what was found before the node first changed it")
    return Reason("takeover", "lets a node take over the flows of another")
