"""Whether the lab kept the product's promises while something was wrong with it, and whether all is back afterwards.

An ``Observer`` looks at the router's and the nodes' kernels again and again, each time at the router before and after
the nodes, so that what it says of a route and a table held at the same moment. Nothing is judged by how long the test
took, but by what was seen, in which order.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.client import Load
from tests.lab.faults import VICTIM, Fault
from tests.lab.lab import Lab
from tests.lab.namespaces import LabError
from tests.lab.node import Node
from tests.lab.process import meanwhile, until
from tests.lab.topology import own, vip

WEB, ALONE = vip(0), vip(1)
"""A VIP that all backends serve, and one that only the victim serves."""
PAUSE = 0.4
"""Seconds between two looks."""
MOMENT = 0.5
"""Seconds by which a request may have been under way before or after what was seen."""
UNWEIGHTED = "a destination with a weight"
WRONG = "Traceback (most recent call last)"
STARTING = "importlib._bootstrap"
"""In the traceback of a Python that has not yet read the product's code."""
OURS = re.compile(r"/anycastlb/[a-z]")
"""In the traceback of a program that has: a file of it."""
RESULTS = "anycastlb_check_results_total"
PROGRAMS = {"daemon": "anycastlb", "ExaBGP": "exabgp"}
Tables = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Sight:
    """What was seen at one moment."""

    at: float
    routes: Mapping[str, frozenset[str]]
    """VIP -> the nodes that it was routed to before and after."""
    holes: frozenset[tuple[str, str, str]]
    """(node, VIP, what it had not), announced all the while."""
    dirty: frozenset[str]
    """The nodes that would send a flow to the victim, by a VIP that is routed to them."""


@dataclass
class Observer:
    lab: Lab
    sights: list[Sight] = field(default_factory=list)

    def watching(self) -> AbstractContextManager[None]:
        def watch(over: threading.Event) -> None:
            while not over.wait(PAUSE):
                self.sights.append(self.look())

        return meanwhile(watch)

    def look(self) -> Sight:
        nodes, vips = self.lab.nodes, (WEB, ALONE)
        before = {str(item): self.lab.router.routes(item) for item in vips}
        at = time.monotonic()
        held = {name: ({str(item) for item in node.vips()}, node.ipvs()) for name, node in nodes.items()}
        after = {str(item): self.lab.router.routes(item) for item in vips}
        routes = {item: before[item] & after[item] for item in before}
        holes, dirty = set(), set()
        for item, routed in routes.items():
            for name in routed:
                addresses, table = held[name]
                if hole := _hole(item, addresses, table):
                    holes.add((name, item, hole))
                if _rows(table, item).get(f"{own(VICTIM)}:80"):
                    dirty.add(name)
        return Sight(at, routes, frozenset(holes), frozenset(dirty))


def _rows(table: Tables, item: str) -> Mapping[str, int]:
    return table.get(f"tcp {item}:80", {})


def _hole(item: str, addresses: set[str], table: Tables) -> str:
    if item not in addresses:
        return "its address"
    return "" if any(_rows(table, item).values()) else UNWEIGHTED


@dataclass(frozen=True)
class Whole:
    """How the lab looks when nothing is wrong with it."""

    tables: Mapping[str, str]
    """Of each node."""

    def differs(self, lab: Lab) -> str:
        """What is not as it was; empty when all is back."""
        for name, node in lab.nodes.items():
            for process in (node.exabgp, node.daemon):  # as systemd does it
                if not process.running:
                    process.start()
            if node.http("/readyz")[0] != 200:
                return f"{name} is not ready: {node.http('/readyz')[1][:200]}"
            if node.ordered() != self.tables[name]:
                return f"{name} has another table: {node.ordered()}"
            if not {WEB, ALONE} <= node.announced():
                return f"{name} knows of {node.announced()} announced"
            if differs := _says(node):
                return f"{name} says: {differs}"
        for item in (WEB, ALONE):
            if lab.router.routes(item) != set(lab.nodes):
                return f"{item} is routed to {set(lab.router.routes(item))}"
        return ""


def _says(node: Node) -> str:
    """What a node says to be wrong."""
    status = node.status()
    if problems := status["problems"]:
        return f"problems: {problems}"
    if not status["catalog"]["connected"]:
        return f"the catalog is {status['catalog']}"
    nodes = json.loads(node.http("/v1/nodes")[1])["nodes"]
    strange = [item["name"] for item in nodes if not (item["alive"] and item["ready"])]
    return f"{', '.join(strange)} not alive and ready" if strange or len(nodes) != 2 else ""


