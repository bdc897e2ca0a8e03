"""The nodes of the cluster as this one knows them. Reads only."""

from __future__ import annotations

import asyncio
from functools import partial

from aiohttp import web

from anycastlb.api import peers
from anycastlb.api.context import answer, built, context
from anycastlb.api.errors import Fault


async def nodes(request: web.Request) -> web.Response:
    at = context(request)
    return await built(partial(peers.nodes, at.snapshot(), at.clock()))


async def node(request: web.Request) -> web.Response:
    name, at = request.match_info["node"], context(request)
    snapshot = at.snapshot()
    view = await asyncio.to_thread(peers.node, snapshot, at.clock(), name)
    if view is None:
        known = ", ".join([snapshot.inputs.node, *snapshot.inputs.cluster.peers][:10])
        mend = "a node is known while its session lives, and ten minutes longer"
        raise Fault(404, f"there is no node {name[:100]!r}", name[:100], f"one of {known}", mend)
    return answer(view)
