"""How far this node leaves, and what the other steps of a decision make of that.

``node_drain`` knows the stages; this module takes out of all that is known what the next stage depends on.
"""

from __future__ import annotations

from collections.abc import Sequence

from anycastlb.core.decision import drain_peers, node_drain
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.pool import Pool, weigh
from anycastlb.core.decision.rows import Wanted, leaving_rows, wanted_rows
from anycastlb.core.model import Address, Inputs, Memory, NodeDrain, Reason


def drain_step(basis: Basis, judged: Sequence[Judgement]) -> tuple[NodeDrain | None, float | None]:
    """Advance this node's drain by one step, if it leaves; and when to decide again because of that."""
    inputs, memory = basis.inputs, basis.memory
    catalog, rules = inputs.catalog, inputs.policy.drain_rules
    drained = inputs.node in catalog.drained
    if not drained and not inputs.stopping:
        return None, None
    document = catalog.drains.get(inputs.node)
    asked = document.deadline if document is not None else None
    waiting = drained and (memory.node_drain is None or memory.node_drain.stage == "waiting")
    trouble, table = _stability(basis, judged) if waiting else (None, 0)
    facts = node_drain.DrainFacts(
        cause="stopping" if inputs.stopping else "drained",
        rules=rules,
        deadline=rules.deadline if asked is None else asked,
        announced=bool(memory.routes),
        marked=any(node_drain.COMMUNITY in route.communities for route in memory.routes.values()),
        has_peers=drain_peers.has_peers(inputs),
        trouble=trouble,
        table=table,
        traffic=inputs.traffic,
    )
    return node_drain.step(memory.node_drain, facts, basis.now)


def withdrawn(drain: NodeDrain | None) -> bool:
    """Has this node left so far that it announces nothing?"""
    return drain is not None and drain.stage in ("withdrawn", "drained")


def graceful(drain: NodeDrain | None) -> bool:
    """Does this node announce its routes with the community that asks the routers to prefer others?"""
    return drain is not None and drain.stage == "graceful"


def unused(drain: NodeDrain | None) -> bool:
    """Does nothing come any more, so that there is nothing to wait for?"""
    return drain is not None and drain.stage == "drained" and not drain.overdue


def cause(inputs: Inputs) -> Reason:
    """Why this node leaves."""
    if inputs.stopping:
        return Reason("node_stopping", "this node is stopping", inputs.node)
    return Reason("node_drained", f"this node is drained (drain/{inputs.node})", inputs.node)


def administrative(basis: Basis, drain: NodeDrain | None, vip: Address) -> Reason | None:
    """Why this node must not announce the VIP, if so: it has left, or leaves and did not announce it before."""
    left = withdrawn(drain) or (graceful(drain) and vip not in basis.memory.routes)
    return cause(basis.inputs) if left else None


def _stability(basis: Basis, judged: Sequence[Judgement]) -> tuple[Reason | None, int]:
    """Why the table is about to change, here or on another node, if it is; and a number that changes with the table."""
    inputs, memory, now = basis.inputs, basis.memory, basis.now
    weighed = ((item, basis.contained.of(item.vip, weigh, item, None, now)) for item in judged)
    pools = [(item, pool) for item, pool in weighed if pool is not None]
    rows = wanted_rows(pools)
    trouble = _unsettled(inputs, memory, pools, rows, now) or drain_peers.trouble(inputs, memory.routes)
    return trouble, hash((tuple(rows.items()), tuple(memory.routes)))


def _unsettled(
    inputs: Inputs, memory: Memory, pools: Sequence[tuple[Judgement, Pool]], rows: Wanted, now: float
) -> Reason | None:
    """Why this node's own table is about to change, if it is."""
    for table, key in leaving_rows(rows, memory.rows.items(), memory, inputs.idle, now):
        if table == "destinations" and ("services", key.service) in rows:
            return Reason("row_leaving", f"{key} is leaving", str(key))
    for _, pool in pools:
        for key, backend in pool.backends.items():
            if backend.weights.ramp < 1:
                return Reason("slow_start", f"{key} is in its slow start", str(key))
    for judged, _ in pools:
        if judged.verdict.unsettled:
            name = judged.verdict.service
            return Reason("not_checked", f"backends of {name} are not checked yet", name)
    return None
