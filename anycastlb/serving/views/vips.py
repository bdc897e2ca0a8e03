"""VIPs with their services, backends and checks as JSON-ready dicts.

Pure: values in, dicts out. Nothing here decides: every reason is the one the decision gave.
"""

from __future__ import annotations

from typing import Any

from anycastlb.core.model import Address, Reason, Result, Service
from anycastlb.serving.views.evidence import Run, runs
from anycastlb.serving.views.format import UNDECIDED, reason_fields
from anycastlb.serving.views.index import Index, Seat

View = dict[str, Any]
NO_LONGER = Reason("row_leaving", "no longer in the catalog; its flows are draining")


def vip_view(index: Index, vip: Address) -> View:
    """One VIP with its services and their backends."""
    services = [service_view(index, service, vip, _backends(index, service, vip)) for service in index.on(vip)]
    return vip_around(index, vip, services)


def _backends(index: Index, service: Service, vip: Address) -> list[View]:
    return [backend_view(index, seat, check_view(index, seat)) for seat in index.seats(service, vip)]


def vip_around(index: Index, vip: Address, services: object) -> View:
    """One VIP around its services."""
    verdict = index.verdict(vip)
    leaving = index.leaving(vip)
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
        "gateways": [gateway.name for gateway in index.gateways_on(vip)],
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


def result_view(index: Index, result: Result) -> View:
    return {
        "ok": result.ok,
        "detail": result.detail,
        "duration_seconds": round(result.duration, 6),
        "age_seconds": index.age(result.at),
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
