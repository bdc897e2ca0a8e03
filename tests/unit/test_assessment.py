"""What is taken out of all that is known, to judge one service on one VIP."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.assessment import assess, observe
from anycastlb.core.decision.basis import Basis
from anycastlb.core.decision.judgement import Observed
from anycastlb.core.decision.member import ObservedBackend
from anycastlb.core.model import (
    Backend,
    Check,
    CheckState,
    Destination,
    DestinationKey,
    Gate,
    Inputs,
    Memory,
    Reason,
    Result,
    Service,
    VirtualService,
)

VIP, OTHER, NOW = ip_address("192.0.2.1"), ip_address("192.0.2.2"), 100.0
UP = CheckState(True, since=50.0, last=Result(True, "seen", 0.1, 50.0))
REFUSAL = Reason("kernel_refused", "no")


def backend(number: int) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 10, 1, 2, 1))


WEB = Service("web", (VIP,), "tcp", 80, VirtualService("mh"), (backend(1), backend(2)))
KEY = WEB.key(VIP)
FIRST, SECOND = (DestinationKey(KEY, member.address, 80) for member in WEB.backends)
NOTHING = Observed((ObservedBackend(), ObservedBackend()))
OPEN = {"gates": {VIP: Gate(True, 0.0)}}
ROW = {("services", KEY): (VirtualService("mh"), 30.0)}


@pytest.mark.parametrize(
    ("memory", "inputs", "basis", "observed"),
    [
        ({}, {}, {}, NOTHING),
        # One that is new on an announced VIP takes no more than to stay open.
        (OPEN, {}, {}, replace(NOTHING, announced=True, was_open=True)),
        ({**OPEN, "rows": ROW}, {}, {}, replace(NOTHING, announced=True)),
        ({**OPEN, "rows": ROW, "serving": frozenset({KEY})}, {}, {}, replace(NOTHING, announced=True, was_open=True)),
        ({"serving": frozenset({KEY})}, {}, {}, replace(NOTHING, was_open=True)),
        ({"gates": {VIP: Gate(False, 0.0)}}, {}, {}, NOTHING),
        ({"gates": {OTHER: Gate(True, 0.0)}}, {}, {}, NOTHING),
        (OPEN, {"stopping": True}, {}, NOTHING),
        ({"followed": {("web", KEY): None}}, {}, {}, replace(NOTHING, followed=True)),
        ({"followed": {("api", KEY): None}}, {}, {}, NOTHING),
        ({}, {}, {"refused": {KEY: REFUSAL}}, replace(NOTHING, refusal=REFUSAL)),
        ({}, {}, {"replaced": frozenset({KEY})}, replace(NOTHING, replaced=True)),
        ({}, {}, {"replaced": frozenset({VIP})}, NOTHING),
        # Its backends.
        (
            {
                "up_since": {FIRST: 40.0},
                "rows": {("destinations", FIRST): (Destination("tunnel", 70, 100), 30.0)},
                "unproven": {SECOND: 95.0},
            },
            {"health": {WEB.backends[0].check: UP}},
            {"refused": {SECOND: REFUSAL}},
            Observed((ObservedBackend(UP, 40.0, 70), ObservedBackend(refusal=REFUSAL, unproven=95.0))),
        ),
        (
            {"rows": {("destinations", SECOND): (Destination("tunnel", 0, 100), 30.0)}},
            {},
            {},
            Observed((ObservedBackend(), ObservedBackend(weight=0))),
        ),
    ],
)
def test_what_a_service_is_judged_by(
    memory: dict[str, Any], inputs: dict[str, Any], basis: dict[str, Any], observed: Observed
) -> None:
    given = Basis(Inputs(**inputs), Memory(**memory), NOW, **{"refused": {}, **basis})
    assert observe(given, WEB, VIP) == observed


def test_one_that_cannot_be_judged_is_left_out() -> None:
    given = Basis(Inputs(), Memory(), NOW, {})
    broken = replace(WEB, backends=None, vips=(OTHER,))  # type: ignore[arg-type]
    (judged,) = assess(given, [(broken, OTHER), (WEB, VIP)])
    assert judged.verdict.key == KEY and list(given.contained.faults) == [OTHER]
