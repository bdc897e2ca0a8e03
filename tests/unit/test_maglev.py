"""Whole tables of the model, pinned: that they are the kernel's is tested flow by flow in ``tests/kernel``."""

from __future__ import annotations

import cProfile
import hashlib
from ipaddress import ip_address

import pytest

from anycastlb.core.decision import maglev
from anycastlb.core.model import Destination, DestinationKey, ServiceKey, State, VirtualService

V4, V6 = "192.0.2.10", "2001:db8::10"
FLAGS = frozenset({"mh-port", "mh-fallback"})
MH = VirtualService("mh", FLAGS)
CLIENTS = (("198.51.100.7", 40000), ("198.51.100.7", 40001), ("2001:db8:f::7", 40000), ("203.0.113.255", 21))
Weight = int | tuple[int, int | None]
Rows = dict[DestinationKey, Destination]


def pool(vip: str, prefix: str, *weights: Weight) -> Rows:
    """Backends with these weights; of a pair the second one is the last weight that was not 0."""
    key = ServiceKey("tcp", ip_address(vip), 80)
    pairs = [weight if isinstance(weight, tuple) else (weight, weight) for weight in weights]
    return {
        DestinationKey(key, ip_address(f"{prefix}{number}"), 80): Destination("dr", now, last)
        for number, (now, last) in enumerate(pairs, 1)
    }


@pytest.mark.parametrize(
    ("vip", "prefix", "weights", "digest", "picks"),
    [
        (V4, "10.0.0.", (10,) * 10, "7a3a1f72a730", (10, 1, 1, 2)),
        (V4, "10.0.0.", (10, 30, 70), "c60eadc9bbc0", (2, 1, 1, 3)),
        # More bits than a weight may have: 100 and 99 become 50 and 49.
        (V4, "10.0.0.", (100,) * 9 + (99,), "ddfa39c75652", (10, 1, 1, 2)),
        # One of hardly any weight has its turn all the same.
        (V4, "10.0.0.", (1, 100), "3201f1918a3f", (2, 2, 1, 2)),
        # One that is down keeps its slots, one that never had a weight has none.
        (V4, "10.0.0.", ((0, 10), 20, (0, None)), "7598516f1792", (2, 2, 2, 2)),
        # Under an IPv4 VIP only the first word of a backend's IPv6 address counts, under an IPv6 VIP all four do.
        (V4, "2001:db8:1::", (10, 10, 20), "3c0d90d4303f", (3, 1, 1, 3)),
        (V6, "2001:db8:1::", (10, 10, 20), "339bfa9337f9", (3, 3, 3, 3)),
        (V6, "2001:db8:1:2:3:4:5:", (1, 2), "1fd96c3fb704", (2, 2, 2, 2)),
    ],
)
def test_whole_tables(vip: str, prefix: str, weights: tuple[Weight, ...], digest: str, picks: tuple[int, ...]) -> None:
    rows = pool(vip, prefix, *weights)
    table, names = maglev.build(MH, rows), list(rows)
    assert hashlib.sha256(bytes(map(names.index, table.slots))).hexdigest()[:12] == digest
    picked = [table.pick(ip_address(client), port) for client, port in CLIENTS]
    assert picked == [names[number - 1] for number in picks]


def test_flows_of_one_that_is_down_go_to_all_others() -> None:
    """Those from these ports: each is hashed again until it meets a backend that takes flows."""
    rows = pool(V4, "10.0.0.", (0, 10), 10, 10, 10)
    table, names = maglev.build(MH, rows), list(rows)
    ports = (40001, 40002, 40007, 40012, 40018, 40023, 40024, 40026)
    before = maglev.build(MH, pool(V4, "10.0.0.", 10, 10, 10, 10))
    client = ip_address("198.51.100.7")
    assert {before.pick(client, port) for port in ports} == {names[0]}
    picked = [table.pick(client, port) for port in ports]
    assert [names.index(name) + 1 for name in picked if name] == [4, 2, 2, 4, 2, 2, 2, 2]


def test_no_new_flow_comes_from_the_port_of_ftp_data() -> None:
    table = maglev.build(MH, pool(V4, "10.0.0.", 10))
    client = ip_address("198.51.100.7")
    assert [table.pick(client, port) is None for port in (19, 20, 21)] == [False, True, False]


