"""The route of a VIP, from what all its services say about it and from how far this node leaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from anycastlb.core.decision.node_drain import COMMUNITY
from anycastlb.core.decision.own_drain import graceful
from anycastlb.core.model import Announce, DrainRules, Inputs, NodeDrain, Route


def route_of(inputs: Inputs, drain: NodeDrain | None, announces: Iterable[Announce]) -> Route:
    """The route of a VIP, for as long as its gate is open."""
    route = merged_route(announces)
    return marked(route, inputs.policy.drain_rules) if graceful(drain) else route


def marked(route: Route, rules: DrainRules) -> Route:
    """The route as it is announced before it is withdrawn."""
    return replace(
        route,
        communities=tuple(sorted({*route.communities, COMMUNITY})),
        med=route.med if rules.med is None else rules.med,
        as_path_prepend=route.as_path_prepend + rules.prepend,
    )


def merged_route(announces: Iterable[Announce]) -> Route:
    """One route for all services of a VIP: communities are united, of the rest the first that is set counts."""
    routes = [announce.route for announce in announces]
    return Route(
        communities=tuple(sorted({c for route in routes for c in route.communities})),
        large_communities=tuple(sorted({c for route in routes for c in route.large_communities})),
        med=next((route.med for route in routes if route.med is not None), None),
        local_preference=next((r.local_preference for r in routes if r.local_preference is not None), None),
        as_path_prepend=max((route.as_path_prepend for route in routes), default=0),
    )
