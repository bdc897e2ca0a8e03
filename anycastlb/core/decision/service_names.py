"""Which names should be published: rows of DNS and of Consul's services, as they follow from catalog, gates and peers.

A record in DNS belongs to all nodes that announce its VIP, so no node removes it because of its own gate alone. It is
wanted while *any* living node announces the VIP, it is removed when none does, and it stays as it is while that is
not known. A service in Consul belongs to one node, and is ``passing`` while that node announces the VIP.

Pure. Nothing is decided about a table that was not seen yet. Decision record:
docs/decisions/0008-names-in-other-places.md.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from anycastlb.core.decision.containment import Containment
from anycastlb.core.decision.sessions import cut_off
from anycastlb.core.model import (
    Address,
    Cluster,
    ConsulKey,
    ConsulName,
    ConsulService,
    DnsKey,
    DnsName,
    DnsPolicy,
    DnsRecord,
    Inputs,
    Service,
    Status,
    Verdict,
)

Vote = bool | None
"""Yes, no, or not known: leave it as it stands."""


MAX_REASON = 500
"""Characters of a reason that are written to Consul."""


@dataclass(frozen=True, slots=True)
class PeerAnnouncements:
    """What the other nodes announce, as far as their reports say."""

    known: bool
    """Whoever is not named here announces nothing."""
    announced: frozenset[Address] = frozenset()
    services: frozenset[str] = frozenset()
    """Services that living peers judge."""


UNHEARD = PeerAnnouncements(known=False)


def view(cluster: Cluster, had_peers: bool | None = None) -> PeerAnnouncements:
    """``had_peers``: were other nodes ever known? A node that never had any is alone, also while Consul is away."""
    if not cluster.follows:
        return PeerAnnouncements(known=True)
    if not cluster.connected:
        return PeerAnnouncements(known=had_peers is False)
    living = [peer for peer in cluster.peers.values() if peer.alive]
    statuses = [peer.status for peer in living if peer.status is not None and not peer.error]
    return PeerAnnouncements(
        known=len(statuses) == len(living),
        announced=frozenset(vip for status in statuses for vip in _announced(status)),
        services=frozenset(name for status in statuses for name in status.services),
    )


def _announced(status: Status) -> Iterable[Address]:
    lost = cut_off(status.sessions)
    return (vip for vip, summary in status.vips.items() if summary.announced and vip.version not in lost)


def had_peers(cluster: Cluster, before: bool | None) -> bool | None:
    """Were other nodes ever known? Once there were, one of them may only be out of sight."""
    if before or cluster.peers:
        return True
    return False if cluster.connected or not cluster.follows else before


def votes(inputs: Inputs, open_vips: Container[Address]) -> Callable[[Address], Vote]:
    """Does this node announce a VIP: its gate is open, its route was seen, and a BGP session carries it."""

    def vote(vip: Address) -> Vote:
        if vip not in open_vips:
            return False
        return None if inputs.announced is None else vip in inputs.announced

    return vote


# ---------------------------------------------------------------- DNS


@dataclass(frozen=True, slots=True)
class Places:
    """The names of one service, absolute."""

    host: str
    srv: str
    """Empty: none."""
    ttl: int


def places(service: Service, policy: DnsPolicy) -> Places | None:
    """Where this service stands in DNS; None if nowhere."""
    asked = service.dns or (DnsName() if policy.every else None)
    if asked is None or not asked.publish:
        return None
    host = f"{asked.name or service.name}.{policy.domain}".lower()
    ttl = policy.ttl if asked.ttl is None else asked.ttl
    return Places(host, f"{asked.srv}.{host}".lower() if asked.srv else "", max(1, round(ttl)))


def dns_names(services: Iterable[Service], policy: DnsPolicy) -> frozenset[str]:
    """Every name that these services may have, whether it exists now or not."""
    known = [place for service in services if (place := places(service, policy))]
    return frozenset(name for place in known for name in (place.host, place.srv) if name)


def dns_records(
    inputs: Inputs, own: Callable[[Address], Vote], peers: PeerAnnouncements, contained: Containment
) -> Mapping[DnsKey, DnsRecord]:
    """The records that should exist. Those of a service about which something fails stay as they are."""
    policy, standing = inputs.policy.naming.dns, inputs.names.get("dns_records")
    if policy is None or standing is None:
        return {}
    votes: dict[DnsKey, Vote] = {}
    rows: dict[str, DnsRecord] = {}
    failed: set[str] = set()
    for service in inputs.catalog.services:
        asks = contained.of(service.name, _asked, service, policy, own, peers)
        if asks is None:
            failed.add(service.name)
            continue
        for key, vote in asks.votes:
            votes[key] = _either(votes.get(key, False), vote)
        for name in asks.names:
            before = rows.get(name)  # services that share a name: the first one's, with the shortest time to live
            rows[name] = DnsRecord(min(asks.ttl, before.ttl if before else asks.ttl), (before or asks).service)
    wanted = {key: rows[key.name] for key, vote in votes.items() if vote}
    fresh = {key.name for key in wanted}
    services = {service.name for service in inputs.catalog.services}
    for key, row in standing.items():
        if key in votes:
            if votes[key] is None:
                wanted[key] = rows[key.name] if key.name in fresh else row
        elif row.service in failed or (
            row.service not in services and (row.service in peers.services or not peers.known)
        ):
            wanted[key] = row
    return wanted


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one service asks of DNS."""

    service: str
    names: tuple[str, ...] = ()
    votes: tuple[tuple[DnsKey, Vote], ...] = ()
    ttl: int = 0


