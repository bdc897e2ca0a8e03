"""How a node leaves the routes, stage by stage, so that no flow notices.

Theory of operation
-------------------

*The stages* (``Stage``), in their order:

* ``waiting``: while a table is about to change somewhere, a flow that moves to another node may meet another backend
  there. So a planned drain waits until the tables are stable and the same on all nodes, but no longer than
  ``settle``.
* ``graceful``: every route stays up with the community 65535:0 (RFC 8326), so that routers move flows to other nodes
  while both ways still work. It lasts ``graceful`` seconds.
* ``withdrawn``: the routes are gone. VIPs and services stay for what still comes. It ends when almost no packet came
  for ``QUIET`` seconds, or after ``deadline``.
* ``drained``: the node may be taken away.

*What moves them.* ``step`` is called once in each decision with what is going on (``DrainFacts``), and may pass
several stages at once. A stage that has nothing to do, as its time in node.toml is 0, is passed at once. A node that
stops passes through ``graceful`` and ``withdrawn`` only: its own drain times follow. A node that announced nothing
begins with ``withdrawn``; one whose routes carry the community already (its former process put it there) begins with
``graceful``. Undraining ends the drain at any stage.

*Why it is safe.* Every stage that waits for something has a latest end (``until``), so nothing that other nodes or the
traffic do can hold a drain up for ever; ``overdue`` says that this was the reason. Stages only go forward. What depends
on the traffic can shorten a stage, and never lengthen it.

docs/ROLLING.md explains the stages to operators.
Decision record: docs/decisions/0011-decisions-as-a-pipeline-reasons-as-values.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from anycastlb.core.decision.sessions import cut_off
from anycastlb.core.model import (
    Address,
    Cluster,
    Drain,
    DrainRules,
    Inputs,
    NodeDrain,
    Peer,
    Reason,
    Route,
    ServiceKey,
    Stage,
    Traffic,
    TrafficCounters,
)

COMMUNITY = "65535:0"
"""GRACEFUL_SHUTDOWN of RFC 8326, always as numbers: a word of its name would end ExaBGP."""
STEADY = 3.0
"""Seconds without a change after which a table counts as stable, in company: statuses are published once a second."""
LOOK = 1.0
"""Seconds between two looks at what cannot tell by itself that it has changed."""
QUIET = 5.0
"""Seconds with at most ``STRAY`` packets after which nothing comes any more; the kernel counts every two seconds."""
STRAY = 5
KEPT = 6
"""Samples of the traffic that are kept."""


@dataclass(frozen=True, slots=True)
class DrainFacts:
    """What the next stage depends on."""

    cause: Literal["", "drained", "stopping"]
    rules: DrainRules
    deadline: float = 0.0
    announced: bool = True
    """Did this node announce anything until now?"""
    marked: bool = False
    """Did its routes carry the community already? Only its former process can have done so."""
    company: bool = False
    """Are there other living nodes?"""
    trouble: Reason | None = None
    """Why the table is not stable, if so."""
    table: int = 0
    """A number that is another whenever the table is."""
    traffic: Traffic | None = None


def step(before: NodeDrain | None, seen: DrainFacts, now: float) -> tuple[NodeDrain | None, float | None]:
    """How far the node is after this look, and when to look again (None: nothing changes by itself)."""
    if not seen.cause:
        return None, None
    leave = _begun(seen, now) if before is None else _continued(before, seen)
    while (further := _further(leave, seen, now)) is not None:
        leave = further
    return leave, _wake(leave, seen, now)


def marked(route: Route, rules: DrainRules) -> Route:
    """The route as it is announced before it is withdrawn."""
    return replace(
        route,
        communities=tuple(sorted({*route.communities, COMMUNITY})),
        med=route.med if rules.med is None else rules.med,
        as_path_prepend=route.as_path_prepend + rules.prepend,
    )


# ---------------------------------------------------------------- the stages


def _begun(seen: DrainFacts, now: float) -> NodeDrain:
    first: Stage = "waiting"
    if not seen.announced:
        first = "withdrawn"
    elif seen.marked or seen.cause == "stopping":
        first = "graceful"
    return _entered(first, seen, now)


def _continued(leave: NodeDrain, seen: DrainFacts) -> NodeDrain:
    """The same stage, perhaps for another cause: a node that is stopped after its routes are gone counts no packets."""
    cause = seen.cause or leave.cause
    if leave.stage == "withdrawn" and cause != leave.cause:
        return replace(leave, cause=cause, until=None, reason=_stage_reason(leave.stage, cause, seen.rules))
    return replace(leave, cause=cause)


def _entered(stage: Stage, seen: DrainFacts, now: float, late: Reason | None = None) -> NodeDrain:
    """The first moment of a stage. ``late``: why the stage before it ended because its time was over."""
    rules, cause, until = seen.rules, seen.cause or "drained", None
    if stage == "waiting":
        until = now + rules.settle
    elif stage == "graceful":
        until = now + rules.graceful
    elif stage == "withdrawn" and cause == "drained":
        until = now + seen.deadline
    reason = _stage_reason(stage, cause, rules)
    if late:
        reason = late if stage == "drained" else reason.also(late.text, late.code)
    return NodeDrain(stage, cause, now, until, reason, overdue=bool(late))


def _stage_reason(stage: Stage, cause: str, rules: DrainRules) -> Reason:
    if stage == "waiting":
        return _waits(None)
    if stage == "graceful":
        text = f"its routes carry {COMMUNITY} for {rules.graceful:g} s, so that routers prefer other nodes"
        return Reason("graceful", text)
    if stage == "drained":
        return Reason("drained", "nothing comes any more")
    if cause == "drained":
        text = f"its routes are withdrawn; it waits until almost no packet came for {QUIET:g} s"
        return Reason("withdrawn", text)
    return Reason("withdrawn", "its routes are withdrawn; what it serves ends when its drain time is over")


def _further(leave: NodeDrain, seen: DrainFacts, now: float) -> NodeDrain | None:
    """The next step from here; None if there is none now."""
    if leave.stage == "waiting":
        return _waiting(leave, seen, now)
    leave = (counted := _counted(leave, seen.traffic)) or leave
    if leave.stage == "graceful" and leave.until is not None and now >= leave.until:
        return replace(_entered("withdrawn", seen, now), samples=leave.samples)
    if leave.stage == "withdrawn" and leave.cause == "drained":
        if leave.calm is not None and leave.samples[-1].at >= leave.calm.at + QUIET:
            return replace(_entered("drained", seen, now), samples=leave.samples)
        if leave.until is not None and now >= leave.until:
            return replace(_entered("drained", seen, now, _late(leave)), samples=leave.samples)
    return counted


def _waiting(leave: NodeDrain, seen: DrainFacts, now: float) -> NodeDrain | None:
    if seen.cause == "stopping":
        return _entered("graceful", seen, now)
    if leave.until is not None and now >= leave.until:
        why = f": {seen.trouble}" if seen.trouble else ""
        late = Reason("unsettled", f"it waited no longer than {seen.rules.settle:g} s for a stable table{why}")
        return _entered("graceful", seen, now, late if seen.rules.settle else None)
    unchanged = leave.unchanged
    if seen.trouble:
        unchanged = None
    elif unchanged is None or unchanged[0] != seen.table:
        unchanged = seen.table, now
    if unchanged is not None and now >= unchanged[1] + _steady(seen):
        return _entered("graceful", seen, now)
    waiting = replace(leave, unchanged=unchanged, reason=_waits(seen.trouble))
    return waiting if waiting != leave else None


def _waits(trouble: Reason | None) -> Reason:
    cause = trouble or Reason("settling", f"nothing may change for {STEADY:g} s")
    return Reason(cause.code, f"it waits for a stable table: {cause}", cause.object)


def _steady(seen: DrainFacts) -> float:
    return STEADY if seen.company else 0.0


def _late(leave: NodeDrain) -> Reason:
    if not leave.samples:
        return Reason("overdue", "its time is over; nobody counts what still comes")
    return Reason("overdue", f"its time is over, and {rate(leave):.0f} packets/s still came")


def _counted(leave: NodeDrain, traffic: Traffic | None) -> NodeDrain | None:
    """With one sample more; None if it is no news."""
    last = leave.samples[-1].at if leave.samples else leave.since - LOOK
    if traffic is None or leave.stage == "drained" or traffic.at <= last:
        return None
    calm = leave.calm
    if leave.stage == "withdrawn":
        if traffic.at < leave.since:
            calm = None
        elif calm is None or not 0 <= traffic.packets - calm.packets <= STRAY:
            calm = traffic
    return replace(leave, samples=(*leave.samples, traffic)[-KEPT:], calm=calm)


def _wake(leave: NodeDrain, seen: DrainFacts, now: float) -> float | None:
    if leave.until is None:
        return None
    if leave.stage == "waiting" and leave.unchanged is not None:
        return min(leave.until, now + LOOK, leave.unchanged[1] + _steady(seen))
    return min(leave.until, now + LOOK)


# ---------------------------------------------------------------- is the table stable?


def trouble(inputs: Inputs, routes: Iterable[Address]) -> Reason | None:
    """Why the cluster is not ready to lose this node, which announces ``routes``; None if it is."""
    cluster = inputs.cluster
    if not cluster.follows:
        return None
    if not cluster.connected:
        return Reason("peers_unknown", "the other nodes are not known now")
    forced = inputs.catalog.drains.get(inputs.node, Drain()).force
    if not forced and (ahead := _ahead(inputs)):
        limit = inputs.policy.drain_rules.max_drained
        return Reason("drain_budget", f"{_named(ahead)} drained too, and at most {limit} may be at once")
    if not forced and (alone := last_announced(cluster, routes)):
        more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
        return Reason("last_announcer", f"no other node that stays announces {alone[0]}{more}", str(alone[0]))
    if cluster.catalogs is not None:
        return Reason("catalogs_differ", "the nodes have different catalogs in force")
    if cluster.tables:
        service, difference = min(cluster.tables.items())
        names = sorted(name for names in difference.parties.values() for name in names)
        return Reason("tables_differ", f"the tables of {service} differ between {', '.join(names)}", service)
    return None


def company(inputs: Inputs) -> bool:
    """Is there another living node?"""
    return any(peer.alive for peer in inputs.cluster.peers.values())


def last_announced(cluster: Cluster, vips: Iterable[Address], node: str = "") -> list[Address]:
    """Those of the VIPs that no other living node announces which is to stay; ``node`` does not count."""
    others = [peer for peer in cluster.peers.values() if _stays(peer) and peer.name != node]
    return [vip for vip in vips if not any(_announces(peer, vip) for peer in others)]


def _stays(peer: Peer) -> bool:
    status = peer.status
    if not peer.alive or status is None or peer.error or status.stopping:
        return False
    return not status.drained or (status.leave is not None and status.leave.stage == "waiting")


def _announces(peer: Peer, vip: Address) -> bool:
    status = peer.status
    if status is None or vip not in status.vips or vip.version in cut_off(status.sessions):
        return False
    return status.vips[vip].announced


def _ahead(inputs: Inputs) -> list[str]:
    """The nodes that were drained before this one, if they spend the budget already."""
    limit, catalog = inputs.policy.drain_rules.max_drained, inputs.catalog

    def age(node: str) -> tuple[int, str]:
        entry = catalog.good.get(f"drain/{node}")
        return (entry.created if entry else 0), node

    known = [node for node in catalog.drained if node in inputs.cluster.peers]
    ahead = sorted((node for node in known if age(node) < age(inputs.node)), key=age)
    return ahead if limit and len(ahead) >= limit else []


def _named(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''} {'is' if len(names) == 1 else 'are'}"


# ---------------------------------------------------------------- what still comes


def count(counters: Mapping[Any, TrafficCounters], at: float, probes: tuple[int, int]) -> Traffic:
    """The sum over all services but those of probes, whose firewall marks are ``probes``."""
    packets = connections = 0
    for key, counted in counters.items():
        service = key if isinstance(key, ServiceKey) else key.service
        if service.protocol == "fwmark" and probes[0] <= service.port <= probes[1]:
            continue
        if key is service:
            packets += counted.packets_in + counted.packets_out
        else:
            connections += counted.active
    return Traffic(at, packets, connections)


def rate(leave: NodeDrain) -> float:
    """Packets a second over the samples that are kept."""
    return _rate(leave.samples)


def eta(leave: NodeDrain, now: float) -> float | None:
    """Seconds until the node is drained, by what is known now; None while nobody can say."""
    if leave.stage == "drained":
        return 0.0
    if leave.stage == "waiting" or leave.until is None:
        return None
    left = max(0.0, leave.until - now)
    if leave.stage == "graceful":
        return left + QUIET
    if leave.calm is not None and leave.samples[-1].at > leave.calm.at:
        return min(left, max(0.0, leave.calm.at + QUIET - now))
    half = len(leave.samples) // 2
    earlier, later = _rate(leave.samples[: half + 1]), _rate(leave.samples[half:])
    if not half or later >= earlier:
        return left
    between = (leave.samples[-1].at - leave.samples[0].at) / 2
    return min(left, later * between / (earlier - later) + QUIET)


def _rate(samples: tuple[Traffic, ...]) -> float:
    if len(samples) < 2:
        return 0.0
    first, last = samples[0], samples[-1]
    return max(0.0, (last.packets - first.packets) / (last.at - first.at))
