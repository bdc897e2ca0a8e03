"""Any one function of parsing, assessing, gating, planning and telling fails whenever it meets one service.

Every other service goes on, the one is never announced while its backends are dead and is closed only with a reason,
the node lives, its restart serves the others, and all is well as soon as the function is. The functions are walked, so
that nobody need think of them: some of them in each run of the suite, ``ANYCASTLB_EXAMPLES=1000`` tries them all, and
``ANYCASTLB_SEED=7`` others.
"""

from __future__ import annotations

import asyncio
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest

from anycastlb.engine.node import Node
from tests.support.breaking import Break, about, broken, functions
from tests.support.examples import EXAMPLES
from tests.support.world import SEED, VIP, WEB, World, until

PACKAGES = (
    "anycastlb.core.catalog",
    "anycastlb.core.decision",
    "anycastlb.core.fields",
    "anycastlb.core.model.catalog",
    "anycastlb.core.scalars",
    "anycastlb.adapters.cluster.status_document",
    "anycastlb.engine.catalog_events",
    "anycastlb.engine.catalog_in_force",
    "anycastlb.engine.catalog_parser",
    "anycastlb.engine.cycle_events",
    "anycastlb.engine.follower",
    "anycastlb.engine.verdicts",
)
GATES = (
    "quarantine",
    "Containment",
    "cycle_events._contained",
    "verdicts.contained",
    "Verdicts.broken",
    "Follower._contained",
)
"""What contains the faults of all others must not fail itself."""
FUNCTIONS = {
    name: function
    for name, function in functions(*PACKAGES).items()
    if not any(gate in name for gate in GATES) and "__" not in name
}
CHOSEN = Random(SEED).sample(sorted(FUNCTIONS), min(EXAMPLES or 20, len(FUNCTIONS)))
ODD_VIP = ip_address("192.0.2.66")
BACKENDS = {f"odd{n}": {"address": f"10.66.0.{n}"} for n in range(1, 5)}
ADDRESSES = {row["address"] for row in BACKENDS.values()}
NAMES = frozenset({"odd", "services/odd", ODD_VIP, str(ODD_VIP), *BACKENDS, *ADDRESSES, *map(ip_address, ADDRESSES)})
ODD = {**WEB, "vip": str(ODD_VIP), "backends": {name: BACKENDS[name] for name in ("odd1", "odd2", "odd3")}}
MORE_ODD = {**ODD, "backends": BACKENDS, "scheduler": "rr"}
MORE_WEB = {**WEB, "backends": {**WEB["backends"], "web4": {"address": "10.1.0.4"}}}


@pytest.mark.parametrize("name", CHOSEN)
async def test_a_function_that_fails_for_one_service_is_felt_by_no_other(name: str, tmp_path: Path) -> None:
    world = World(str(tmp_path))
    world.put("services/web", WEB)
    world.put("services/odd", ODD)
    with broken(FUNCTIONS[name], partial(about, NAMES)) as switch:
        async with world.node() as node:
            await until(lambda: world.announced == {VIP, ODD_VIP} and _serves(world, 6), within=10)
            await _break(world, node, switch)
        async with world.node():
            await until(lambda: VIP in world.announced and world.weights().get("10.1.0.4"), within=15)
            switch.on = False
            await until(lambda: world.announced == {VIP, ODD_VIP} and _serves(world, 8), within=40)


async def _break(world: World, node: Node, switch: Break) -> None:
    """The function is broken; both services are edited, and lose backends."""
    switch.on = True
    world.put("services/odd", MORE_ODD)
    world.put("services/web", MORE_WEB)
    world.dead = {"10.1.0.1"}
    await until(lambda: world.weights()["10.1.0.1"] == 0 and world.weights().get("10.1.0.4"), within=15)
    assert VIP in world.announced
    world.dead |= ADDRESSES
    await until(lambda: ODD_VIP not in world.announced, within=15)
    await asyncio.sleep(3)
    assert VIP in world.announced
    assert world.router.heartbeats[-1] > asyncio.get_running_loop().time() - 3, "the node lives"
    world.dead = set()
    await until(lambda: world.weights()["10.1.0.1"] == 100, within=15)
    await asyncio.sleep(10)
    assert ODD_VIP in world.announced or "internal error" in _told(node), "it is closed only with a reason"


def _serves(world: World, backends: int) -> bool:
    weights = world.weights()
    return len(weights) == backends and all(weights.values())


def _told(node: Node) -> str:
    """Everything that an operator can read of the one service."""
    snapshot: Any = node.snapshot
    texts = [verdict.reason.text for vip, verdict in snapshot.decision.verdicts.items() if vip == ODD_VIP]
    texts += [row.reason.text for key, row in snapshot.decision.backends.items() if str(key.address) in ADDRESSES]
    texts += [failure.reason.text for failure in snapshot.failures]
    texts += [str(problem) for problem in snapshot.inputs.catalog.problems]
    return "\n".join(texts)


def test_functions_of_every_kind_are_met() -> None:
    """What is walked is what is meant: from each step there is one that is known to meet a single service."""
    meant = {
        "anycastlb.core.catalog.reading.Reading.read_service",
        "anycastlb.core.catalog.service._backend",
        "anycastlb.core.decision.pool.weigh",
        "anycastlb.core.decision.gate._united",
        "anycastlb.core.decision.plan.phase",
        "anycastlb.core.decision.failed_changes.FailedChanges.blocks",
        "anycastlb.engine.cycle_events._gate_event",
        "anycastlb.engine.verdicts.Verdicts.fold",
    }
    assert meant <= FUNCTIONS.keys()
    assert len(FUNCTIONS) > 400