def _asked(service: Service, policy: DnsPolicy, own: Callable[[Address], Vote], peers: PeerAnnouncements) -> _Asked:
    place = places(service, policy)
    if place is None:
        return _Asked(service.name)
    announced = {vip: _together(own(vip), peers, vip) for vip in service.vips}
    votes = [(DnsKey(place.host, "A" if vip.version == 4 else "AAAA", str(vip)), v) for vip, v in announced.items()]
    if place.srv:
        key = DnsKey(place.srv, "SRV", f"0 0 {service.port} {place.host}")
        votes += [(key, vote) for vote in announced.values()]
    return _Asked(service.name, tuple(filter(None, (place.host, place.srv))), tuple(votes), place.ttl)


def _together(own: Vote, peers: PeerAnnouncements, vip: Address) -> Vote:
    if own or vip in peers.announced:
        return True
    return None if own is None or not peers.known else False


def _either(one: Vote, other: Vote) -> Vote:
    if one or other:
        return True
    return None if one is None or other is None else False


# ---------------------------------------------------------------- Consul


def consul_services(
    inputs: Inputs, own: Callable[[Address], Vote], verdicts: Mapping[Address, Verdict], contained: Containment
) -> Mapping[ConsulKey, ConsulService]:
    """The service instances of this node that should be registered; none once it stops.

    Those of a service about which something fails stay as they are.
    """
    standing = inputs.names.get("consul_services")
    if not inputs.policy.naming.consul or standing is None or inputs.stopping:
        return {}
    wanted: dict[ConsulKey, ConsulService] = {}
    for service in inputs.catalog.services:
        rows = contained.of(service.name, _instances, service, inputs.node, own, verdicts, standing)
        if rows is None:
            rows = {key: row for key, row in standing.items() if key.service == service.name}
        wanted |= rows
    return wanted


def _instances(
    service: Service,
    node: str,
    own: Callable[[Address], Vote],
    verdicts: Mapping[Address, Verdict],
    standing: Mapping[ConsulKey, ConsulService],
) -> dict[ConsulKey, ConsulService]:
    asked = service.consul or ConsulName()
    rows: dict[ConsulKey, ConsulService] = {}
    for vip in service.vips if asked.publish else ():
        key = ConsulKey(service.name, vip, node)
        vote, verdict, before = own(vip), verdicts.get(vip), standing.get(key)
        reason = verdict.reason.text if verdict else "not decided yet"
        if vote is None and before is not None:
            vote, reason = before.passing, before.reason
        elif not vote and verdict and verdict.open:
            reason = "its route is not up"
        port = 0 if service.protocol == "fwmark" else service.port
        name = asked.name or f"anycastlb-{service.name}"
        rows[key] = ConsulService(name, vip, port, asked.tags, bool(vote), reason[:MAX_REASON])
    return rows
