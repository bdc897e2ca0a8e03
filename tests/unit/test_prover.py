"""A decision is proven from scratch once in a while; where it was wrong, the one from scratch takes its place."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from anycastlb.adapters.drivers.memory import MemoryDriver
from anycastlb.adapters.system.clock import SYSTEM
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision.proof import Made, Proof, differences, prove
from anycastlb.core.model import (
    Backend,
    Catalog,
    Check,
    CheckState,
    Decision,
    Feed,
    Inputs,
    Policy,
    Result,
    Service,
    State,
    VirtualService,
)
from anycastlb.engine.inbox import Inbox
from anycastlb.engine.machine import Machine
from anycastlb.engine.prover import Prover
from anycastlb.engine.reconciler import Reconciler
from anycastlb.serving.metrics.meters import Meters
from tests.support.world import MemoryAnnouncer

ADDRESS = IPv4Address("10.0.0.1")
CHECK = Check("none", ADDRESS, 80, (), 2.0, 1.0, 2, 3)


class Scene:
    def __init__(self) -> None:
        self.inbox, self.journal, self.meters = Inbox(Inputs(Policy("lb1"))), Journal(), Meters()
        kernel = MemoryDriver(("addresses", "services", "destinations"))
        self.reconciler = Reconciler(self.inbox, Machine((kernel,), MemoryAnnouncer()), self.journal, 5.0)
        self.proofs: list[Made] = []

    async def decide(self, weight: int) -> None:
        backends = (Backend("b", ADDRESS, 80, CHECK, weight),)
        service = Service("web", (IPv4Address("192.0.2.1"),), "tcp", 80, VirtualService("rr"), backends)
        up = CheckState(True, since=0.0, last=Result(True, "", 0.0, 0.0))
        self.inbox.put(catalog=Catalog((service,)), feed=Feed(True, loaded=True), health={CHECK: up})
        await self.reconciler.cycle()

    def prover(self, wrong: bool = False) -> Prover:
        def proof(made: Made) -> Proof:
            self.proofs.append(made)
            found = prove(made)
            return replace(found, differences=("verdicts",)) if wrong else found

        return Prover(self.reconciler.decider, self.journal, self.meters, SYSTEM, proof)

    def errors(self) -> list[str]:
        return [record.event.reason for record in self.journal.records() if record.event.level == "error"]


async def test_a_right_decision_is_proven_once_and_stands() -> None:
    scene = Scene()
    prover = scene.prover()
    assert await prover.step() == 0.0 and not scene.proofs, "nothing was decided yet"
    for weight in (100, 50):
        await scene.decide(weight)
        await prover.step()
        await prover.step()
    assert len(scene.proofs) == 2
    assert scene.errors() == [] and scene.meters.corrections == 0
    assert not scene.inbox.dirty.is_set() or scene.reconciler.decider.made is scene.proofs[-1]


async def test_a_wrong_decision_is_reported_counted_and_made_anew() -> None:
    scene = Scene()
    await scene.decide(100)
    await scene.decide(100)
    made = scene.reconciler.decider.made
    scene.inbox.dirty.clear()
    await scene.prover(wrong=True).step()
    (reason,) = scene.errors()
    assert "not the one from scratch, in: verdicts" in reason
    assert scene.meters.corrections == 1
    assert scene.inbox.dirty.is_set()
    await scene.reconciler.cycle()
    assert made is not None and scene.reconciler.decider.made is not None
    assert scene.reconciler.decider.made is not made, "it was decided anew, although nothing has changed"
    assert scene.reconciler.decider.made.memory == made.decision.memory
    assert not differences(scene.reconciler.decider.made.decision, made.decision)


async def test_a_proof_that_fails_stops_nothing() -> None:
    scene = Scene()
    await scene.decide(100)

    def proof(made: Made) -> Proof:
        raise ZeroDivisionError

    await Prover(scene.reconciler.decider, scene.journal, scene.meters, SYSTEM, proof).step()
    (reason,) = scene.errors()
    assert "ZeroDivisionError" in reason
    assert scene.meters.corrections == 0


def test_differences_are_named() -> None:
    one = Decision()
    assert differences(one, Decision()) == ()
    assert differences(one, replace(one, wake_at=1.0)) == ("wake_at",)
    other = replace(one, desired=State(services={"web": "x"}))  # type: ignore[dict-item]
    assert differences(one, other) == ("desired.services",)
