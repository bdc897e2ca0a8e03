"""The demo: ``python -m tests.lab.demo [--hold]``. Two nodes, a router, Consul, three backends, a client; one story.

Every claim is measured in front of the reader, on real parts; the exit status is 0 only if all of them held.
``--hold`` leaves the lab up afterwards, with a shell to play in.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.lab.haproxy import NodeHaproxy
from tests.lab.http import get
from tests.lab.lab import CHECK, Lab, document
from tests.lab.namespaces import LabError
from tests.lab.node import Node
from tests.lab.process import until
from tests.lab.server import ECHO
from tests.lab.story import Story
from tests.lab.topology import BACKENDS, own, vip
from tests.rig import haproxy

VIP, VIP6, CHAT = vip(0), vip(0, 6), vip(1)
SITE = vip(20)
"""No backend has it: connections to it end on the nodes."""
BOTH = {"lb1", "lb2"}
REQUESTS, CONNECTIONS = 300, 200
PROMISED = 0.2 * 3 + 1.0 + 0.5
"""Seconds from the last backend's death to the withdrawal: interval x fall + timeout + 0.5 s."""
PICTURE = """\
            client 10.9.0.2
               │
             ┌─┴─┐  router: BIRD, ECMP by flow
             │tor│
             └┬─┬┘
          BGP │ │ BGP
        ┌─────┘ └─────┐
      ┌─┴─┐         ┌─┴─┐
      │lb1│         │lb2│   nodes: anycastlb, ExaBGP, IPVS
      └─┬─┘         └─┬─┘
   ─────┴──┬─────┬────┴┬──────┬────
          b1    b2    b3    consul"""


def first_service(lab: Lab, story: Story) -> None:
    story.chapter("A service is written to Consul, and two nodes announce it")
    web = document(VIP, "tunnel", drain="2s")
    web["backends"] = {name: {"address": own(name)} for name in BACKENDS}
    story.command("you", "consul kv put anycastlb/services/web @web.json")
    story.output("\n".join(f'"{name}": {json.dumps(value)}' for name, value in web.items()))
    at = time.monotonic()
    lab.put("web", web)
    took = lab.router.until(VIP, BOTH) - at
    story.command("router", f"ip route show {VIP}")
    story.output(lab.router.show(VIP))
    story.claim("the router has one route with two next hops", lab.router.routes(VIP) == BOTH, f"{took:.2f} s")
    lab.put("web6", document(VIP6, "dr", drain="2s"))
    lab.put("chat", document(CHAT, "tunnel", port=ECHO, drain="2s"))
    lab.settle(VIP, VIP6, CHAT)


def traffic(lab: Lab, story: Story) -> None:
    story.chapter("Traffic spreads over nodes and backends")
    story.say(f"{REQUESTS} HTTP requests to {VIP} (IPIP tunnels) and {REQUESTS} to {VIP6} (direct routing).")
    rows = []
    for address in (VIP, VIP6):
        before = {name: backend.counts()["requests"] for name, backend in lab.backends.items()}
        seen = lab.client.spread(REQUESTS, address)
        served = {name: backend.counts()["requests"] - before[name] for name, backend in lab.backends.items()}
        nodes = dict.fromkeys(lab.nodes, 0)
        counted = time.monotonic() + 4
        while sum(nodes.values()) < REQUESTS and time.monotonic() < counted:  # the kernel counts every two seconds
            nodes = {name: sum(node.flows(address).values()) for name, node in lab.nodes.items()}
            time.sleep(0.1)
        rows.append([str(address), *(str(nodes[name]) for name in nodes), *(str(served[name]) for name in BACKENDS)])
        whole = sum(served.values()) == sum(nodes.values()) == sum(seen.values()) == REQUESTS
        spread = all(nodes.values()) and all(served.values())
        story.claim(
            f"every request to {address} was answered, through both nodes, by all three backends",
            whole and spread,
            f"{sum(seen.values())} of {REQUESTS}",
        )
    story.table(
        "Flows by the nodes' own IPVS counters, requests by the backends' own count:",
        ["", "via lb1", "via lb2", *(f"by {name}" for name in BACKENDS)],
        rows,
    )
    story.command("lb1", "anycastlb status")
    story.output(lab.lb1.program("status").stdout.rstrip())


