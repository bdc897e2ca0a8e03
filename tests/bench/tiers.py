"""What becomes of connections to a gateway that three nodes share: ``python -m tests.bench.tiers``, in the test kernel.

A lab of its own, with real Consul, ExaBGP, BIRD and HAProxies. 300 connections are kept alive, and each speaks again
after every change; one that is not answered is lost, for good. The same is done where nodes do not share. Exits 1 if a
connection is lost that should not be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from anycastlb.settings import HttpSettings
from tests.lab.haproxy import NodeHaproxy
from tests.lab.lab import Lab
from tests.lab.tiers import VIP, KeptAlive, driven, equal, serve, served_by, takers
from tests.lab.topology import own
from tests.rig import haproxy as rig
from tests.support.haproxy import RELEASES

NODES = ("lb1", "lb2", "lb3")
PATIENCE = 20.0
"""Seconds after which a new connection counts as lost."""
MARK = str(HttpSettings().marks[0])
Tiers = dict[str, NodeHaproxy]


class Counts:
    """Says what became of connections; knows whether any was lost that should not be."""

    def __init__(self) -> None:
        self.broken = False

    def say(self, what: str, alive: int, of: int, least: int | None = None) -> None:
        lost = least is not None and alive < least
        self.broken |= lost
        print(f"  {what:66}{alive:5} of {of:4}{'  BROKEN' if lost else ''}", flush=True)


def shared(lab: Lab, tiers: Tiers, connections: int, counts: Counts) -> None:
    serve(lab, tiers)
    with closing(KeptAlive(lab, {80: connections})) as kept:
        own_of = {name: served_by(node, kept) for name, node in lab.nodes.items()}
        print(f"  served by {', '.join(f'{name} {len(those)}' for name, those in own_of.items())}")
        drained: set[str] = set()
        for name in ("lb1", "lb2"):
            lab.nodes[name].cli("drain", name, "--force")
            drained.add(name)
            lab.router.until(VIP, {*NODES} - drained)
            counts.say(f"{' and '.join(sorted(drained))} drained", len(kept.alive()), connections, connections)
        for name in ("lb1", "lb2"):
            lab.nodes[name].cli("undrain", name)
        lab.router.until(VIP, {*NODES})
        counts.say("both back", len(kept.alive()), connections, connections)
        lab.lb2.die()
        tiers["lb2"].kill()
        lab.router.until(VIP, {"lb1", "lb3"})
        for name in ("lb1", "lb3"):
            those = own_of[name]
            counts.say(f"lb2 killed: those of {name}", len(kept.alive(those)), len(those), len(those))
        print(f"  its own {len(own_of['lb2'])} have died with it", flush=True)  # asked, each would wait for a time-out
    lab.lb2.revive()


def differing(lab: Lab, tiers: Tiers, connections: int, counts: Counts) -> None:
    """By hand each node is told not to serve any connection itself."""
    serve(lab, tiers)
    for node in lab.nodes.values():
        node.daemon.freeze()
    for node in lab.nodes.values():
        node.namespace.run("ipvsadm", "-e", "-f", MARK, "-r", own(node.name), "-i", "-w", "0")
    try:
        with closing(KeptAlive(lab, {80: connections}, PATIENCE)) as kept:
            counts.say(
                "each node sends everything to the others: new ones", len(kept.alive()), connections, connections
            )
    finally:
        for node in lab.nodes.values():
            node.daemon.thaw()
    for node in lab.nodes.values():
        node.until(lambda node=node: takers(node) == [equal(lab)], f"{node.name} has repaired its table")


def alone(lab: Lab, tiers: Tiers, connections: int, counts: Counts) -> None:
    serve(lab, tiers, spread="none")
    with closing(KeptAlive(lab, {80: connections})) as kept:
        lab.lb1.cli("drain", "lb1")
        lab.router.until(VIP, {"lb2", "lb3"})
        counts.say("lb1 drained", len(kept.alive()), connections)


STORIES = {"shared": shared, "differing": differing, "alone": alone}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tiers", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=300)
    parser.add_argument("--only", choices=STORIES, action="append", help="one of them; all, unless given")
    parser.add_argument("--release", choices=RELEASES, default=RELEASES[-1])
    options = parser.parse_args()
    counts, program = Counts(), rig.find(options.release)
    if program is None:
        sys.exit(f"{options.release} is not there: python3 tests/rig/haproxy.py")
    with (
        tempfile.TemporaryDirectory(prefix="alb.") as folder,
        Lab(nodes=NODES) as lab,
        driven(lab, Path(folder), str(program)) as tiers,
    ):
        for what in options.only or STORIES:
            lab.reset()
            print(f"{options.release}, {what}: connections that are answered", flush=True)
            STORIES[what](lab, tiers, options.connections, counts)
            for haproxy in tiers.values():
                haproxy.end()
        lab.reset()
    return 1 if counts.broken else 0


if __name__ == "__main__":
    sys.exit(main())
