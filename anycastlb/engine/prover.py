"""Prove the last decision once in a while: make it anew from scratch, in a thread, and compare.

The decider takes from the last decision what has not changed, which is right in every test; if it is wrong on a node
nevertheless, a dead VIP may stay announced. So a difference is an error in the journal, it is counted, and the decision
from scratch is the one that counts from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from anycastlb.adapters.system.clock import Clock
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.decision.containment import internal_error
from anycastlb.core.decision.proof import Made, Proof, prove
from anycastlb.core.events import Event
from anycastlb.engine.decider import Decider
from anycastlb.engine.observer import Observer

PAUSE = 60.0
"""Seconds between two proofs, at least."""
SHARE = 0.001
"""Of the time, that proofs may take."""


class Prover:
    def __init__(
        self,
        decider: Decider,
        journal: Journal,
        observer: Observer,
        clock: Clock,
        prove: Callable[[Made], Proof] = prove,
    ) -> None:
        self._decider, self._journal, self._observer = decider, journal, observer
        self._clock, self._offload, self._prove = clock.monotonic, clock.offload, prove
        self._proven: Made | None = None

    async def run(self) -> None:
        """Prove for ever. A decision that was proven is not proven again."""
        while True:
            await asyncio.sleep(PAUSE)
            await asyncio.sleep(await self.step() / SHARE)

    async def step(self) -> float:
        """Prove the last decision; the seconds that it took."""
        made, began = self._decider.made, self._clock()
        if made is None or made is self._proven:
            return 0.0
        self._proven = made
        try:
            proof = await self._offload(self._prove, made)
        except Exception as exc:  # nothing is proven, and nothing stops
            self._report(internal_error("the proof of a decision", exc).text)
            return self._clock() - began
        if proof.differences:
            self._observer.observe_correction()
            text = f"a decision was not the one from scratch, in: {', '.join(proof.differences)}"
            self._report(f"{text}; it is made anew from scratch. Please report this")
            self._decider.correct(made, proof.decision)
        return self._clock() - began

    def _report(self, reason: str) -> None:
        self._journal.emit(Event("failure", "decision", reason, level="error", code="decision_differs"))
