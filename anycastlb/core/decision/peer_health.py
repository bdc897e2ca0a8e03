"""Decide whether a VIP that fails our own probes is really down, by comparing with the peers' reports.

Theory of operation
-------------------

*The question.* A node that has lost its way to the backends sees the same as one whose backends have all died:
nothing answers. In the first case it must leave its traffic to the others, in the second its policy decides. Only the
other nodes' reports tell the two apart.

*What is compared.* Nodes publish what their own probes say (``VipSummary.own``, ``ServiceSummary.dead``), and never
what they concluded from others. So no two nodes can keep each other's gates open, or closed, by echo. A peer counts
only if it lives, can be read, is neither drained nor stopping, and judges the same services of the same VIP
(``informed``).

*What follows*, once local health alone would close the gate, or a whole service is dead here:

* *The isolated node*: a peer serves the VIP and reaches services of which this node reaches nothing, and this node
  reaches nothing that the peer does not. Then this gate closes, even if local policy would keep it open, and the
  weights here follow the peers' instead of going to 0, so that the table stays the same everywhere.
* *The last route* (``announce.last``): where no peer serves the VIP, one node keeps the route: the first by name of
  those that could. The others close once that node announces.
* *The limit* (``[cluster] max_withdrawals``): the gate stays open while the cluster has withdrawn too many VIPs
  within a minute (``withdrawal_budget``).
* Otherwise local health decides, at once.

*Time.* Where the peers' reports would make this node do what its own health does not, it waits until the statuses it
sees are from after the trouble began: ``GOSSIP``, and the time by which two nodes' probes may differ
(``settled_at``). Meanwhile an open gate stays open (kept: ``asks``).

*Why it is safe.* It is level-triggered: a function of this node's verdicts, of the statuses as they are known now,
and of since when the trouble lasts. Without statuses of peers (none are configured, or Consul is away) all of it is
plain local health. What the machine itself refuses to serve (``unable``) is never kept open.

Decision record: docs/decisions/0009-believing-the-other-nodes.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from anycastlb.core.decision import gate
from anycastlb.core.decision.peer_reports import announces, could_hold, dead, informed, serves
from anycastlb.core.decision.pool import KeptBackends
from anycastlb.core.decision.withdrawal_budget import WithdrawalBudget
from anycastlb.core.model import Address, Announce, LocalTrouble, Reason, ServiceVerdict, Status

GOSSIP = 3.0
"""Seconds until the others know what a node has noticed."""
Judged = Sequence[tuple[Announce, ServiceVerdict]]
Own = Literal["well", "ill", "unable"]
Kept = Literal["", "asks", "last", "limit"]
KEPT: Mapping[Kept, Reason] = {
    "asks": Reason("kept_asks", "kept until the peers can have seen the same"),
    "last": Reason("kept_last", "kept with the last route (last = keep)"),
    "limit": Reason("kept_limit", "kept while its withdrawal waits (max_withdrawals)"),
}
"""Why the backends of a gate that is kept open are used although they are down."""


@dataclass(frozen=True, slots=True)
class Case:
    """One VIP as local health alone judges it."""

    node: str
    vip: Address
    services: Judged
    open: bool
    """So far."""
    ready: bool
    reason: Reason
    own: Own
    trouble: LocalTrouble | None
    now: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(verdict.service for _, verdict in self.services))

    @property
    def dead(self) -> frozenset[str]:
        return frozenset(verdict.service for _, verdict in self.services if verdict.condition.dead)

    @property
    def guarded(self) -> bool:
        """Does any of its services want the last route kept?"""
        return any(announce.last == "keep" for announce, _ in self.services)

    @property
    def settled_at(self) -> float:
        cycle = max(verdict.condition.cycle for _, verdict in self.services)
        return (self.trouble.since if self.trouble else self.now) + cycle + GOSSIP


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the gate goes by, in place of local health."""

    ready: bool
    reason: Reason
    kept: Kept = ""
    wake: float | None = None
    withdrawn: bool = False
    """It closes, and the budget has counted it."""


def own(services: Judged) -> Own:
    """What this node's probes say of the VIP, for other nodes to read."""
    if all(verdict.condition.well for _, verdict in services):
        return "well"
    if gate.combine([(a, replace(v, open=v.condition.well)) for a, v in services])[0]:
        return "well"
    return "ill" if gate.combine([(a, replace(v, open=v.condition.able)) for a, v in services])[0] else "unable"


def local_trouble(before: LocalTrouble | None, lost: frozenset[str], shut: bool, now: float) -> LocalTrouble | None:
    """What is wrong now, and since when; None if nothing is."""
    if not lost and not shut:
        return None
    if before is not None and lost <= before.dead and shut <= before.shut:
        return LocalTrouble(lost, shut, before.since)
    return LocalTrouble(lost, shut, now)


