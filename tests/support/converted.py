"""What a node makes of converted documents while every backend is up."""

from __future__ import annotations

import json
import time

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.decision.decide import adopt, decide
from anycastlb.core.importers import Documents
from anycastlb.core.model import MARKS, Catalog, CheckState, Entry, Feed, Inputs, Policy, Result, State, Tree
from anycastlb.engine.node import checks


def desired(documents: Documents, actual: State) -> State:
    """The desired state of a node that starts over ``actual``. The documents must be without a problem."""
    tree = Tree({key: Entry(json.dumps(value).encode()) for key, value in documents.items()})
    catalog = parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert (len(catalog.services), catalog.problems) == (len(documents), ())
    now = time.monotonic()
    up = CheckState(up=True, since=now, last=Result(True, "assumed up", 0.0, now))
    inputs = Inputs(
        Policy(node="lb1", marks=MARKS),
        catalog=catalog,
        feed=Feed(connected=True, loaded=True, since=now),
        health=dict.fromkeys(checks(catalog), up),
    )
    return decide(inputs, adopt(actual, now, inputs.policy.marks), now).desired
