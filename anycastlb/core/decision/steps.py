"""The steps of a decision that are taken for each service or VIP: assess, drain, peers, gates, weights, routes.

They are taken for some groups of VIPs (``vip_groups``), or for all of them. What fails in a step is contained.

Pure. Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from anycastlb.core.decision.assessment import assess
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.group_result import GroupParts
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.own_drain import drain_step, withdrawn
from anycastlb.core.decision.peer_votes import PeerVote, hear_peers
from anycastlb.core.decision.pool import Pool, weigh
from anycastlb.core.decision.routes import route_of
from anycastlb.core.decision.rows import Wanted, held_rows, wanted_rows
from anycastlb.core.decision.vip_gates import GateStep, shut_faulty, step_gates
from anycastlb.core.decision.vip_groups import Grouping, VipGroup
from anycastlb.core.model import Address, DestinationKey, Memory, NodeDrain, Route


@dataclass(frozen=True, slots=True)
class Steps:
    """What the steps of one decision have made of some groups of VIPs, by VIP."""

    judged: Sequence[Judgement]
    drain: NodeDrain | None
    wakes: Sequence[float]
    """When to decide again; without what the weights wait for."""
    by_vip: Mapping[Address, Sequence[Judgement]]
    votes: Mapping[Address, PeerVote]
    gates: Mapping[Address, GateStep]
    pools: Mapping[Address, Sequence[tuple[Judgement, Pool]]]
    routes: Mapping[Address, Route | None]

    def of_group(self, basis: Basis, group: VipGroup, steady: bool) -> GroupParts:
        """What they have made of one of the groups."""
        memory, faults = basis.memory, basis.contained.faults
        judged = [item for vip in group.vips for item in self.by_vip.get(vip, ())]
        pools = [item for vip in group.vips for item in self.pools.get(vip, ())]
        held: Wanted = {}
        rows: Wanted = {}
        if not (basis.inputs.stopping and withdrawn(self.drain)):
            held = held_rows(group.places, memory, pools)
            rows = {**held, **wanted_rows(pools)}
        return GroupParts(
            judged=judged,
            votes=[self.votes[vip] for vip in group.vips if vip in self.votes],
            gates=[self.gates[vip] for vip in group.vips],
            pools=pools,
            rows=rows,
            up_since=_up_since(held, judged, memory),
            routes={
                vip: route
                for vip in group.vips
                if (route := self.routes.get(vip)) is not None and self.gates[vip].verdict.open
            },
            steady=steady and not any(vip in faults for vip in group.vips),
        )


def take_steps(basis: Basis, grouping: Grouping, names: Iterable[Address]) -> Steps:
    """All steps that are taken for each service or VIP, of these groups."""
    groups = [grouping.groups[name] for name in names]
    contained = basis.contained

    judged = assess(basis, (place for group in groups for place in group.places))
    drain, drain_wake = drain_step(basis, judged)
    votes = hear_peers(basis, judged, drain)
    steps = step_gates(basis, drain, votes)
    routes = {vip: contained.of(vip, route_of, basis.inputs, drain, step.announces) for vip, step in steps.items()}
    pools = weigh_pools(basis, judged, votes, steps)
    gates = shut_faulty(basis, (vip for group in groups for vip in group.vips), judged, steps)

    by_vip: dict[Address, list[Judgement]] = {}
    for item in judged:
        by_vip.setdefault(item.vip, []).append(item)
    weighed: dict[Address, list[tuple[Judgement, Pool]]] = {}
    for pair in pools:
        weighed.setdefault(pair[0].vip, []).append(pair)
    return Steps(
        judged=judged,
        drain=drain,
        wakes=[
            *(wake for vote in votes for wake in vote.wakes),
            *(wake for wake in (drain_wake, *(item.wake for item in gates)) if wake is not None),
        ],
        by_vip=by_vip,
        votes={vote.case.vip: vote for vote in votes},
        gates={item.verdict.vip: item for item in gates},
        pools=weighed,
        routes=routes,
    )


def weigh_pools(
    basis: Basis, judged: Sequence[Judgement], votes: Sequence[PeerVote], steps: Mapping[Address, GateStep]
) -> list[tuple[Judgement, Pool]]:
    """The weights of all backends, now that it is known which the peers and the gates keep in.

    A VIP about which an earlier step has failed has none: its rows stay as they are.
    """
    contained = basis.contained
    by_vip = {vote.case.vip: vote for vote in votes}

    def one(item: Judgement) -> Pool:
        name = item.verdict.service, item.verdict.key
        keep = by_vip[item.vip].keeps(name, item.verdict.condition.able, steps[item.vip].gate.open)
        return weigh(item, keep, basis.now)

    sound = [item for item in judged if item.vip not in contained.faults]
    return [(item, pool) for item in sound if (pool := contained.of(item.vip, one, item)) is not None]


def _up_since(held: Wanted, judged: Sequence[Judgement], memory: Memory) -> dict[DestinationKey, float]:
    """Since when each backend has been up; of one whose row is held, as before."""
    before = {key: memory.up_since[key] for _, key in held if key in memory.up_since}
    return before | {key: since for item in judged for key, since in item.up_since.items()}
