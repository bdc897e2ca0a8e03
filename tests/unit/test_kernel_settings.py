"""Settings as desired state: wanted while they are, as found when not, and all as found at the very end."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision import kernel_settings
from anycastlb.core.decision.decide import decide
from anycastlb.core.model import (
    Backend,
    Catalog,
    Check,
    Destination,
    DestinationKey,
    Inputs,
    Memory,
    Policy,
    Service,
    ServiceKey,
    State,
    VirtualService,
)
from anycastlb.settings.ipvs import CACHED

KEY = ServiceKey("tcp", ip_address("192.0.2.10"), 80)
POLICY = Policy(sysctls={"a": "1"}, config={"udp_timeout": 20}, cached_config=CACHED)
INPUTS = Inputs(
    POLICY,
    originals={"sysctls": {"a": "0", "b": "7"}, "config": {"tcp_timeout": 900, "sync_master": None}},
)


def state(scheduler: str = "mh", forward: Any = "dr", **more: Any) -> State:
    services = {KEY: VirtualService(scheduler, **more)}
    rows = {DestinationKey(key, ip_address("10.0.0.1"), 80): Destination(forward, 1, 1) for key in services}
    return State(services=services, destinations=rows)


def laid(desired: State, inputs: Inputs = INPUTS) -> tuple[dict[str, str], dict[str, Any]]:
    cached = kernel_settings.only_caches(desired.services, desired.destinations)
    return kernel_settings.sysctls(inputs, probing=False), kernel_settings.config(inputs, cached)


def test_what_is_not_wanted_is_wanted_as_it_was_found() -> None:
    assert laid(state("rr")) == ({"a": "1", "b": "7"}, {"udp_timeout": 20, "tcp_timeout": 900, "sync_master": None})


def test_entries_that_are_only_caches_are_kept_for_a_short_time() -> None:
    config = laid(state())[1]
    assert config == {"udp_timeout": 20, "sync_master": None, **CACHED}
    explicit = replace(INPUTS, policy=replace(POLICY, config={"tcp_timeout": 500}))
    assert laid(state(), explicit)[1]["tcp_timeout"] == 500


FULL = replace(state(), destinations={key: replace(row, upper=9) for key, row in state().destinations.items()})


@pytest.mark.parametrize(
    "desired", [State(), state("rr"), state("sh"), state(forward="nat"), state(persistence=9), FULL]
)
def test_entries_that_are_more_than_caches_are_left_alone(desired: State) -> None:
    assert not kernel_settings.only_caches(desired.services, desired.destinations)


def test_rows_of_probes_do_not_count() -> None:
    """A probe through IPVS is scheduled by ``rr``, which says nothing of the real flows."""
    check = Check("tcp", ip_address("10.0.0.1"), 80, (), 1, 1, 1, 1)
    backend = Backend("b1", ip_address("10.0.0.1"), 80, check, through=True)
    web = Service("web", (KEY.address,), "tcp", 80, VirtualService("mh"), (backend,))
    desired = decide(replace(INPUTS, catalog=Catalog((web,))), Memory(), 1.0).desired
    assert [key.protocol for key in desired.services] == ["tcp", "fwmark"]
    assert desired.config["tcp_timeout"] == CACHED["tcp_timeout"]


def test_at_the_end_everything_is_as_it_was_found() -> None:
    assert laid(State(), replace(INPUTS, stopping=True))[0] == {"a": "1", "b": "7"}
    last = replace(INPUTS, stopping=True, emptied=True)
    assert laid(State(), last) == ({"a": "0", "b": "7"}, {"tcp_timeout": 900, "sync_master": None})


def test_nothing_is_asked_for_where_the_operator_manages_it() -> None:
    assert laid(state(), Inputs()) == ({}, {})
