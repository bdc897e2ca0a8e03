"""Small, colliding states for the laws: few VIPs, few ports, few backends, so that everything meets everything."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st

from anycastlb.core.model import (
    ConsulKey,
    ConsulService,
    Destination,
    DestinationKey,
    DnsKey,
    DnsRecord,
    Route,
    ServiceKey,
    State,
    VipAddress,
    VirtualService,
)

VIPS = [ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")]
BACKENDS = [ip_address(f"10.0.0.{n}") for n in range(1, 5)]


@st.composite
def destinations(draw: st.DrawFn) -> Destination:
    nominal = draw(st.sampled_from([1, 10, 20]))
    weight = draw(st.sampled_from([0, nominal]))
    return Destination(draw(st.sampled_from(["tunnel", "nat"])), weight, nominal)


@st.composite
def states(draw: st.DrawFn, served: bool = True) -> State:
    """Any state; with ``served`` one in which every announced VIP has an address and a service with a destination."""
    keys = draw(
        st.lists(st.builds(ServiceKey, st.just("tcp"), st.sampled_from(VIPS), st.sampled_from([80, 443])), unique=True)
    )
    services, rows = {}, {}
    for key in keys:
        services[key] = VirtualService(
            draw(st.sampled_from(["mh", "rr"])), draw(st.sampled_from([frozenset(), frozenset({"mh-port"})]))
        )
        for address in draw(st.lists(st.sampled_from(BACKENDS), unique=True)):
            rows[DestinationKey(key, address, 80)] = draw(destinations())
    addresses = {vip: VipAddress() for vip in draw(st.lists(st.sampled_from(VIPS), unique=True))}
    servable = (
        [vip for vip in addresses if any(key.service.address == vip for key in rows)] if served else list(addresses)
    )
    announced = draw(st.lists(st.sampled_from(servable), unique=True)) if servable else []
    routes = {vip: Route(med=draw(st.sampled_from([None, 10]))) for vip in announced}
    named = draw(st.lists(st.sampled_from(announced), unique=True)) if announced else []
    records = {
        DnsKey("www.lb.", "A" if vip.version == 4 else "AAAA", str(vip)): DnsRecord(
            draw(st.sampled_from([30, 60])), "web"
        )
        for vip in named
    }
    registered = {
        ConsulKey("web", vip, "lb1"): ConsulService(
            "web", vip, 80, passing=vip in announced and draw(st.booleans()), reason=draw(st.sampled_from(["", "up"]))
        )
        for vip in draw(st.lists(st.sampled_from(VIPS), unique=True))
    }
    return State(
        addresses=addresses,
        services=services,
        destinations=rows,
        routes=routes,
        dns_records=records,
        consul_services=registered,
    )
