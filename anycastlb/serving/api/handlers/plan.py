"""A proposed catalog: what would be written, what this node would change for it, in order and why; and its import.

The decision is made by the same functions as for the catalog in force, and then thrown away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from aiohttp import web

from anycastlb.core.catalog.edit import ValidatedEdits, document, export_documents, imported
from anycastlb.core.catalog.shrink import admit
from anycastlb.core.decision import maglev, plan
from anycastlb.core.decision.decide import decide
from anycastlb.core.delta import in_one_piece
from anycastlb.core.fields import shown
from anycastlb.core.model import (
    Catalog,
    Change,
    CheckState,
    DestinationKey,
    DriverError,
    Edit,
    Result,
    Service,
    Snapshot,
    State,
    Tree,
)
from anycastlb.serving.api.handlers import commit
from anycastlb.serving.api.http.bodies import body, unconditional
from anycastlb.serving.api.http.context import Context, built, context
from anycastlb.serving.api.http.errors import ApiError, InvalidDocument, problem_views
from anycastlb.serving.views.changes import plan_view
from anycastlb.serving.views.http import NOWHERE

MODES = ("merge", "replace")
MAX_MOVES = 500
"""Services whose moved flows are worked out for one plan: each takes some milliseconds."""
NOTHING: Mapping[str, Any] = {"edits": [], "changes": [], "moves": [], "assumed_up": [], "held": None}
Flows = Mapping[Any, int]
"""The connections of every destination, active or not, and those of every service and every VIP."""


async def export(request: web.Request) -> web.Response:
    tree = await commit.load(context(request))
    return await built(partial(_exported, tree))


def _exported(tree: Tree) -> dict[str, Any]:
    documents, problems = export_documents(tree)
    return {"catalog": documents, "problems": problem_views(problems)}


async def propose(request: web.Request) -> web.Response:
    """What an import of this would do; nothing is written."""
    make, at = await _wanted(request), context(request)
    tree = await commit.load(at)
    flows = await _flows(at)
    return await built(partial(_proposed, at, tree, make, flows))


async def take(request: web.Request) -> web.Response:
    """Import: all of it, or nothing."""
    unconditional(request)
    make, at = await _wanted(request), context(request)
    flows = await _flows(at)
    view: dict[str, Any] = {}

    async def judge(tree: Tree) -> ValidatedEdits:
        nonlocal view
        validated = await asyncio.to_thread(commit.validated_edits, at, tree, make)
        view = await asyncio.to_thread(_view, at, validated, flows)
        return validated

    validated = await commit.judged(request, judge)
    return await built(lambda: {"changed": bool(validated.edits), **view})


async def _wanted(request: web.Request) -> commit.Make:
    mode = request.query.get("mode", "merge")
    if mode not in MODES:
        raise ApiError(400, "there is no such mode", "mode", f"merge or replace, not {shown(mode)}", "see docs/API.md")
    sent = await body(request, dict)
    documents = sent.get("catalog")
    if set(sent) != {"catalog"} or not isinstance(documents, dict):
        expected = '{"catalog": {"services/web": {...}, ...}}'
        raise ApiError(400, "the body has not the right shape", "body", expected, "send what GET /v1/export answers")
    return lambda tree: imported(tree, documents, mode == "replace")


async def _flows(at: Context) -> Flows | None:
    """The connections in the kernel; None if its counters cannot be read."""
    if at.statistics is None:
        return None
    try:
        counted = await at.statistics()
    except DriverError:
        return None
    flows = Counter[Any]()
    for key, row in counted.items():
        if isinstance(key, DestinationKey):
            for part in (key, key.service, key.service.address):
                flows[part] += row.active + row.inactive
    return flows


# ---------------------------------------------------------------- what would be (in a worker thread)


def _proposed(at: Context, tree: Tree, make: commit.Make, flows: Flows | None) -> dict[str, Any]:
    try:
        validated = commit.validated_edits(at, tree, make)
    except InvalidDocument as error:
        return {**NOTHING, "problems": problem_views(error.problems)}
    return _view(at, validated, flows)


def _view(at: Context, validated: ValidatedEdits, flows: Flows | None) -> dict[str, Any]:
    """The edits; and, unless problems forbid them, the changes on this node."""
    snapshot, now = at.snapshot(), at.clock()
    edits = [_edit(validated, edit) for edit in validated.edits]
    problems = problem_views(validated.problems)
    if validated.problems or not validated.edits:
        return {**NOTHING, "edits": edits, "problems": problems}
    then, assumed = _then(snapshot, validated.catalog, now)
    shown = plan_view(then, now)["changes"]
    return {
        "edits": edits,
        "changes": [{**view, "flows": _moved(change, flows)} for view, change in zip(shown, then.pending, strict=True)],
        "moves": _moves(snapshot, then),
        "assumed_up": assumed,
        "held": _held(at, snapshot, validated.catalog, now),
        "problems": problems,
    }


def _edit(validated: ValidatedEdits, edit: Edit) -> dict[str, Any]:
    before = validated.before.entries.get(edit.key)
    verb = "delete" if edit.value is None else "update" if before else "create"
    old = document(edit.key, before) if before else None
    new = None if edit.value is None else document(edit.key, validated.after.entries[edit.key])
    return {"key": edit.key, "verb": verb, "before": old, "after": new}


def _then(snapshot: Snapshot, catalog: Catalog, now: float) -> tuple[Snapshot, list[str]]:
    """The node as it would be with that catalog, and the backends that count as up because they were never checked."""
    up = CheckState(up=True, since=now, last=Result(True, "assumed up", 0.0, now))
    health, assumed = dict(in_one_piece(snapshot.inputs.health)), []
    before = snapshot.inputs.catalog
    running = {check for service in (*before.services, *before.pools) for check, _ in _checks(service)}
    for service in (*catalog.services, *catalog.pools):
        for check, name in _checks(service):
            if check not in snapshot.inputs.health and check not in running:
                health[check] = up
                assumed.append(f"{service.name}/{name}")
    inputs = replace(snapshot.inputs, catalog=catalog, health=health)
    decision = decide(inputs, snapshot.decision.memory, now)
    changes = plan.diff(snapshot.actual, decision.desired)
    then = replace(snapshot, inputs=inputs, decision=decision, failures=(), pending=changes)
    return then, list(dict.fromkeys(assumed))


def _checks(service: Service) -> list[tuple[Any, str]]:
    places = service.vips or (NOWHERE,)
    return [(service.check(vip, member), member.name) for vip in places for member in service.members(vip)]


def _moved(change: Change, flows: Flows | None) -> int | None:
    """How many flows a change touches: those of rows that are deleted, moved or get another weight.

    None if it cannot touch any, or the kernel's counters cannot be read."""
    if flows is None or change.old is None:
        return None
    if change.table == "destinations":
        touches = change.new is None or change.moved or change.new.weight != change.old.weight
        return flows.get(change.key, 0) if touches else None
    if change.new is None and change.table in ("services", "addresses", "routes"):
        return flows.get(change.key, 0)
    return None