def one_dies(lab: Lab, story: Story) -> None:
    story.chapter("One backend dies")
    updates = lab.router.all_updates()
    dead = f"{own('b2')}:80"
    with lab.client.load(VIP) as load:
        until(lambda: len(load.answered) == 3, "all backends answer")
        story.command("b2", "kill -9 the server")
        at = time.monotonic()
        lab.backends["b2"].kill()
        until(lambda: _weights(lab, dead) == {0}, "b2 has weight 0 on both nodes")
        noticed = time.monotonic()
        time.sleep(0.1)
        sent = load.sent
        until(lambda: load.sent > sent + 100, "100 more requests")
    early = sum(failed.at <= noticed for failed in load.failed)
    story.say(f"While it was being found out, {early} requests that hashed to it were refused.")
    story.claim("it has weight 0 on both nodes, its place in the table kept", True, f"after {noticed - at:.2f} s")
    late = len(load.failed) - early
    story.claim("from then on no request fails", not late, f"{late} of {load.sent - sent} failed")
    flaps = lab.router.all_updates() != updates
    story.claim("the router heard nothing of it", not flaps, "0 BGP updates" if not flaps else "BGP updates came")


def _weights(lab: Lab, destination: str) -> set[int | None]:
    return {node.ipvs().get(f"tcp {VIP}:80", {}).get(destination) for node in lab.nodes.values()}


def all_die(lab: Lab, story: Story) -> None:
    story.chapter("All backends die, and return")
    story.command("b1, b3", "kill -9 the server")
    at = time.monotonic()
    lab.backends["b1"].kill()
    lab.backends["b3"].kill()
    took = lab.router.until(VIP, set()) - at
    story.claim(
        f"the route left the router within interval x fall + timeout + 0.5 s = {PROMISED:.1f} s",
        took <= PROMISED,
        f"{took:.2f} s after the kill",
    )
    story.command("lb1", f"anycastlb why {VIP}")
    story.output(lab.lb1.program("why", str(VIP)).stdout.rstrip())
    story.command("b1, b2, b3", "start the server")
    at = time.monotonic()
    for backend in lab.backends.values():
        backend.start()
    lab.settle(VIP, VIP6, CHAT)
    took = time.monotonic() - at
    answered = lab.client.spread(60, VIP)
    story.claim("the route is back and all three serve", set(answered) == set(BACKENDS), f"after {took:.2f} s")


def restart(lab: Lab, story: Story) -> None:
    story.chapter("The daemon of a node is killed and restarted")
    updates = lab.router.all_updates()
    with lab.client.load(VIP) as load:
        until(lambda: load.sent > 20, "20 requests")
        story.command("lb1", "kill -9 anycastlb; sleep 0.5; anycastlb run")
        lab.lb1.daemon.kill()
        time.sleep(0.5)
        lab.lb1.daemon.start()
        lab.lb1.ready()
        changes = lab.lb1.total("anycastlb_changes_total")
        time.sleep(0.5)
    story.claim("no request fails", not load.failed, f"{len(load.failed)} of {load.sent} failed")
    same = lab.router.all_updates() == updates
    story.claim("the router heard nothing of it", same, "0 BGP updates" if same else "BGP updates came")
    story.claim("the new daemon adopts the kernel as it is", not changes, f"{changes:.0f} changes written")