def whole(lab: Lab) -> Whole:
    return Whole({name: node.ordered() for name, node in lab.nodes.items()})


def back(lab: Lab, before: Whole) -> None:
    """Wait until all is as it was. Raises ``LabError``."""

    def differs() -> str:
        try:
            return before.differs(lab)
        except (LabError, OSError, KeyError, ValueError) as exc:
            return str(exc)

    seen: list[str] = []

    def done() -> bool:
        seen[:] = [differs()]
        return not seen[0]

    try:
        until(done, "all is back", every=0.2)
        for node in lab.nodes.values():
            checked = node.total(RESULTS)
            node.until(lambda node=node, checked=checked: node.total(RESULTS) > checked + 4, "its backends are checked")
    except LabError as exc:
        raise LabError(f"{exc}: {seen}") from None


# ------------------------------------------------------------ the verdict


@dataclass(frozen=True)
class Evidence:
    faults: tuple[Fault, ...]
    began: float
    """When the first fault began (``time.monotonic()``)."""
    sights: tuple[Sight, ...]
    load: Load
    text: str
    """What the nodes' logs have grown by."""
    may_leave: bool
    """lb1's routes may go, or have to."""
    ended: frozenset[str] = frozenset()
    """Which programs of the nodes ended, by name."""

    def complaints(self) -> Iterator[str]:
        deaf = any(fault.deaf for fault in self.faults)
        if not deaf:
            yield from self._holes()
            yield from self._routes()
        yield from self._losses(deaf)
        yield from (f"{name} ended, which it may not by this" for name in sorted(self.ended - self._may_end()))
        for text in self.text.split(WRONG)[1:]:
            exabgps = "lb1 exabgp" in self._may_end() and not OURS.search(text[:2500])
            if STARTING not in text[:2500] and not exabgps:
                yield f"a traceback in a log: {text[:2500]}"
                return

    def _may_end(self) -> set[str]:
        return {f"lb1 {PROGRAMS[target]}" for fault in self.faults for target in fault.ends if target in PROGRAMS}

    def _holes(self) -> Iterator[str]:
        """What was announced was served. A dead victim serves nothing, whatever its weight is: that its own VIP goes is
        awaited, and takes a while where ExaBGP or the bridge has to be replaced first."""
        dead = any(fault.dead for fault in self.faults)
        for one, two in zip(self.sights, self.sights[1:], strict=False):
            for node, item, hole in one.holes & two.holes:
                if dead and (item, hole) == (str(ALONE), UNWEIGHTED):
                    continue
                yield f"{node} announced {item} without {hole}, {two.at - self.began:.1f} s after the begin"
                return

    def _routes(self) -> Iterator[str]:
        steady = {"lb2"} if self.may_leave else {"lb1", "lb2"}
        for sight in self.sights:
            if gone := steady - sight.routes[str(WEB)]:
                yield f"{WEB} was not routed to {gone}, {sight.at - self.began:.1f} s after the begin"
                return

    def _losses(self, deaf: bool) -> Iterator[str]:
        """Every request that was lost is explained by what was seen while it was under way."""
        if deaf:
            return
        black = any(fault.black for fault in self.faults)
        dead = any(fault.dead for fault in self.faults)
        for failed in self.load.failed:
            seen = [sight for sight in self.sights if abs(sight.at - failed.at) < MOMENT]
            to_victim = dead and any(sight.dirty for sight in seen)
            to_nowhere = black and any("lb1" in sight.routes[str(WEB)] for sight in seen)
            if not (to_victim or to_nowhere):
                when = failed.at - self.began
                yield f"a request was lost without a reason, {when:.1f} s after the begin: {failed.reason}"
                return


def processes(lab: Lab) -> dict[str, int]:
    """The programs of the nodes, each with its process."""
    return {process.name: process.pid for node in lab.nodes.values() for process in (node.daemon, node.exabgp)}


def grown(since: Mapping[str, int]) -> str:
    """What the nodes' logs have grown by. ``since``: their lengths."""
    text = ""
    for path, length in since.items():
        with suppress(OSError), Path(path).open("rb") as log:
            log.seek(length)
            text += log.read().decode(errors="replace")
    return text


def lengths(lab: Lab) -> dict[str, int]:
    logs = [process.log for node in lab.nodes.values() for process in (node.daemon, node.exabgp)]
    return {str(log): log.stat().st_size if log.exists() else 0 for log in logs}