def _moves(before: Snapshot, after: Snapshot) -> list[dict[str, Any]]:
    """The share of each ``mh`` service's flows that would go to another backend once everything leaving has left.

    It applies to new flows and to those that another node takes over. Established flows of this node keep their
    backends."""
    names = {service.key(vip): service.name for service in after.inputs.catalog.services for vip in service.vips}
    shares = maglev.moves(_settled(before), _settled(after), MAX_MOVES)
    return [
        {"service": names[key], "key": str(key), "share": round(share, 4)}
        for key, share in shares.items()
        if key in names
    ]


def _settled(snapshot: Snapshot) -> State:
    leaving = {key for table, key in snapshot.decision.memory.leaving if table == "destinations"}
    desired = snapshot.decision.desired
    return replace(desired, destinations={key: row for key, row in desired.destinations.items() if key not in leaving})


def _held(at: Context, snapshot: Snapshot, catalog: Catalog, now: float) -> str | None:
    """Why this node would hold the catalog back, and what to do then; None if it would not."""
    limits = at.settings.catalog
    current = snapshot.inputs.catalog
    shrink = admit(current, catalog, limits.max_shrink, limits.confirm, None, now)
    if shrink is None:
        return None
    return f"{len(shrink.lost)} of {shrink.of} VIPs would be lost at once: every node waits for `anycastlb confirm`"
