"""A ``Snapshot`` as JSON-ready dicts: the whole picture of one node, and whether it is alive and ready.

Pure: values in, dicts out; ``now`` is monotonic seconds. Durations are seconds in fields that end in ``_seconds``,
``None`` where something never happened. Nothing here decides: every reason is the one the decision gave.
"""

from __future__ import annotations

from anycastlb import __version__
from anycastlb.adapters.cluster import status_document
from anycastlb.core.decision.sessions import known_reason, known_state
from anycastlb.core.model import Problem, Snapshot
from anycastlb.serving.views.changes import change_view
from anycastlb.serving.views.cluster import cluster_brief, drain_view
from anycastlb.serving.views.events import moment
from anycastlb.serving.views.http import http_view
from anycastlb.serving.views.index import Index
from anycastlb.serving.views.names import record_stores
from anycastlb.serving.views.vips import View, vip_view


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
        "http": http_view(index),
        "leaving": _leaving(index),
        "problems": [
            problem_view(problem) for problem in (*snapshot.inputs.catalog.problems, *snapshot.inputs.cluster.problems)
        ],
        "failures": [change_view(index, f.change) for f in snapshot.failures],
        "pending": len(snapshot.pending),
    }


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
            {
                "peer": s.peer,
                "state": known_state(s),
                "since_seconds": index.age(s.since),
                "reason": known_reason(s),
            }
            for s in speaker.sessions
        ],
        "rejected": {str(vip): reason for vip, reason in speaker.rejected.items()},
    }


def _leaving(index: Index) -> list[View]:
    return [
        {"table": table, "object": str(key), "for_seconds": index.left(item.until)}
        for (table, key), item in index.snapshot.decision.memory.leaving.items()
    ]


def problem_view(problem: Problem) -> View:
    return {"key": problem.key, "path": problem.path, "expected": problem.expected, "line": problem.line}