def judge(case: Case, known: Sequence[Status] | None, budget: WithdrawalBudget) -> Opinion:
    """May the VIP be announced? ``known``: the peers' ``statuses``."""
    content = Opinion(case.ready, case.reason)
    if case.trouble is None or case.own == "unable":
        return content
    peers = informed(known or (), case.vip, case.names)
    serving = [status for status in peers if serves(status, case.vip, case.names)]
    better = [status for status in serving if dead(status, case.vip, case.names) < case.dead]
    if case.ready and not better:
        return content
    case = replace(case, reason=_peers_reason(case, better, len(peers)))
    if not case.open:
        return _closed(case, known, peers, serving)
    settled = case.now >= case.settled_at
    if not settled and peers and (case.ready or case.guarded):
        return _asks(case)
    if case.guarded and not serving:
        kept = _last(case, known, peers)
        if kept is not None:
            return kept
    return _withdraw(case, settled, bool(serving), peers, budget)


def _peers_reason(case: Case, better: Sequence[Status], peers: int) -> Reason:
    if not better:
        return case.reason
    lost = [verdict for _, verdict in case.services if verdict.condition.dead]
    names = "" if len(case.services) == 1 else f"{', '.join(verdict.service for verdict in lost)}: "
    total = sum(verdict.total for verdict in lost)
    text = f"{names}0/{total} backends up; {len(better)} of {peers} peers reach these backends"
    return Reason("peers_reach", text, lost[0].service if names else "")


def _asks(case: Case) -> Opinion:
    reason = case.reason.also("kept open until the peers can have seen the same", "kept_asks")
    return Opinion(True, reason, "" if case.ready else "asks", case.settled_at)


def _closed(case: Case, known: Sequence[Status] | None, peers: Sequence[Status], serving: Sequence[Status]) -> Opinion:
    """A gate that is closed: only the holder of the last route opens it again."""
    no = Opinion(False, case.reason)
    if not case.guarded or known is None or serving:
        return no
    if holder(case, peers) != case.node:
        return replace(no, reason=_elsewhere(case, peers))
    if any(verdict.unsettled for _, verdict in case.services):
        return no
    if case.now < case.settled_at:
        return replace(no, wake=case.settled_at)
    return Opinion(True, case.reason.also("opened as the last route (last = keep)", "kept_last"), "last")


def holder(case: Case, peers: Iterable[Status]) -> str:
    """The node that keeps the last route."""
    return min([case.node, *(status.node for status in peers if could_hold(status, case.vip))])


def _last(case: Case, known: Sequence[Status] | None, peers: Sequence[Status]) -> Opinion | None:
    """An open gate as the last route, as far as is known; None if another node has it."""
    kept = "kept as the last route (last = keep)"
    if known is None:
        return Opinion(True, case.reason.also(f"{kept}: nothing is known of other nodes", "kept_last"), "last")
    name = holder(case, peers)
    if name == case.node:
        return Opinion(True, case.reason.also(kept, "kept_last"), "last")
    if _holds(name, case, peers):
        return None
    return Opinion(True, case.reason.also(f"{kept} until {name} announces it", "kept_last"), "last")


def _holds(name: str, case: Case, peers: Iterable[Status]) -> bool:
    """Does the holder's route stand?"""
    return any(status.node == name and announces(status, case.vip) for status in peers)


def _elsewhere(case: Case, peers: Sequence[Status]) -> Reason:
    """Why a gate is closed that might have been kept as the last route."""
    name = holder(case, peers)
    if not _holds(name, case, peers):
        return case.reason
    return case.reason.also(f"{name} keeps the last route", "last_elsewhere")


def _withdraw(case: Case, settled: bool, served: bool, peers: Sequence[Status], budget: WithdrawalBudget) -> Opinion:
    """Close, if the cluster can bear it."""
    no = Opinion(False, _elsewhere(case, peers) if case.guarded and not served else case.reason)
    if budget.limit is None or (settled and (served or case.guarded)):
        return no
    if budget.allows(case.vip):
        return replace(no, withdrawn=True)
    if served:
        return _asks(case)
    waits = (
        f"its withdrawal waits: {budget.spent} VIPs were withdrawn by health within a minute, "
        f"and cluster.max_withdrawals allows {budget.limit}"
    )
    return Opinion(True, case.reason.also(waits, "kept_limit"), "limit", case.now + budget.wait)


# ---------------------------------------------------------------- its backends


def alive(
    known: Iterable[Status], vip: Address, names: Sequence[str], service: str, backends: Iterable[str]
) -> KeptBackends:
    """The backends of a service that nodes which serve the VIP reach."""
    peers = informed(known, vip, names)
    reach = [s for s in peers if serves(s, vip, names) and service not in dead(s, vip, names)]
    candidates = tuple(backends)
    up = frozenset(name for status in reach for name in candidates if name not in status.services[service][vip].down)
    why = Reason("kept_peers", f"kept, as {len(reach)} of {len(peers)} peers reach this service")
    return KeptBackends(up, why)


def all_backends(kept: Kept) -> KeptBackends:
    """An open gate that nobody's probes justify needs all backends of a service of which none is up."""
    return KeptBackends(None, KEPT[kept])
