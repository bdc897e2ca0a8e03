"""Which nodes share the connections of a gateway, and which packets meet IPVS for it.

With ``spread: mh`` every node that serves a gateway has the same IPVS service in front of the HAProxies of all of them,
itself included. So a connection stays with its HAProxy whichever node a router sends it to. The service is met by
firewall mark, and the mark is set where clients' packets come in: what another node sends on through a tunnel has none,
and ends at HAProxy even while the tables of two nodes differ.

A node is a backend like any other: it is probed through the tunnel, and its weight follows. It takes its place when it
says that it serves the gateway. It has weight 0 while it says that it cannot serve, and after it is drained: not at
once, but when each connection that it served has spoken since, or was idle for longer than the gateway allows. By then
the nodes to which the routers have moved them know where they belong.

Pure. Decision record: docs/decisions/0019-http-tier.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from anycastlb.core.decision.rows import Tables
from anycastlb.core.model import (
    Address,
    Backend,
    Cluster,
    Gateway,
    HttpMemory,
    IngressKey,
    IngressMark,
    Inputs,
    Memory,
    ServiceKey,
    Spread,
    Status,
    on_vip,
)
from anycastlb.core.model.http_memory import Endpoint

Share: TypeAlias = tuple[int | None, tuple[Backend, ...]]
"""The firewall mark of a gateway, and the nodes that share its connections."""
ABLE, UNABLE = None, 0
"""Weights that are set instead of a node's own."""


def sharing(gateway: Gateway, inputs: Inputs, memory: Memory, now: float) -> tuple[Backend, ...]:
    """The nodes that share its connections, in the order of their names; none if this one would be alone."""
    spread = inputs.policy.spread
    if spread is None or gateway.spread == "none":
        return ()
    own = inputs.node, spread.address, _able(_own_drained(memory), gateway, now)
    members = [own, *_peers(inputs, gateway, now)]
    made = {name: _node(name, address, gateway, spread, weight) for name, address, weight in members}
    return tuple(made[name] for name in sorted(made)) if len(made) > 1 else ()


def wakes(gateways: Iterable[Gateway], inputs: Inputs, memory: Memory, now: float) -> tuple[float, ...]:
    """When the weights of drained nodes change by the mere passing of time."""
    if inputs.policy.spread is None:
        return ()
    drained = [_own_drained(memory), *(_drained(status, inputs) for status in _statuses(inputs.cluster))]
    ends = {since + one.limits.idle_timeout for since in drained if since is not None for one in gateways}
    return tuple(end for end in ends if end > now)


def _own_drained(memory: Memory) -> float | None:
    """Since when this node has been drained; None if it is not."""
    drain = memory.node_drain
    return drain.since if drain is not None and drain.stage == "drained" else None


def _drained(status: Status, inputs: Inputs) -> float | None:
    """Since when it has been drained, by this node's clock; None if it is not. What is no time was long ago."""
    if status.leave is None or status.leave.stage != "drained":
        return None
    try:
        return datetime.fromisoformat(status.leave.since).timestamp() - inputs.wall
    except ValueError:
        return float("-inf")


def _able(drained: float | None, gateway: Gateway, now: float) -> int | None:
    return ABLE if drained is None or now < drained + gateway.limits.idle_timeout else UNABLE


def _statuses(cluster: Cluster) -> Iterator[Status]:
    """Of the nodes that share connections. One that has vanished keeps its place for a while: our own probes decide."""
    for peer in cluster.peers.values():
        if not peer.error and peer.status is not None and not peer.status.stopping:
            yield peer.status


def _peers(inputs: Inputs, gateway: Gateway, now: float) -> Iterator[tuple[str, Address, int | None]]:
    """The other nodes that serve the gateway: name, address, and the weight that is set."""
    for status in _statuses(inputs.cluster):
        if status.gateway_address is not None and on_vip(gateway.name) in status.services:
            said = [status.vips[vip].own for vip in gateway.vips if vip in status.vips]
            ill = bool(said) and all(own in ("ill", "unable") for own in said)
            yield status.node, status.gateway_address, UNABLE if ill else _able(_drained(status, inputs), gateway, now)


def _node(name: str, address: Address, gateway: Gateway, spread: Spread, weight: int | None) -> Backend:
    check = replace(spread.check, address=address, port=gateway.port)
    return Backend(name, address, 0, check, forward="tunnel", through=True, override=weight)


def marks(gateways: Iterable[Gateway], before: HttpMemory, spread: Spread | None) -> dict[Endpoint, int]:
    """A firewall mark for each gateway: the one it has, or the lowest that is free; by every VIP and port of it.

    A gateway for which none is left has none, and shares nothing.
    """
    if spread is None:
        return {}
    low, high = spread.marks
    given: dict[Endpoint, int] = {}
    waiting = []
    for gateway in sorted(gateways, key=lambda gateway: gateway.name):
        places = [(vip, gateway.port) for vip in gateway.vips]
        known = next((before.marks[place] for place in places if place in before.marks), None)
        if known is not None and low <= known <= high and known not in given.values():
            given |= dict.fromkeys(places, known)
        else:
            waiting.append(places)
    taken = {*given.values(), *before.marks.values()}
    free = (mark for mark in range(low, high + 1) if mark not in taken)
    for places, mark in zip(waiting, free, strict=False):
        given |= dict.fromkeys(places, mark)
    return given


def ingress_marks(
    known: Mapping[Endpoint, int], spread: Spread | None, kernel: Tables
) -> Mapping[IngressKey, IngressMark]:
    """The marks that are wanted: where a node in the kernel's table takes new connections.

    Without such a node the connections go straight to this node's own HAProxy.
    """
    if spread is None or not known:
        return {}
    wanted: dict[IngressKey, IngressMark] = {}
    for (vip, port), mark in known.items():
        nodes = kernel.order.get(ServiceKey("fwmark", type(vip)(0), mark), ())
        if any(kernel.destinations[node].weight for node in nodes):
            wanted |= {IngressKey(interface, vip, port): IngressMark(mark) for interface in spread.interfaces}
    return wanted