def test_a_clients_port_counts_only_with_its_flag() -> None:
    rows, client = pool(V4, "10.0.0.", *[10] * 10), ip_address("198.51.100.7")
    for flags, alike in ((FLAGS, False), (frozenset({"mh-fallback"}), True)):
        table = maglev.build(VirtualService("mh", flags), rows)
        assert (len({table.pick(client, port) for port in range(1000, 1050)}) == 1) is alike
    clients = [ip_address(f"198.51.100.{number}") for number in range(1, 9)]
    names, picked = list(rows), [table.pick(client, 40000) for client in clients]
    assert [names.index(name) + 1 for name in picked if name] == [3, 6, 4, 8, 10, 10, 8, 8]


@pytest.mark.parametrize("weights", [(), ((0, None),), ((0, 10),)])
def test_a_pool_that_takes_no_flow_moves_none_and_gets_none(weights: tuple[Weight, ...]) -> None:
    empty, full = maglev.build(MH, pool(V4, "10.0.0.", *weights)), maglev.build(MH, pool(V4, "10.0.0.", 10, 10))
    assert empty.pick(ip_address("198.51.100.7"), 40000) is None
    assert maglev.moved(empty, full, flows=50) == 0.0 and maglev.moved(full, empty, flows=50) == 1.0
    assert set(maglev.shares(empty, flows=50).values()) <= {0.0}


WEB, OTHER = (ServiceKey("tcp", ip_address(vip), 80) for vip in (V4, V6))


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ({WEB: MH}, {WEB: MH}, {WEB}),
        ({}, {WEB: MH}, set()),
        ({WEB: MH}, {}, set()),
        ({WEB: VirtualService("wrr")}, {WEB: MH}, set()),
        ({WEB: MH}, {WEB: VirtualService("wrr")}, set()),
        ({WEB: VirtualService("wrr")}, {WEB: VirtualService("wrr")}, set()),
        ({WEB: MH, OTHER: MH}, {WEB: MH, OTHER: MH}, {WEB}),
    ],
)
def test_whose_flows_a_change_may_move(
    before: dict[ServiceKey, VirtualService], after: dict[ServiceKey, VirtualService], moves: set[ServiceKey]
) -> None:
    """Only of the first service a backend dies."""
    one, two = pool(V4, "10.0.0.", 10, 10), pool(V4, "10.0.0.", (0, 10), 10)
    same = pool(V6, "2001:db8:1::", 10, 10)
    moving = maglev.moves(
        State(services=before, destinations=one | same), State(services=after, destinations=two | same)
    )
    assert moving.keys() == moves
    assert all(0.4 < share < 0.6 for share in moving.values())


def test_the_order_of_the_backends_counts() -> None:
    rows = pool(V4, "10.0.0.", 10, 10)
    states = [State(services={WEB: MH}, destinations=dict(given)) for given in (rows.items(), reversed(rows.items()))]
    assert 0.0 < maglev.moves(*states)[WEB] < 0.1


def test_the_sample_is_hashed_once_for_all_services() -> None:
    """An import of 1,000 services hashed 40 million words, minutes of a processor, before it was answered."""
    rows = {ServiceKey("tcp", ip_address(f"192.0.2.{n}"), 80): VirtualService("mh", frozenset({"mh-port"}), False, 0, 0)
            for n in range(1, 6)}  # fmt: skip

    def state(weight: int) -> State:
        destinations = {
            DestinationKey(key, ip_address(f"10.0.0.{n}"), 80): Destination("dr", weight if n == 1 else 100, None)
            for key in rows
            for n in (1, 2, 3)
        }
        return State(services=rows, destinations=destinations)

    assert len(maglev.moves(state(50), state(100), limit=3)) == 3
    profile = cProfile.Profile()
    assert len(profile.runcall(maglev.moves, state(50), state(100))) == 5
    hashed = sum(e.callcount for e in profile.getstats() if getattr(e.code, "co_name", "") == "_hash")
    assert hashed <= 2 * 2 * 15, "each backend's address, twice, in two tables"
