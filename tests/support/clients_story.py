"""Clients' traffic over a lab in which things happen, step by step, and what each step cost them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.lab import lateness
from tests.lab.lab import Lab
from tests.lab.traffic import Traffic

MOMENT = 0.5
"""Seconds in which a request that began may still have been on the old way."""
AGAIN = 0.2
"""Seconds without an answer after which TCP sends a packet again. A machine that loses as much makes it do so, too."""


class Scene:
    """All the ways at once, what happens to the nodes, and what each step cost."""

    def __init__(self, lab: Lab, ways: dict[str, Traffic]) -> None:
        self.lab, self.ways = lab, ways
        self.figures: list[str] = []
        self.now = {name: way.ask(mark=True) for name, way in ways.items()}
        """What each way had counted when the last step was over."""

    def routed(self, *nodes: str) -> None:
        for way in self.ways.values():
            self.lab.router.until(way.vip, set(nodes))

    def step(self, what: str, do: Callable[[], Any], *after: str, lossy: bool = False, failing: bool = False) -> int:
        """Do it, wait until exactly these nodes are routed to and every line was used since; nothing broke.

        ``lossy``: packets may be lost until the router has converged, and none after. ``failing``: so may requests that
        began before. How many requests lost packets.
        """
        began = lateness.now()
        do()
        self.routed(*after)
        converged = time.monotonic()
        for way in self.ways.values():
            way.passed(converged)
        before, self.now = self.now, {name: way.ask(mark=True) for name, way in self.ways.items()}
        grown = {name: _grown(before[name], now) for name, now in self.now.items()}
        until = converged - began + MOMENT if lossy else 0.0
        late = {name: [at - began for at, took, _ in new["delayed"] if _lost(at, took)] for name, new in grown.items()}
        self.figures.append(
            f"{what:22} routed within {converged - began:4.1f} s; {_figures(list(grown.values()), late)}"
        )
        for name, new in grown.items():
            assert not new["broken"], f"{what}: {name}: {len(new['broken'])} broken, first: {new['broken'][:3]}"
            failed = [(at, why) for at, why in new["failed"] if not failing or at - began > until]
            assert not failed, f"{what}: {name}: {len(failed)} failed, first: {failed[:3]}"
            assert self.now[name]["open"] == self.ways[name].lines
            assert max(late[name], default=0) <= until, f"{what}: {name}: packets lost after convergence: {late[name]}"
        return sum(len(new["delayed"]) for new in grown.values())


def _lost(at: float, took: float) -> bool:
    """Was a packet of this request lost, or was it only the machine that was late?"""
    return lateness.lost(at, at + took) < AGAIN


def _grown(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was counted between the two."""
    new: dict[str, Any] = {key: now[key] - before[key] for key in ("echoes", "sent", "repeated")}
    lists = {key: now[key][len(before[key]) :] for key in ("delayed", "stalls", "broken", "failed")}
    return {**new, **lists, "silence": now["silence"]}


def _figures(ways: list[dict[str, Any]], late: dict[str, list[float]]) -> str:
    times = [at for each in late.values() for at in each]
    return (
        f"{sum(way['echoes'] for way in ways):5} echoes, {sum(way['sent'] for way in ways):4} requests, "
        f"{sum(len(way['broken']) for way in ways)} broken, {sum(len(way['failed']) for way in ways)} failed, "
        f"{len(times):2} delayed, the last begun at {max(times, default=0):4.1f} s; "
        f"lines sent {sum(way['repeated'] for way in ways):3} packets again, "
        f"longest echo {max((took for way in ways for _, took in way['stalls']), default=0):4.1f} s; "
        f"longest time without an answer {max(way['silence'] for way in ways):4.2f} s"
    )
