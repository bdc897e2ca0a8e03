"""Nodes come and go under 500 long-lived connections and a stream of requests in every way: nothing breaks.

How it is counted: see ``tests.lab.traffic``. What is printed is the figure of each step: the packets that were lost and
sent again, and for how long that went on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from anycastlb.model import Address
from tests.lab.lab import CHECK, Lab, document
from tests.lab.process import until
from tests.lab.server import ECHO
from tests.lab.topology import vip
from tests.lab.traffic import Traffic

THREE = ("lb1", "lb2", "lb3")
WAYS = {f"{forward} v{version}": (forward, version) for forward in ("tunnel", "dr") for version in (4, 6)}
OFTEN = {**CHECK, "interval": "500ms"}
CONVERGENCE = 3.0
"""Seconds within which the router may lose packets after a node lost power."""


class Scene:
    """All the ways at once, what happens to the nodes, and what each step cost."""

    def __init__(self, lab: Lab, ways: dict[str, Traffic]) -> None:
        self.lab, self.ways = lab, ways
        self.figures: list[str] = []
        self._before = {name: way.ask() for name, way in ways.items()}

    def routed(self, *nodes: str, within: float = 30) -> None:
        for way in self.ways.values():
            self.lab.router.until(way.vip, set(nodes), within)

    def step(self, what: str, do: Callable[[], Any], *after: str, loses: float = 0.0) -> None:
        """Do it, wait until exactly these nodes are routed to and every line was used since; nothing broke.

        ``loses``: seconds from its beginning in which packets may be lost.
        """
        began = time.monotonic()
        do()
        self.routed(*after)
        converged = time.monotonic()
        for way in self.ways.values():
            way.passed(converged)
        for name, way in self.ways.items():
            now, before = way.ask(), self._before[name]
            self._before[name] = now
            new = {key: now[key][len(before[key]) :] for key in ("delayed", "stalls", "broken", "failed")}
            late = [at - began for at, _, _ in new["delayed"]]
            self.figures.append(
                f"{what:24} {name:9} {now['echoes'] - before['echoes']:5} echoes, "
                f"{now['sent'] - before['sent']:4} requests; routed within {converged - began:4.1f} s; "
                f"{len(late):2} delayed requests, the last begun at {max(late, default=0):4.1f} s; "
                f"packets of lines sent again: {now['repeated'] - before['repeated']:3}; "
                f"longest echo {max((took for _, took in new['stalls']), default=0):4.1f} s"
            )
            assert not new["broken"], f"{what}: {name}: {len(new['broken'])} broken, first: {new['broken'][:3]}"
            assert not new["failed"], f"{what}: {name}: {len(new['failed'])} failed, first: {new['failed'][:3]}"
            assert now["open"] == way.lines
            assert max(late, default=0) <= loses, f"{what}: {name}: packets lost outside of convergence: {late}"


def carried(lab: Lab, traffic: Traffic, name: str) -> int:
    return len(lab.nodes[name].carries(traffic.vip))


def test_no_connection_and_no_request_breaks_whatever_happens_to_a_node(
    three: Lab, record_property: Callable[[str, object], None]
) -> None:
    lab = three
    lb1, lb2, lb3 = (lab.nodes[name] for name in THREE)
    addresses: dict[str, Address] = {}
    for number, (name, (forward, version)) in enumerate(WAYS.items()):
        addresses[name] = vip(number, version)
        for service, port in (("web", 80), ("echo", ECHO)):
            check = {**OFTEN, "port": 80}
            lab.put(f"{service}{number}", document(addresses[name], forward, port, check=check))
    for node in (lb1, lb2):
        node.start()
    for node in (lb1, lb2):
        node.ready()
    with ExitStack() as stack:
        for address in addresses.values():
            lab.router.until(address, {"lb1", "lb2"}, 30)
        ways = {
            name: stack.enter_context(Traffic(lab.client.namespace, address)) for name, address in addresses.items()
        }
        for way in ways.values():
            way.established()
        scene = Scene(lab, ways)
        try:
            for name in ("lb1", "lb2"):
                for way in ways.values():
                    assert carried(lab, way, name) > way.lines / 5, f"{name} carries too few to prove anything"
            scene.step("nothing", lambda: None, "lb1", "lb2")
            scene.step("lb1 loses power", lb1.die, "lb2", loses=CONVERGENCE)
            scene.step("lb1 boots", lb1.revive, "lb1", "lb2")
            scene.step("lb1 is stopped", lambda: lb1.daemon.stop(20), "lb2")
            scene.step("lb1 is started", lb1.start, "lb1", "lb2")
            scene.step("lb2 is drained", lambda: lab.consul.put("anycastlb/drain/lb2", ""), "lb1")
            scene.step("lb2 is undrained", lambda: lab.consul.delete("anycastlb/drain/lb2"), "lb1", "lb2")
            scene.step("lb3 is added", lb3.start, *THREE)
            scene.step("lb2 loses power", lb2.die, "lb1", "lb3", loses=CONVERGENCE)
            for way in ways.values():
                until(lambda way=way: carried(lab, way, "lb3") > way.lines / 5, 5, "lb3 has its share")
        finally:
            print("\n".join(scene.figures))
            record_property("figures", scene.figures)
