"""The word of the other nodes within one decision: what every gate and every pool has from ``belief`` and ``budget``.

Pure. It collects what one decision learns on its walk through the VIPs, and what the next one must remember of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from anycastlb import belief, gate
from anycastlb.budget import Budget
from anycastlb.model import Address, Doubt, Gate, Inputs, Memory, ServiceKey, Verdict
from anycastlb.pool import Keep, Pool

Name = tuple[str, ServiceKey]


class Council:
    """For one decision. ``pools``: every service as this node's own probes judge it."""

    def __init__(self, inputs: Inputs, memory: Memory, now: float, pools: Mapping[Name, Pool], vips: int) -> None:
        self._node, self._memory, self._now, self._pools = inputs.node, memory, now, pools
        self._found = belief.statuses(inputs.cluster)
        self._wall = inputs.wall + now
        self._budget = Budget(inputs.max_withdrawals, vips, memory.gates, self._found or (), self._wall)
        self.doubts: dict[Address, Doubt] = {}
        self.believed: dict[Name, float | None] = {}
        self.keeps: dict[Name, Keep] = {}
        """What stays in of each service although it is down, beside what its own policy keeps."""
        self.wakes: list[float] = []

    def case(self, vip: Address, services: belief.Judged, ready: bool, reason: str, refused: bool) -> belief.Case:
        """A VIP as local health judges it, and since when something is wrong with it.

        ``refused``: the machine refused the address itself.
        """
        before = self._memory.gates.get(vip)
        own: belief.Own = "unable" if refused else belief.own(services)
        case = belief.Case(
            self._node, vip, services, before is not None and before.open, ready, reason, own, None, self._now
        )
        doubt = belief.doubts(self._memory.doubts.get(vip), case.dead, not ready, self._now)
        if doubt is None:
            return case
        self.doubts[vip] = doubt
        return replace(case, doubt=doubt)

    def hear(self, case: belief.Case) -> belief.Opinion:
        """May the VIP be announced?"""
        opinion = belief.judge(case, self._found, self._budget)
        if opinion.wake is not None:
            self.wakes.append(opinion.wake)
        return opinion

    def believe(self, case: belief.Case) -> float:
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
            keep = belief.alive(self._found or (), case.vip, case.names, verdict.service, down)
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

    def settle(self, opinion: belief.Opinion, after: Gate, verdict: Verdict) -> tuple[Gate, Verdict]:
        """What the opinion leaves behind, now that the gate has moved."""
        if opinion.withdrawn:
            after = replace(after, withdrawn_wall=int(self._wall))
        if not opinion.kept or not after.open:
            return after, verdict
        for service in verdict.services:
            if service.condition.able:
                self.keeps.setdefault((service.service, service.key), belief.everyone(opinion.kept))
        return after, replace(verdict, kept=opinion.kept)
