"""How the other nodes' health reports change this decision: applied per VIP (gate) and per service (pool).

Pure. It collects what one decision learns on its walk through the VIPs, and what the next one must remember of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from anycastlb.core.decision import gate, peer_health
from anycastlb.core.decision.pool import KeptBackends, Pool
from anycastlb.core.decision.withdrawal_budget import WithdrawalBudget
from anycastlb.core.model import Address, Gate, Inputs, LocalTrouble, Memory, ServiceKey, Verdict

Name = tuple[str, ServiceKey]


class PeerVotes:
    """For one decision. ``pools``: every service as this node's own probes judge it."""

    def __init__(self, inputs: Inputs, memory: Memory, now: float, pools: Mapping[Name, Pool], vips: int) -> None:
        self._node, self._memory, self._now, self._pools = inputs.node, memory, now, pools
        self._found = peer_health.statuses(inputs.cluster)
        self._wall = inputs.wall + now
        self._budget = WithdrawalBudget(inputs.max_withdrawals, vips, memory.gates, self._found or (), self._wall)
        self.doubts: dict[Address, LocalTrouble] = {}
        self.believed: dict[Name, float | None] = {}
        self.keeps: dict[Name, KeptBackends] = {}
        """What stays in of each service although it is down, beside what its own policy keeps."""
        self.wakes: list[float] = []

    def case(
        self, vip: Address, services: peer_health.Judged, ready: bool, reason: str, refused: bool
    ) -> peer_health.Case:
        """A VIP as local health judges it, and since when something is wrong with it.

        ``refused``: the machine refused the address itself.
        """
        before = self._memory.gates.get(vip)
        own: peer_health.Own = "unable" if refused else peer_health.own(services)
        case = peer_health.Case(
            self._node, vip, services, before is not None and before.open, ready, reason, own, None, self._now
        )
        doubt = peer_health.doubts(self._memory.doubts.get(vip), case.dead, not ready, self._now)
        if doubt is None:
            return case
        self.doubts[vip] = doubt
        return replace(case, doubt=doubt)

    def hear(self, case: peer_health.Case) -> peer_health.Opinion:
        """May the VIP be announced?"""
        opinion = peer_health.judge(case, self._found, self._budget)
        if opinion.wake is not None:
            self.wakes.append(opinion.wake)
        return opinion

    def believe(self, case: peer_health.Case) -> float:
        """Let weights follow the peers', where they reach what this node does not; until when a gate waits for that.

        Until the peers can have seen the same trouble no weight is raised: it might have to be lowered again at once.
        It lasts until everything that the peers reach is up here too, or had the time to come up: a gate that opened
        with the first backend that is back would send the flows of all others elsewhere.
        """
        until = gate.NEVER
        for _, verdict in case.services:
            name = verdict.service, verdict.key
            if not verdict.condition.dead and name not in self._memory.believed:
                continue
            down = frozenset(backend.backend for backend in self._pools[name].backends.values() if not backend.up)
            keep = peer_health.alive(self._found or (), case.vip, case.names, verdict.service, down)
            if not keep.names:
                continue
            if verdict.condition.dead:
                soon = self._now < case.settled_at
                self.believed[name], self.keeps[name] = None, replace(keep, still=soon)
                if soon:
                    self.wakes.append(case.settled_at)
                continue
            back = self._memory.believed[name]
            since = self._now if back is None else back
            ends = since + verdict.condition.recovery
            if self._now < ends:
                self.believed[name], self.keeps[name] = since, keep
                self.wakes.append(ends)
                until = max(until, ends)
        return until

    def settle(self, opinion: peer_health.Opinion, after: Gate, verdict: Verdict) -> tuple[Gate, Verdict]:
        """What the opinion leaves behind, now that the gate has moved."""
        if opinion.withdrawn:
            after = replace(after, withdrawn_wall=int(self._wall))
        if not opinion.kept or not after.open:
            return after, verdict
        for service in verdict.services:
            if service.condition.able:
                self.keeps.setdefault((service.service, service.key), peer_health.all_backends(opinion.kept))
        return after, replace(verdict, kept=opinion.kept)
