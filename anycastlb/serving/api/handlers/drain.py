"""Draining nodes over HTTP, within the cluster's budget.

Every drain is written together with one common key and expects its last version. So of two drains at once, through any
two nodes, one is refused, and sees the other when it tries again. A drain that is written to the store without the API
is obeyed by the nodes, and shown wherever the budget is.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from anycastlb.adapters.cluster.status_document import moment
from anycastlb.core import fields
from anycastlb.core.catalog.drain import MAX_DEADLINE
from anycastlb.core.catalog.edit import LOCK, applied, drain, drained, undrain
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.decision import drain_peers, sessions
from anycastlb.core.model import Address, Conflict, Edit, Snapshot, SourceError, Tree
from anycastlb.serving.api.handlers import commit
from anycastlb.serving.api.handlers.write import NAMES
from anycastlb.serving.api.http.bodies import body, nothing, unconditional
from anycastlb.serving.api.http.context import Context, answer, caller, context
from anycastlb.serving.api.http.errors import ApiError

TURNS = 10
"""How often a drain is tried again because another one was quicker."""
FRESH = 3.0
"""Seconds in which what the other nodes announce must have been heard."""
ATTEMPTS = 10
"""Looks within that time."""
SHAPE = '{"reason": "...", "deadline": "2m", "force": true}, each if wanted'
Make = Callable[[Tree], Awaitable[Sequence[Edit]]]


async def drain_node(request: web.Request) -> web.Response:
    unconditional(request)
    sent = _drain_document(await body(request, dict, optional=True) or {})
    node, at = _named(request), context(request)
    document = {**sent, "by": caller(request).name, "since": moment(time.time())}

    async def make(tree: Tree) -> Sequence[Edit]:
        new = drained(tree, node) is None
        if new and not sent.get("force"):
            await _allow(at, tree, node)
        return drain(tree, node, document, uuid.uuid4().hex)

    return await _written(request, node, make)


async def undrain_node(request: web.Request) -> web.Response:
    unconditional(request)
    await nothing(request)
    node = _named(request)

    async def make(tree: Tree) -> Sequence[Edit]:
        return undrain(tree, node)

    return await _written(request, node, make)


async def _written(request: web.Request, node: str, make: Make) -> web.Response:
    at = context(request)
    for turn in range(TURNS):
        tree = await commit.load(at)
        edits = await make(tree)
        try:
            if edits:
                await at.store.commit(edits)
            break
        except (Conflict, SourceError) as exc:
            if not isinstance(exc, Conflict) or turn == TURNS - 1:
                raise commit.lost(exc, edits[0].key) from exc
    shown = [edit for edit in edits if edit.key != LOCK]
    if shown:
        await commit.report(request, tree, shown)
    document = drained(applied(tree, edits), node)
    return answer({"changed": bool(edits), "document": document})


# ---------------------------------------------------------------- may it be?


async def _allow(at: Context, tree: Tree, node: str) -> None:
    """Raises ``ApiError`` if the node must not be drained now."""
    if fault := overspent(at.snapshot().inputs.policy.drain_rules.max_drained, tree, node):
        raise fault
    for _ in range(ATTEMPTS):
        if not (alone := _alone(at.snapshot(), node)):
            return
        await asyncio.sleep(FRESH / ATTEMPTS)
    raise _last(alone, node)


def overspent(limit: int, tree: Tree, node: str) -> ApiError | None:
    """The error if the budget does not allow another drained node."""
    drained = sorted(key.removeprefix("drain/") for key in tree.entries if key.startswith("drain/"))
    if not limit or len(drained) < limit:
        return None
    names = ", ".join(drained[:5]) + (" and more" if len(drained) > 5 else "")
    what = f"{names} {'is' if len(drained) == 1 else 'are'} drained already, and at most {limit} may be at once"
    mend = f"undrain {drained[0]} first, raise max_drained in [cluster] of node.toml, or use --force"
    return ApiError(409, what, f"drain/{node}", f"fewer than {limit} drained {'node' if limit == 1 else 'nodes'}", mend)


def _last(alone: Sequence[Address], node: str) -> ApiError:
    more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
    what = f"no other living node announces {alone[0]}{more}"
    mend = "bring another node up first (anycastlb status), or use --force"
    return ApiError(409, what, f"drain/{node}", "every VIP announced by another node that stays", mend)


def _alone(snapshot: Snapshot, node: str) -> list[Address]:
    """The VIPs that no node would announce any more, as far as this node knows the others."""
    inputs, cluster = snapshot.inputs, snapshot.inputs.cluster
    if not cluster.follows:
        return []
    own = sessions.carried(snapshot.actual.routes, snapshot.speaker)
    if node == inputs.node:
        return drain_peers.last_announced(cluster, sorted(own, key=str))
    peer = cluster.peers.get(node)
    if peer is None or peer.status is None or not peer.alive:
        return []
    theirs = [vip for vip, summary in peer.status.vips.items() if summary.announced]
    stays = inputs.node not in inputs.catalog.drained and not inputs.stopping
    return drain_peers.last_announced(cluster, [vip for vip in theirs if not (stays and vip in own)], node)


# ---------------------------------------------------------------- what was sent


def _drain_document(sent: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in sent.items() if value is not None and value != ""}
    kinds = {"reason": str, "deadline": str | int, "force": bool}
    if set(sent) - set(kinds) or not all(isinstance(value, kinds[name]) for name, value in given.items()):
        raise ApiError(400, "the body has not the right shape", "body", SHAPE, "send only that")
    if "deadline" in given:
        try:
            if fields.duration(given["deadline"]) > MAX_DEADLINE:
                raise ValueError(f'a duration up to "1d", not {fields.shown(given["deadline"])}')
        except ValueError as exc:
            raise ApiError(400, "the deadline is no duration", "deadline", str(exc), "send such a one") from exc
    if not given.get("force"):
        given.pop("force", None)
    return given


def _named(request: web.Request) -> str:
    node = request.match_info["node"]
    if not NAME.fullmatch(node):
        raise ApiError(404, "no node can have that name", node[:200], NAMES, "check the path")
    return node
