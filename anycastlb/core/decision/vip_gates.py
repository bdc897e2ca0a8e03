"""May each VIP be announced? The gates of one decision, from what its services ask and its peers report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from anycastlb.core.decision import gate, node_drain
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.judgement import Judgement
from anycastlb.core.decision.own_drain import administrative, cause, graceful
from anycastlb.core.decision.peer_votes import PeerVote
from anycastlb.core.model import Address, Announce, Gate, NodeDrain, ServiceVerdict, Verdict


@dataclass(frozen=True, slots=True)
class GateStep:
    """One VIP's gate after this decision."""

    verdict: Verdict
    gate: Gate
    wake: float | None
    """When it opens by the mere passing of time; None: it does not."""
    announces: tuple[Announce, ...]
    """How each of the VIP's services is to be announced."""


def step_gates(basis: Basis, drain: NodeDrain | None, votes: Iterable[PeerVote]) -> dict[Address, GateStep]:
    """Every VIP's gate after this decision."""
    steps = {vote.case.vip: basis.contained.of(vote.case.vip, step_gate, basis, drain, vote) for vote in votes}
    return {vip: step for vip, step in steps.items() if step is not None}


def step_gate(basis: Basis, drain: NodeDrain | None, vote: PeerVote) -> GateStep:
    """May this VIP be announced?"""
    case, opinion = vote.case, vote.opinion
    rules = tuple(announce for announce, _ in case.services)
    verdicts = tuple(verdict for _, verdict in case.services)
    policy = gate.GatePolicy(
        hold_up=max(announce.hold_up for announce in rules),
        hold_down=max(announce.hold_down for announce in rules),
        damping=next((announce.damping for announce in rules if announce.damping), None),
    )
    facts = gate.GateFacts(
        opinion.ready,
        opinion.reason,
        unsettled=max(verdict.unsettled for verdict in verdicts),
        returning=max(verdict.returning for verdict in verdicts),
        catching_up=vote.catching_up,
        blame=not administrative(basis, drain, case.vip),
        withdrawn_wall=int(basis.inputs.wall + basis.now) if opinion.withdrawn else None,
    )
    after, reason, wake = gate.step(basis.memory.gates.get(case.vip), policy, facts, basis.now)
    if graceful(drain) and after.open:
        reason = reason.also(f"{cause(basis.inputs)}: still announced, with {node_drain.COMMUNITY}", "graceful")
    kept = opinion.kept if after.open else ""
    verdict = Verdict(case.vip, after.open, reason, after.since, verdicts, after.penalty, case.own, kept)
    return GateStep(verdict, after, wake, rules)


def shut_faulty(
    basis: Basis, vips: Iterable[Address], judged: Iterable[Judgement], steps: Mapping[Address, GateStep]
) -> tuple[GateStep, ...]:
    """The gates of these VIPs, but closed where a step of this decision has failed: nobody knows whether that VIP can
    be served."""
    contained, now = basis.contained, basis.now
    verdicts: dict[Address, list[ServiceVerdict]] = {}
    for item in judged if contained.faults else ():
        verdicts.setdefault(item.vip, []).append(item.verdict)
    gates = []
    for vip in vips:
        fault = contained.faults.get(vip)
        if fault is None:
            gates.append(steps[vip])
            continue
        before = basis.memory.gates.get(vip) or Gate(open=False, since=gate.NEVER)
        after = replace(before, open=False, since=now if before.open else before.since, ready_since=None)
        known = tuple(verdicts.get(vip, ()))
        verdict = Verdict(vip, False, fault, after.since, known, after.penalty, "unable")
        gates.append(GateStep(verdict, after, None, ()))
    return tuple(gates)