def node_dies(lab: Lab, story: Story) -> None:
    story.chapter("A node loses power with open connections")
    with lab.client.open(CONNECTIONS, CHAT) as connections:
        alive = connections.alive()
        carried = {name: len(node.carries(CHAT) & connections.ports) for name, node in lab.nodes.items()}
        _carriers(story, f"{alive} open TCP connections to {CHAT}:", carried, connections.landed)
        story.command("lb1", "power off: links down, then every process killed; no farewell")
        at = time.monotonic()
        lab.lb1.die()
        took = lab.router.until(CHAT, {"lb2"}) - at
        story.claim("the router sends its flows to the other node", True, f"after {took * 1000:.0f} ms")
        alive = connections.alive()
        story.claim(
            f"all {CONNECTIONS} connections live on, {carried['lb1']} of them through a node that never saw them",
            alive == CONNECTIONS and carried["lb1"] > 0,
            f"{alive} of {CONNECTIONS} echo",
        )
        story.command("lb1", "power on")
        at = time.monotonic()
        lab.lb1.revive()
        took = lab.router.until(CHAT, BOTH) - at
        alive = connections.alive()
        story.claim(
            f"it takes its share back after {took:.1f} s, and still every connection lives",
            alive == CONNECTIONS,
            f"{alive} of {CONNECTIONS} echo",
        )


def _carriers(story: Story, title: str, carried: dict[str, int], landed: Counter[str]) -> None:
    columns = ["", *(f"via {name}" for name in carried), *(f"on {name}" for name in BACKENDS)]
    row = ["connections", *map(str, carried.values()), *(str(landed[name]) for name in BACKENDS)]
    story.table(title, columns, [row])


def gateway(lab: Lab, story: Story) -> None:
    story.chapter("A gateway: rules by path and weight, on HAProxy, gated by the same health")
    with ExitStack() as ends:
        proxies = _proxies(lab, ends)
        for name, backends in {"shop": ("b1", "b2"), "beta": ("b3",)}.items():
            pool = {"port": 80, "check": CHECK, "backends": {each: {"address": own(each)} for each in backends}}
            lab.put(name, pool)
        lab.consul.put("anycastlb/gateways/web", {"vip": str(SITE), "port": 80, "protocol": "http"})
        story.command("you", "consul kv put anycastlb/routes/shop @shop.json")
        _route(lab, story, {"backendRefs": [{"name": "shop"}]})
        for proxy in proxies:
            proxy.start()
        lab.router.until(SITE, BOTH)
        workers = [proxy.worker() for proxy in proxies]
        blog = {"matches": [{"path": {"value": "/blog"}}], "backendRefs": [{"name": "beta"}]}
        canary = {"backendRefs": [{"name": "shop", "weight": 90}, {"name": "beta", "weight": 10}]}
        story.say("A rule for /blog is added, and a tenth of all other requests goes to the new version:")
        at = time.monotonic()
        _route(lab, story, blog, canary)
        for node in lab.nodes.values():
            until(lambda node=node: _asked(node, "/blog/1") == "b3", "the rule is in force")  # type: ignore[misc]
        took = time.monotonic() - at
        same = [proxy.worker() for proxy in proxies] == workers
        story.claim("both are in force on both nodes, without a reload", same, f"after {took:.2f} s")
        seen = lab.client.spread(REQUESTS, SITE)
        share = seen["b3"] / REQUESTS
        story.claim("about a tenth of the requests goes there", 0.03 < share < 0.17, f"{share:.0%} of {REQUESTS}")
        story.command("lb1", f"anycastlb why GET http://{SITE}/blog/1")
        story.output(lab.lb1.program("why", "GET", f"http://{SITE}/blog/1").stdout.rstrip())
        with lab.client.load(SITE) as load:
            until(lambda: load.sent > 20, "20 requests")
            story.command("b1", "kill -9 the server")
            lab.backends["b1"].kill()
            sent = load.sent
            until(lambda: load.sent > sent + 60, "60 more requests")
        story.claim("no GET is lost", not load.failed, f"{len(load.failed)} of {load.sent} failed")
        story.command("b2, b3", "kill -9 the server")
        at = time.monotonic()
        lab.backends["b2"].kill()
        lab.backends["b3"].kill()
        took = lab.router.until(SITE, set()) - at
        story.claim("with its last pool the gateway's VIP is gone", True, f"{took:.2f} s after the kill")


