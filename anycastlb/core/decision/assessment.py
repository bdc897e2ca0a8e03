"""Assess services on VIPs by this node's own probes: take out what is known of each, and judge it."""

from __future__ import annotations

from collections.abc import Iterable

from anycastlb.core.decision import health
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.http.gateways import judge_listener
from anycastlb.core.decision.judgement import Judgement, Observed, judge
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.decision.vip_groups import Place
from anycastlb.core.model import Address, DestinationKey, Service, ServiceKey, gateway_on_vip


def assess(basis: Basis, places: Iterable[Place]) -> tuple[Judgement, ...]:
    """These services on these VIPs, by this node's own probes."""

    def one(service: Service, vip: Address) -> Judgement:
        if (gateway := gateway_on_vip(service.name)) is not None:
            heard = basis.listening[gateway]
            refusal = basis.refused.get(ServiceKey("tcp", vip, heard.port))
            nodes = judge(service, vip, observe(basis, service, vip), basis.now).members if service.backends else ()
            return judge_listener(service, vip, heard, refusal, nodes)
        return judge(service, vip, observe(basis, service, vip), basis.now)

    every = (basis.contained.of(vip, one, service, vip) for service, vip in places)
    return tuple(item for item in every if item is not None)


def observe(basis: Basis, service: Service, vip: Address) -> Observed:
    """What is known of one service on one VIP, taken out of all that is known."""
    inputs, memory, refused = basis.inputs, basis.memory, basis.refused
    key, before = service.key(vip), memory.gates.get(vip)
    announced = before is not None and before.open and not inputs.stopping
    new = announced and ("services", key) not in memory.rows
    backends = []
    for backend in service.members(vip):
        name = DestinationKey(key, backend.address, backend.port)
        row, _ = memory.rows.get(("destinations", name), (None, 0.0))
        backends.append(
            ObservedBackend(
                inputs.health.get(service.check(vip, backend), health.UNKNOWN),
                memory.up_since.get(name),
                row and row.weight,
                refused.get(name),
                memory.unproven.get(name),
            )
        )
    followed = (service.name, key) in memory.followed
    was_open = new or key in memory.serving
    return Observed(tuple(backends), refused.get(key), was_open, followed, announced, key in basis.replaced)
