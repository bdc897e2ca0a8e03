"""How the other nodes' health reports change this decision: applied per VIP (gate) and per service (pool).

Pure. ``hear_peers`` goes through all VIPs. ``hear`` takes one VIP as this node's own probes judge it, and returns what
this node concludes of it once the peers' reports count too: what its gate goes by, which backends stay in although they
are down, and when to look again.

Decision record: docs/decisions/0009-believing-the-other-nodes.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from anycastlb.core.decision import gate, peer_health, peer_reports
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.own_drain import administrative
from anycastlb.core.decision.pool import KeptBackends
from anycastlb.core.decision.withdrawal_budget import WithdrawalBudget, withdrawal_budget
from anycastlb.core.model import EMPTY, Address, NodeDrain, Reason, ServiceKey, Status

ServiceId: TypeAlias = tuple[str, ServiceKey]
"""One service on one VIP."""


@dataclass(frozen=True, slots=True)
class Following:
    """A service whose weights follow the peers', because they reach what this node does not."""

    since: float | None
    """Since when one of its backends is up here again; None while none is."""
    keep: KeptBackends
    until: float
    """When it ends by itself, or what it keeps changes; ``gate.NEVER``: not by the mere passing of time."""


@dataclass(frozen=True, slots=True)
class PeerVote:
    """What this node concludes of one VIP, the peers' reports included."""

    case: peer_health.Case
    opinion: peer_health.Opinion
    followed: Mapping[ServiceId, Following] = field(default_factory=lambda: EMPTY)

    @property
    def catching_up(self) -> float:
        """Until when the gate waits for the backends that the peers reach and this node does not yet."""
        ends = (item.until for item in self.followed.values() if item.since is not None)
        return max(ends, default=gate.NEVER)

    @property
    def wakes(self) -> tuple[float, ...]:
        """When to decide again."""
        ends = tuple(item.until for item in self.followed.values() if item.until != gate.NEVER)
        return ends if self.opinion.wake is None else (*ends, self.opinion.wake)

    def keeps(self, service: ServiceId, able: bool, still_open: bool) -> KeptBackends | None:
        """The backends of this service that stay in although they are down. ``still_open``: of the gate, by now."""
        if service in self.followed:
            return self.followed[service].keep
        kept = self.opinion.kept
        return peer_health.all_backends(kept) if kept and still_open and able else None


def hear_peers(basis: Basis, judged: Sequence[Judgement], drain: NodeDrain | None) -> tuple[PeerVote, ...]:
    """What the other nodes' reports change about each VIP. One after the other, as each may spend of the budget."""
    inputs, memory = basis.inputs, basis.memory
    vips: dict[Address, list[Judgement]] = {}
    for item in judged:
        vips.setdefault(item.vip, []).append(item)
    statuses = peer_reports.statuses(inputs.cluster)
    wall = inputs.wall + basis.now
    budget = withdrawal_budget(inputs.policy.max_withdrawals, basis.vips, memory.gates, statuses or (), wall)
    votes = []

    def one(vip: Address, items: Sequence[Judgement]) -> PeerVote:
        case = _case(basis, vip, items)
        refusal = administrative(basis, drain, vip)
        return hear(case, items, statuses, budget, memory.followed, refusal)

    for vip, items in vips.items():
        vote = basis.contained.of(vip, one, vip, items)
        if vote is not None:
            budget = budget.spend(vip) if vote.opinion.withdrawn else budget
            votes.append(vote)
    return tuple(votes)


def _case(basis: Basis, vip: Address, judged: Sequence[Judgement]) -> peer_health.Case:
    """The VIP as this node alone sees it."""
    memory, refusal, now = basis.memory, basis.refused.get(vip), basis.now
    services = [(item.service.announce, item.verdict) for item in judged]
    old = vip in basis.replaced or any(item.replaced for item in judged)
    ready, reason = (False, Reason("refused", refusal.text)) if refusal else gate.combine(services, old)
    own: peer_health.Own = "unable" if refusal else peer_health.own(services)
    before = memory.gates.get(vip)
    dead = frozenset(verdict.service for _, verdict in services if verdict.condition.dead)
    trouble = peer_health.local_trouble(memory.troubles.get(vip), dead, not ready, now)
    return peer_health.Case(
        basis.inputs.node, vip, services, before is not None and before.open, ready, reason, own, trouble, now
    )


def hear(
    case: peer_health.Case,
    judgements: Sequence[Judgement],
    statuses: Sequence[Status] | None,
    budget: WithdrawalBudget,
    followed: Mapping[ServiceId, float | None],
    refusal: Reason | None,
) -> PeerVote:
    """What to conclude of this VIP.

    ``followed``: what the last decision remembered of it; ``refusal``: why this node must not announce the VIP whatever
    anybody's health is.
    """
    opinion = peer_health.Opinion(False, refusal) if refusal else peer_health.judge(case, statuses, budget)
    followed_now = {
        (judged.verdict.service, judged.verdict.key): following
        for judged in judgements
        if (following := _following(case, judged, statuses or (), followed))
    }
    return PeerVote(case, opinion, followed_now)


def _following(
    case: peer_health.Case,
    judged: Judgement,
    statuses: Sequence[Status],
    followed: Mapping[ServiceId, float | None],
) -> Following | None:
    """Should the weights of this service follow the peers'?

    Until the peers can have seen the same trouble no weight is raised: it might have to be lowered again at once. It
    lasts until everything that the peers reach is up here too, or had the time to come up: a gate that opened with the
    first backend that is back would send the flows of all others elsewhere.
    """
    verdict = judged.verdict
    name, dead = (verdict.service, verdict.key), verdict.condition.dead
    if not dead and name not in followed:
        return None
    down = frozenset(member.backend.name for member in judged.members if not member.up)
    keep = peer_health.alive(statuses, case.vip, case.names, verdict.service, down)
    if not keep.names:
        return None
    if dead:
        early = case.now < case.settled_at
        return Following(None, replace(keep, still=early), case.settled_at if early else gate.NEVER)
    since = followed[name]
    since = case.now if since is None else since
    ends = since + verdict.condition.recovery
    return Following(since, keep, ends) if case.now < ends else None
