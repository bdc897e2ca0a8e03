"""Which failed changes a decision depends on."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.basis import refusals, refused
from anycastlb.core.model import (
    Change,
    Destination,
    DestinationKey,
    Failure,
    Inputs,
    Policy,
    Reason,
    Route,
    ServiceKey,
    VirtualService,
)

VIP = ip_address("192.0.2.1")
WEB = ServiceKey("tcp", VIP, 80)
B1 = DestinationKey(WEB, ip_address("10.0.0.1"), 80)
UNSWITCHED, MH = VirtualService("none"), VirtualService("mh")
LOW, HIGH = Destination("dr", 1, 1), Destination("dr", 100, 100)


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (Change("addresses", VIP, None, "a row"), True),
        (Change("services", WEB, None, MH), True),
        (Change("destinations", B1, None, LOW), True),
        # It is filled with its destinations first, and serves only with its scheduler.
        (Change("services", WEB, UNSWITCHED, MH), True),
        (Change("services", WEB, MH, VirtualService("wrr")), False),
        (Change("destinations", B1, LOW, HIGH), False),
        (Change("addresses", VIP, "a row", None), False),
        (Change("services", WEB, UNSWITCHED, None), False),
        (Change("destinations", B1, LOW, None), False),
        (Change("routes", VIP, None, Route()), False),
        (Change("sysctls", "net.ipv4.ip_forward", None, "1"), False),
    ],
)
def test_what_could_not_be_built_counts_and_what_still_serves_as_it_was_does_not(change: Any, counts: bool) -> None:
    failure = Failure(change, Reason("no", "no"))
    assert refusals([failure]) == ((failure,) if counts else ())
    inputs = Inputs(Policy("lb1"), failures=(failure,))
    assert refused(inputs) == ({change.key: failure.reason} if counts else {})
