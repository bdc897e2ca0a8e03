"""The decision graph of a route, whichever way its document says it. Pure."""

from __future__ import annotations

from anycastlb.core.http.elb_graph import elb_graph
from anycastlb.core.http.graph import Graph
from anycastlb.core.http.rules_graph import rules_graph
from anycastlb.core.model import HttpRoute


def graph_of(route: HttpRoute) -> Graph:
    """Raises ``DeepGraph``."""
    if route.graph is not None:
        return elb_graph(route.name, route.graph)
    return rules_graph(route.name, route.rules)