def _proxies(lab: Lab, ends: ExitStack) -> list[NodeHaproxy]:
    """The HAProxy of each node, which serves gateways until ``ends`` is over."""
    program = next(filter(None, map(haproxy.find, (haproxy.own(), *haproxy.SUITES))), None)
    if program is None:
        raise LabError("there is no HAProxy: python3 tests/rig/haproxy.py own")
    folder = Path(ends.enter_context(TemporaryDirectory(prefix="alb.")))
    proxies = [NodeHaproxy(node, folder / name, str(program)) for name, node in lab.nodes.items()]
    for proxy in proxies:
        ends.enter_context(proxy.driven())
    return proxies


def _route(lab: Lab, story: Story, *rules: dict[str, Any]) -> None:
    route = {"gateways": ["web"], "hostnames": ["*"], "rules": list(rules)}
    story.output("\n".join(f'"{name}": {json.dumps(value)}' for name, value in route.items()))
    lab.consul.put("anycastlb/routes/shop", route)


def _asked(node: Node, path: str) -> str:
    """What a node's own HAProxy answers."""
    return get(node.namespace, str(SITE), 80, path)[1]


STEPS = (first_service, traffic, one_dies, all_die, restart, node_dies, gateway)


def tell(story: Story, hold: bool) -> None:
    story.say(
        "A two-node anycast load balancer on one kernel, in network namespaces. Everything is real but the cables."
    )
    story.console.print()
    story.output(PICTURE)
    with Lab() as lab:
        story.claim(
            "Consul, router, nodes and backends are up, four BGP sessions established", True, f"{story.took:.1f} s"
        )
        try:
            for step in STEPS:
                step(lab, story)
        except (LabError, OSError) as exc:
            story.claim("the story could be told to its end", False, f"{type(exc).__name__}: {exc}")
        story.end()
        if hold:
            play(lab, story)


def play(lab: Lab, story: Story) -> None:
    """A shell on the running lab; ends with it."""
    binaries = f"{Path(sys.executable).parent}:{Path(lab.consul.program).parent}"
    prefix = "ip netns exec lab"
    story.console.print()
    story.say("The lab stays up until you leave this shell. Every machine is a network namespace; try:")
    for hint in (
        f"{prefix}-client curl -s http://{VIP}/",
        "ip -n lab-tor route show proto bird",
        f"{prefix}-lb1 ipvsadm -Ln",
        f"{prefix}-lb1 anycastlb status --config {lab.lb1.settings}",
        f"{prefix}-consul consul kv put anycastlb/drain/lb1 ''",
        f"{prefix}-consul consul kv get -recurse anycastlb/",
        f"ls {lab.directory}   # settings and logs",
    ):
        story.output(hint)
    env = {**os.environ, "PATH": f"{binaries}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "PS1": "lab# "}
    if sys.stdin.isatty():
        subprocess.run([os.environ.get("SHELL", "/bin/sh"), "-i"], env=env)
        return
    story.say("(no terminal on standard input: interrupt to end)")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description="Tell the story of a two-node anycast load balancer.")
    parser.add_argument("--hold", action="store_true", help="leave the lab up, with a shell, until you leave it")
    options = parser.parse_args()
    story = Story()
    signal.signal(signal.SIGTERM, _interrupt)  # so that the lab is taken down whichever way this ends
    try:
        tell(story, options.hold)
    except KeyboardInterrupt:
        return 130
    except LabError as exc:
        story.claim("the lab came up", False, str(exc))
    return 1 if story.broken else 0


if __name__ == "__main__":
    sys.exit(main())
