"""The route of a VIP: what all its services say of it in one, and how it looks before it is withdrawn."""

from __future__ import annotations

from typing import Any

import pytest

from anycastlb.core.decision.node_drain import COMMUNITY
from anycastlb.core.decision.routes import marked, merged_route, route_of
from anycastlb.core.model import Announce, DrainRules, Inputs, NodeDrain, Policy, Reason, Route


@pytest.mark.parametrize(
    ("routes", "merged"),
    [
        ([], Route()),
        ([Route()], Route()),
        # Communities are united, and sorted.
        ([Route(communities=("2:2", "1:1")), Route(communities=("1:1", "3:3"))], Route(("1:1", "2:2", "3:3"))),
        (
            [Route(large_communities=("2:2:2",)), Route(large_communities=("1:1:1", "2:2:2"))],
            Route(large_communities=("1:1:1", "2:2:2")),
        ),
        # The first that says a number counts; 0 is a number.
        ([Route(), Route(med=0), Route(med=5)], Route(med=0)),
        ([Route(), Route(local_preference=0), Route(local_preference=5)], Route(local_preference=0)),
        # The longest path.
        ([Route(as_path_prepend=1), Route(as_path_prepend=3), Route(as_path_prepend=2)], Route(as_path_prepend=3)),
    ],
)
def test_one_route_for_all_services_of_a_vip(routes: list[Route], merged: Route) -> None:
    assert merged_route(Announce(route=route) for route in routes) == merged


@pytest.mark.parametrize(
    ("route", "rules", "before_withdrawal"),
    [
        (Route(), {}, Route((COMMUNITY,))),
        (
            Route(("65535:666", "1:1"), med=5, as_path_prepend=2),
            {},
            Route(("1:1", COMMUNITY, "65535:666"), (), 5, None, 2),
        ),
        (Route(med=5), {"med": 0}, Route((COMMUNITY,), med=0)),
        (Route(local_preference=50, as_path_prepend=2), {"prepend": 3}, Route((COMMUNITY,), (), None, 50, 5)),
        (Route(large_communities=("1:1:1",)), {"prepend": 1}, Route((COMMUNITY,), ("1:1:1",), as_path_prepend=1)),
    ],
)
def test_a_route_before_it_is_withdrawn(route: Route, rules: dict[str, Any], before_withdrawal: Route) -> None:
    assert marked(route, DrainRules(**rules)) == before_withdrawal


@pytest.mark.parametrize(
    ("stage", "route"),
    [
        (None, Route(med=5)),
        ("waiting", Route(med=5)),
        ("graceful", Route((COMMUNITY,), med=7)),
        ("withdrawn", Route(med=5)),
    ],
)
def test_a_node_that_leaves_marks_its_routes(stage: Any, route: Route) -> None:
    drain = None if stage is None else NodeDrain(stage, "drained", 90.0, None, Reason(stage, ""))
    inputs = Inputs(Policy("lb1", drain_rules=DrainRules(med=7)))
    assert route_of(inputs, drain, [Announce(route=Route(med=5))]) == route
