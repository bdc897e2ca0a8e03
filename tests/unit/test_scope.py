"""What of a decision must be made anew; that it is enough is in the law of the incremental brain."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.health import alike
from anycastlb.core.decision.remembered import FROM_SCRATCH, Remembered
from anycastlb.core.decision.scope import Scope, scope_of
from anycastlb.core.model import (
    Address,
    Backend,
    Catalog,
    Change,
    Check,
    CheckState,
    Cluster,
    Failure,
    Inputs,
    Peer,
    Policy,
    Reason,
    Result,
    Service,
    ServiceKey,
    Share,
    Status,
    VirtualService,
)

ONE, TWO = ip_address("192.0.2.1"), ip_address("192.0.2.2")
GOOD, BAD = Result(True, "seen", 0.1, 50.0), Result(False, "no answer", 0.1, 50.0)
UP, DOWN = CheckState(True, since=50.0, last=GOOD), CheckState(False, since=50.0, last=BAD)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (CheckState(), CheckState(), True),
        (CheckState(), UP, False),
        (UP, CheckState(), False),
        (CheckState(), CheckState(streak=1), False),
        (UP, replace(UP, last=None), False),
        # Evidence that confirms a check that is up does not count.
        (UP, replace(UP, last=replace(GOOD, at=60.0), agreed=3), True),
        (UP, replace(UP, last=replace(GOOD, detail="other")), False),
        (UP, replace(UP, since=51.0), False),
        (UP, replace(UP, asks=(50, False)), False),
        (UP, replace(UP, up=False), False),
        # Of one that is down, each result may tell when it comes back.
        (DOWN, replace(DOWN, last=replace(BAD, at=60.0)), False),
        (DOWN, replace(DOWN, agreed=3), True),
        # The record counts by the tenths that it earns.
        (replace(UP, record=(9.0, 10)), replace(UP, record=(9.0, 10)), True),
        (replace(UP, record=(90.0, 100)), replace(UP, record=(91.0, 100)), True),
        (replace(UP, record=(89.0, 100)), replace(UP, record=(90.0, 100)), False),
    ],
)
def test_which_states_of_a_check_say_the_same_to_a_decision(one: CheckState, other: CheckState, same: bool) -> None:
    assert alike(one, other) is alike(other, one) is same


def backend(number: int) -> Backend:
    address = ip_address(f"10.0.0.{number}")
    return Backend(f"b{number}", address, 80, Check("tcp", address, 80, (), 10, 1, 2, 1))


def service(name: str, vip: Address, *numbers: int, **more: Any) -> Service:
    return Service(name, (vip,), "tcp", 80, VirtualService("mh"), tuple(map(backend, numbers)), **more)


WEB, API = service("web", ONE, 1), service("api", TWO, 2)
KEY = ServiceKey("tcp", ONE, 80)
HEALTH = {backend(n).check: UP for n in (1, 2, 3)}
INPUTS = Inputs(Policy("lb1"), Catalog((WEB, API)), health=HEALTH)


def at_rest(inputs: Inputs = INPUTS) -> Remembered:
    """A decision that nothing changes any more."""
    last = decide_again(FROM_SCRATCH, inputs, FROM_SCRATCH.decision.memory, 100.0)
    for turn in range(3):
        last = decide_again(last, inputs, last.decision.memory, 101.0 + turn)
    return last


REST = at_rest()


def following(last: Remembered = REST, now: float = 110.0, **inputs: Any) -> Scope:
    return scope_of(last, replace(last.inputs, **inputs), last.decision.memory, now)


def health(number: int, state: CheckState | None) -> dict[Check, CheckState]:
    known = {**HEALTH, backend(number).check: state or UP}
    return {check: value for check, value in known.items() if state is not None or check != backend(number).check}


@pytest.mark.parametrize(
    ("inputs", "anew"),
    [
        ({}, ()),
        ({"health": health(1, replace(UP, last=replace(GOOD, at=60.0)))}, ()),
        ({"health": health(1, DOWN)}, (ONE,)),
        ({"health": health(2, DOWN)}, (TWO,)),
        ({"health": health(2, None)}, (TWO,)),
        ({"health": health(3, DOWN)}, ()),  # nobody's
        ({"health": health(4, DOWN)}, ()),
        ({"catalog": Catalog((replace(WEB), API))}, ()),
        ({"catalog": Catalog((replace(WEB, drain=5.0), API))}, (ONE,)),
        ({"catalog": Catalog((WEB,))}, ()),
        ({"catalog": Catalog((API, WEB))}, ()),
        ({"catalog": Catalog((WEB, API, service("dns", ONE, 3)))}, (ONE,)),
        ({"failures": (Failure(Change("addresses", TWO, None, "a row"), Reason("no", "no")),)}, (TWO,)),
        ({"failures": (Failure(Change("services", KEY, None, "a row"), Reason("no", "no")),)}, (ONE,)),
    ],
)
def test_which_groups_are_decided_anew(inputs: dict[str, Any], anew: tuple[Address, ...]) -> None:
    assert following(**inputs).anew == anew


def test_all_of_them_are_decided_from_scratch() -> None:
    memory = REST.decision.memory
    scope = scope_of(FROM_SCRATCH, INPUTS, memory, 110.0)
    assert scope.anew == (ONE, TWO) and scope.doubtful == list(memory.rows.items())
    assert [before for _, _, before in scope.groups()] == [None, None]
    other = scope_of(REST, INPUTS, replace(memory), 110.0)
    assert other.anew == (ONE, TWO) and other.last is FROM_SCRATCH, "this memory is not what it has left"


def test_checks_are_known_by_the_groups_that_have_them() -> None:
    first, second, third = (backend(number).check for number in (1, 2, 3))
    assert REST.by_check == {first: (ONE,), second: (TWO,)}
    shared = following(catalog=Catalog((WEB, service("api", TWO, 1, 3)))).by_check
    assert shared == {first: (ONE, TWO), third: (TWO,)}
    last = at_rest(replace(INPUTS, catalog=Catalog((WEB, service("api", TWO, 1, 3)))))
    assert following(last, catalog=Catalog((WEB, API))).by_check == {first: (ONE,), second: (TWO,)}
    assert following(last, catalog=Catalog((service("api", TWO, 1, 3),))).by_check == {first: (TWO,), third: (TWO,)}


@pytest.mark.parametrize(
    ("services", "replaced"),
    [
        ((WEB, API), set()),
        ((replace(WEB, drain=5.0), API), set()),
        ((service("web", ONE, 3), API), {KEY}),
        ((service("web", ONE, 1, 3), API), set()),
        # A service that is gone, or has no backends any more, is replaced by the VIP's others.
        ((service("www", ONE, 3), API), {KEY}),
        ((service("web", ONE), API), {ONE}),
        ((replace(service("web", ONE, 3), port=81), API), {ONE}),
        ((API,), {ONE}),
    ],
)
def test_whose_old_backends_still_get_flows(services: tuple[Service, ...], replaced: set[object]) -> None:
    scope = following(catalog=Catalog(services))
    assert scope.basis.replaced == replaced
    assert (ONE in scope.unsteady) == bool(replaced and ONE in scope.grouping.groups)


def test_a_backend_that_got_no_flows_is_not_replaced() -> None:
    last = at_rest(replace(INPUTS, health=health(1, DOWN)))
    assert following(last, catalog=Catalog((service("web", ONE, 3), API))).basis.replaced == set()


MARKED = Service("marked", (TWO,), "fwmark", 7, VirtualService("mh"), (backend(3),))


@pytest.mark.parametrize(
    ("before", "after", "anew", "replaced"),
    [
        # The old backend serves on until the new one was checked, and leaves after that.
        ((WEB, API), (service("web", ONE, 5), API), (ONE,), {KEY}),
        ((WEB, API), (service("web", ONE, 3), API), (ONE,), set()),
        # What is left of a service or of a mark concerns the services that its VIP still has.
        ((WEB, API, replace(service("dns", TWO, 3), port=53)), (WEB, API), (TWO,), set()),
        ((WEB, API, MARKED), (WEB, API), (TWO,), set()),
        ((WEB, API), (WEB,), (), set()),
    ],
)
def test_a_group_with_rows_that_leave_is_decided_by_every_decision(
    before: tuple[Service, ...], after: tuple[Service, ...], anew: tuple[Address, ...], replaced: set[object]
) -> None:
    last = at_rest(replace(INPUTS, catalog=Catalog(before)))
    inputs = replace(INPUTS, catalog=Catalog(after))
    last = decide_again(last, inputs, last.decision.memory, 105.0)
    scope = following(last, 106.0)
    assert scope.anew == anew and scope.basis.replaced == replaced and not scope.changed
    assert scope.unsteady & {ONE, TWO} == {*anew}


def test_a_backend_that_is_wanted_again_is_not_replaced() -> None:
    inputs = replace(INPUTS, catalog=Catalog((service("web", ONE, 5), API)))
    edited = decide_again(REST, inputs, REST.decision.memory, 105.0)
    assert following(edited, 106.0).basis.replaced == {KEY}
    assert following(edited, 106.0, catalog=Catalog((service("web", ONE, 1, 5), API))).basis.replaced == set()


PEERS = Cluster(True, connected=True, peers={"lb2": Peer("lb2", True, Status("lb2"))})


@pytest.mark.parametrize(
    ("inputs", "anew"),
    [
        ({}, ()),
        ({"cluster": PEERS}, (ONE,)),
        ({"cluster": replace(PEERS, peers={})}, ()),
        ({"policy": Policy("lb1", max_withdrawals=Share(9))}, (ONE,)),
    ],
)
def test_a_vip_in_trouble_is_decided_by_every_decision_where_the_peers_count(
    inputs: dict[str, Any], anew: tuple[Address, ...]
) -> None:
    assert following(at_rest(replace(INPUTS, health=health(1, DOWN), **inputs))).anew == anew
    assert following(at_rest(replace(INPUTS, **inputs))).anew == ()


def test_a_slow_start_is_decided_anew_when_its_next_step_comes() -> None:
    slow = replace(INPUTS, catalog=Catalog((replace(WEB, slow_start=100.0), API)))
    last = at_rest(slow)
    due = last.decision.wake_at
    assert due is not None and following(last, now=due - 1.0).anew == () and following(last, now=due).anew == (ONE,)
