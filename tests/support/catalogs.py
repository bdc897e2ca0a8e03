"""Small catalogs, whose services share VIPs and backends, for the laws."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import strategies as st

from anycastlb.core.model import (
    Announce,
    Backend,
    Catalog,
    Check,
    Service,
    Share,
    VirtualService,
)

VIPS = [ip_address("192.0.2.1"), ip_address("192.0.2.2")]


SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 40.0])


def backend(number: int, weight: int = 100, drain: bool = False) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 1, 1, 1, 1), weight, drain)


@st.composite
def services(draw: st.DrawFn, name: str, port: int) -> Service:
    members = draw(st.lists(st.integers(1, 4), unique=True))
    return Service(
        name=name,
        vips=tuple(draw(st.lists(st.sampled_from(VIPS), min_size=1, unique=True))),
        protocol="tcp",
        port=port,
        virtual=VirtualService("mh"),
        backends=tuple(backend(n, draw(st.sampled_from([0, 50, 99, 100])), draw(st.booleans())) for n in members),
        announce=Announce(
            min_backends=draw(st.sampled_from([Share(1), Share(2), Share(percent=50)])),
            when=draw(st.sampled_from(["any", "all"])),
            fail=draw(st.sampled_from(["withdraw", "keep"])),
            hold_up=draw(SECONDS),
            hold_down=draw(SECONDS),
        ),
        drain=draw(SECONDS),
        slow_start=draw(SECONDS),
    )


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    names = draw(st.lists(st.sampled_from([("web", 80), ("api", 443)]), unique=True))
    drained = draw(st.sampled_from([frozenset(), frozenset(), frozenset({"lb1"})]))
    return Catalog(tuple(draw(services(name, port)) for name, port in names), drained)
