"""Which route a request is for: the routes of a catalog by gateway and hostname. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from anycastlb.core.http.graph import Graph
from anycastlb.core.http.request import Target, hosts_of
from anycastlb.core.http.routes import graph_of
from anycastlb.core.model import Gateway, HttpRoute


@dataclass(frozen=True, slots=True)
class Site:
    """A hostname of a gateway, with what decides of its requests."""

    hostname: str
    route: HttpRoute
    graph: Graph


class Sites:
    """All of them. Hostnames are claimed, so each belongs to one route."""

    def __init__(self, routes: Iterable[HttpRoute]) -> None:
        self._sites: dict[tuple[str, str], Site] = {}
        for route in routes:
            graph = graph_of(route)
            for gateway in route.gateways:
                for host in route.hostnames:
                    self._sites.setdefault((gateway, host), Site(host, route, graph))

    def find(self, gateway: str, host: str) -> Site | None:
        """The site of a host: its own, else that of the closest wildcard; None: HAProxy answers 404."""
        found = (self._sites.get((gateway, name)) for name in hosts_of(host))
        return next((site for site in found if site is not None), None)


def listening(gateways: Iterable[Gateway], target: Target, host: str) -> list[Gateway]:
    """The gateways that a request may come to: those of its scheme and port, and of its VIP if its host is one."""
    fitting = [
        one for one in gateways if one.port == target.port and (one.tls is not None) == (target.scheme == "https")
    ]
    address = host.removeprefix("[").removesuffix("]")
    return [one for one in fitting if address in map(str, one.vips)] or fitting
