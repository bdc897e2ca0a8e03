"""What outlives a daemon, and what a new one believes of the kernel and of the record that it finds."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.core.decision.recollection import (
    BELIEVED,
    NOTHING_LEFT,
    Recorder,
    adopted_gates,
    alike,
    presumed_up,
    recalled,
    remember,
    weighted,
)
from anycastlb.core.model import (
    Catalog,
    Destination,
    DestinationKey,
    Gate,
    Inputs,
    Memory,
    Reason,
    Recollection,
    Route,
    Service,
    ServiceKey,
    ServiceVerdict,
    State,
    Verdict,
    VirtualService,
)
from tests.support.catalogs import backend

NOW, WALL = 1000.0, 1.7e9
VIP, OTHER, THIRD, FOURTH = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3, 4))
WEB = Service("web", (VIP, OTHER), "tcp", 80, VirtualService("mh"), (backend(1), backend(2)))
MARKED = Service("marked", (VIP, OTHER), "fwmark", 7, VirtualService("mh"), (backend(1),))
OPEN, CLOSED = Gate(True, 900.0), Gate(False, 900.0)


def kernel(*rows: tuple[ServiceKey, int, int], routes: tuple = ()) -> State:
    """A kernel with these destinations: service, number of the backend, weight."""
    table = {DestinationKey(key, backend(n).address, 80): Destination("tunnel", weight, 100) for key, n, weight in rows}
    return State(destinations=table, routes=dict.fromkeys(routes, Route()))


def key(vip: object, service: Service = WEB) -> ServiceKey:
    return service.key(vip)  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is kept


def test_gates_that_are_closed_or_carry_a_penalty_are_kept_in_wall_clock_time() -> None:
    gates = {
        VIP: replace(CLOSED, ready_since=950.0, penalty=5.0, penalty_at=940.0, suppressed_since=930.0),
        OTHER: replace(OPEN, penalty=NOTHING_LEFT, penalty_at=940.0),
        THIRD: replace(OPEN, penalty=NOTHING_LEFT - 0.1),
        FOURTH: CLOSED,
    }
    down = ServiceVerdict("web", key(VIP), False, 0, 2, 1, Reason("too_few_backends", ""))
    up = replace(down, key=key(OTHER), open=True)
    verdicts = tuple(Verdict(vip, True, Reason("", ""), 0.0, (service,)) for vip, service in ((VIP, down), (OTHER, up)))
    record = remember(Inputs(wall=WALL), Memory(gates=gates, serving=frozenset({key(OTHER)})), verdicts, NOW)
    assert record == Recollection(
        {
            VIP: Gate(False, WALL + 900.0, None, 5.0, WALL + 940.0, WALL + 930.0),
            OTHER: Gate(True, WALL + 900.0, None, NOTHING_LEFT, WALL + 940.0),
            FOURTH: Gate(False, WALL + 900.0, penalty_at=WALL),
        },
        frozenset({key(VIP)}),
        WALL + NOW,
    )


def test_records_that_differ_only_by_their_moment_and_penalties_say_the_same() -> None:
    record = Recollection({VIP: CLOSED}, frozenset({key(VIP)}), 1.0)
    assert alike(record, replace(record, at_wall=2.0, gates={VIP: replace(CLOSED, penalty=9.0, penalty_at=5.0)}))
    for other in (
        replace(record, below=frozenset()),
        replace(record, gates={}),
        replace(record, gates={OTHER: CLOSED}),
        *(
            replace(record, gates={VIP: replace(CLOSED, **changed)})
            for changed in ({"open": True}, {"since": 1.0}, {"suppressed_since": 1.0}, {"withdrawn_wall": 1})
        ),
    ):
        assert not alike(record, other)


# ---------------------------------------------------------------- what is believed of a record


def test_a_record_is_recalled_in_the_daemons_own_time() -> None:
    gate = Gate(False, WALL + 900.0, WALL + 950.0, 5.0, WALL + 940.0, WALL + 930.0, 77)
    record = Recollection({VIP: gate}, frozenset({key(VIP)}), WALL + NOW - 10.0)
    assert recalled(record, WALL, NOW) == replace(record, gates={VIP: Gate(False, 900.0, None, 5.0, 940.0, 930.0, 77)})
    assert recalled(None, WALL, NOW) == Recollection()


def test_nothing_of_a_record_lies_in_the_future() -> None:
    ahead = WALL + NOW + 50.0
    record = Recollection({VIP: Gate(False, ahead, None, 5.0, ahead, ahead)}, at_wall=WALL + NOW)
    assert recalled(record, WALL, NOW).gates == {VIP: Gate(False, NOW, None, 5.0, NOW, NOW)}


@pytest.mark.parametrize(
    ("age", "believed"),
    [(0.0, True), (BELIEVED, True), (-BELIEVED, True), (BELIEVED + 1.0, False), (-BELIEVED - 1.0, False)],
)
def test_an_old_record_closes_no_gate_but_its_penalties_count(age: float, believed: bool) -> None:
    gates = {VIP: Gate(False, WALL, penalty=9.0, penalty_at=WALL), OTHER: Gate(False, WALL, penalty_at=WALL)}
    record = Recollection(gates, frozenset({key(VIP)}), WALL + NOW - age)
    known = recalled(record, WALL, NOW)
    assert known.at_wall == record.at_wall
    if believed:
        assert known.gates == {VIP: Gate(False, 0.0, penalty=9.0), OTHER: Gate(False, 0.0)}
        assert known.below == record.below
    else:
        assert known.gates == {VIP: Gate(True, 0.0, penalty=9.0)} and not known.below


# ---------------------------------------------------------------- what is believed of the kernel


def test_services_with_weights_are_those_with_a_destination_that_has_one() -> None:
    assert weighted(kernel((key(VIP), 1, 0), (key(VIP), 2, 5), (key(OTHER), 1, 0))) == {key(VIP)}


@pytest.mark.parametrize("connected", [False, True])
def test_gates_are_open_whose_routes_are_known(connected: bool) -> None:
    record = Recollection({OTHER: replace(CLOSED, ready_since=950.0), VIP: replace(CLOSED, suppressed_since=1.0)})
    gates = adopted_gates(kernel(routes=(VIP,)), Catalog((WEB,)), record, connected, NOW)
    assert gates == {VIP: Gate(True, NOW, NOW), OTHER: CLOSED}


@pytest.mark.parametrize(
    ("before", "connected", "is_open"),
    [(None, False, True), (OPEN, False, True), (CLOSED, False, False), (None, True, None), (OPEN, True, False)],
)
def test_without_the_bridge_flows_say_what_was_open(before: Gate | None, connected: bool, is_open: bool | None) -> None:
    """Unless the record says that the gate was closed."""
    known = Recollection({VIP: before} if before else {})
    gates = adopted_gates(kernel((key(VIP), 1, 100), (key(OTHER), 1, 0)), Catalog((WEB,)), known, connected, NOW)
    assert (gates[VIP].open if VIP in gates else None) == is_open
    assert OTHER not in gates


def test_only_the_catalog_says_which_vips_a_mark_serves() -> None:
    marked = kernel((key(VIP, MARKED), 1, 100))
    assert adopted_gates(marked, Catalog((MARKED,)), Recollection(), False, NOW).keys() == {VIP, OTHER}
    assert adopted_gates(marked, Catalog((WEB,)), Recollection(), False, NOW) == {}


def test_what_an_open_gate_has_lost_from_the_kernel_counts_as_up() -> None:
    first, second = (DestinationKey(key(VIP), backend(n).address, 80) for n in (1, 2))
    catalog = Catalog((replace(WEB, vips=(VIP,)),))
    assert presumed_up(kernel(), catalog, {VIP: OPEN}) == {first, second}
    assert presumed_up(kernel((key(VIP), 1, 0)), catalog, {VIP: OPEN}) == {second}  # a row without a weight was down
    assert presumed_up(kernel((key(VIP), 1, 100)), catalog, {VIP: OPEN}) == frozenset()  # the other may be new
    assert presumed_up(kernel(), catalog, {VIP: CLOSED}) == frozenset()
    assert presumed_up(kernel(), catalog, {}) == frozenset()


# ---------------------------------------------------------------- one record after the other


VIPS = st.sampled_from([VIP, OTHER, THIRD])
gates = st.dictionaries(
    VIPS, st.sampled_from([OPEN, CLOSED, Gate(True, 900.0, penalty=500.0, penalty_at=990.0), Gate(True, 950.0)])
)
serving = st.frozensets(st.sampled_from([key(VIP), key(OTHER), key(VIP, MARKED)]))
judged = st.dictionaries(VIPS, st.lists(st.sampled_from([WEB, MARKED]), unique=True, max_size=2))
decisions = st.tuples(gates | st.none(), serving | st.none(), judged | st.none(), st.sampled_from([WALL, WALL + 5.0]))
"""Gates, the services that serve, the services of each VIP and the wall clock; None: the same objects as before."""


@given(st.lists(decisions, min_size=1, max_size=8))
def test_a_record_after_others_is_the_one_from_scratch(history: list) -> None:
    recorder, memory, verdicts = Recorder(), Memory(), {}
    records: list[tuple[Recollection, Recollection]] = []
    for number, (new_gates, new_serving, new_judged, wall) in enumerate(history):
        memory = memory if new_gates is None else replace(memory, gates=new_gates)
        memory = memory if new_serving is None else replace(memory, serving=new_serving)
        if new_judged is not None:
            verdicts = {vip: verdict(vip, *services) for vip, services in new_judged.items()}
        inputs, now = Inputs(wall=wall), NOW + number
        made = recorder.record(inputs, memory, verdicts, now)
        records.append((made, remember(inputs, memory, tuple(verdicts.values()), now)))
    assert all(made == afresh for made, afresh in records), "and none is changed by those that follow"


def verdict(vip: object, *services: Service) -> Verdict:
    shown = tuple(ServiceVerdict(one.name, key(vip, one), False, 0, 2, 1, Reason("", "")) for one in services)
    return Verdict(vip, open=False, reason=Reason("", ""), since=0.0, services=shown)  # type: ignore[arg-type]
