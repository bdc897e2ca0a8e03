"""What a node says of itself: to bytes and back, garbage, size, digests, and where nodes differ."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.core.catalog.fingerprint import fingerprint
from anycastlb.core.decision import decide
from anycastlb.core.model import (
    Catalog,
    CatalogSummary,
    ConsulInstances,
    Destination,
    DestinationKey,
    Entry,
    Feed,
    Inputs,
    Instance,
    Memory,
    Policy,
    ServiceSummary,
    SessionSummary,
    State,
    Status,
    VipSummary,
)
from tests.support import scene

NAMES = st.text(max_size=12)
VIPS = st.sampled_from([scene.WEB4, scene.WEB6, scene.DNS])
NUMBERS = st.integers(0, 2**40)
STATUSES = st.builds(
    Status,
    node=NAMES,
    version=NAMES,
    instance=NAMES,
    started=NAMES,
    ready=st.booleans(),
    missing=st.lists(NAMES, max_size=3).map(tuple),
    drained=st.booleans(),
    stopping=st.booleans(),
    catalog=st.builds(CatalogSummary, NUMBERS, NAMES, st.booleans(), st.booleans(), st.booleans()),
    vips=st.dictionaries(VIPS, st.builds(VipSummary, st.booleans(), st.booleans(), NAMES, NAMES), max_size=3),
    services=st.dictionaries(
        NAMES,
        st.dictionaries(
            VIPS,
            st.builds(
                ServiceSummary,
                st.booleans(),
                NUMBERS,
                NUMBERS,
                st.lists(NAMES, max_size=3).map(tuple),
                st.booleans(),
            ),
        ),
        max_size=3,
    ),
    digests=st.dictionaries(NAMES, NAMES, max_size=3),
    withdrawn=st.dictionaries(VIPS, NUMBERS, max_size=2),
    sessions=st.lists(st.builds(SessionSummary, NAMES, NAMES), max_size=2).map(tuple),
)


@given(STATUSES)
def test_bytes_and_back_is_the_same(status: Status) -> None:
    assert status_bytes.decode(status_bytes.encode(status), status.node) == status


@given(STATUSES, STATUSES)
def test_what_is_written_after_another_status_is_what_is_written_without(one: Status, other: Status) -> None:
    texts = status_bytes.Texts()
    for status in (one, one, replace(one, vips=other.vips), replace(other, services=one.services), other, one):
        assert status_bytes.fit(status, texts=texts) == status_bytes.fit(status)


def test_no_text_is_taken_for_a_part_of_the_status() -> None:
    odd = '"services":{}', '"vips":{}'
    vips = {scene.WEB4: VipSummary(True, True, odd[0])}
    status = Status(odd[1], missing=odd, digests={odd[0]: odd[1], "vips": "{}"}, vips=vips, sessions=())
    assert status_bytes.decode(status_bytes.encode(status), odd[1]) == status


def test_a_memory_of_the_status_before_changes_nothing_and_keeps_what_is_equal() -> None:
    memory = status_document.Digests(), status_document.Summaries()
    calm = scene.calm()
    backends = {key: replace(verdict, weight=verdict.weight + 1) for key, verdict in calm.decision.backends.items()}
    lighter = replace(calm, decision=replace(calm.decision, backends=backends))
    statuses = []
    for snapshot in (calm, lighter, scene.trouble(), lighter, calm):
        statuses.append(status_document.summarise(snapshot, memory=memory))
        assert statuses[-1] == status_document.summarise(snapshot)
    calm_one, lighter_one, *_ = statuses
    assert lighter_one.vips is calm_one.vips and lighter_one.services is calm_one.services


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(str))
def test_garbage_is_an_error_in_words(raw: bytes | str) -> None:
    with pytest.raises(status_bytes.UnreadableStatus, match="expected a node's status"):
        status_bytes.decode(raw.encode(errors="replace") if isinstance(raw, str) else raw, "lb1")


GOOD: dict[str, Any] = json.loads(
    status_bytes.encode(status_document.summarise(scene.trouble(), "2026-01-01T00:00:00.000Z"))
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in inner for path in paths(item, (*at, key)))]


@given(st.sampled_from(paths(GOOD)[1:]), st.sampled_from([None, [], {}, -1, "x", 1e400, True, [[]], {"a": 1}]))
def test_a_status_with_one_wrong_field_is_read_or_refused_but_breaks_nothing(path: Any, value: Any) -> None:
    document = json.loads(json.dumps(GOOD))
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    try:
        status = status_bytes.decode(json.dumps(document).encode(), "lb1")
    except status_bytes.UnreadableStatus:
        return
    status_document.compare([status, replace(status, node="lb2")], (None, {}), 1.0)
    assert status_bytes.decode(status_bytes.encode(status), "lb1") == status


def test_a_newer_version_may_say_more() -> None:
    more = json.loads(json.dumps(GOOD))
    more["status"]["moods"] = ["good"]
    more["status"]["catalog"]["colour"] = "red"
    assert status_bytes.decode(json.dumps(more).encode(), "lb1").node == "lb1"


def test_another_format_and_another_node_are_named() -> None:
    with pytest.raises(status_bytes.UnreadableStatus, match="format 3, and this node reads format 2 and older"):
        status_bytes.decode(b'{"format": 3, "status": {"all": "new"}}', "lb1")
    with pytest.raises(status_bytes.UnreadableStatus, match="the status of 'lb1', not of 'lb2'"):
        status_bytes.decode(json.dumps(GOOD).encode(), "lb2")


def test_what_a_node_says_of_itself() -> None:
    told = status_document.summarise(scene.trouble(), instance="here")
    assert (told.node, told.instance, told.ready) == ("lb1", "here", False)
    assert told.missing == (f"changes refused: 1; the first: create services tcp {scene.MAIL}:25: {scene.REFUSED}",)
    assert told.catalog == CatalogSummary(4711, told.catalog.hash, True, False, True)
    assert told.vips[scene.WEB4] == VipSummary(True, True, "2/3 backends up")
    assert told.vips[scene.DNS] == VipSummary(False, False, "1/4 backends up, needs 2")
    assert told.services["web"][scene.WEB4] == ServiceSummary(True, 2, 3, ("web3",))
    assert told.services["web"][scene.WEB6] == ServiceSummary(True, 2, 2)
    assert told.sessions == (SessionSummary("10.0.0.1", "up"), SessionSummary("2001:db8:0:1::1", "down"))


def test_time_that_passes_is_nothing_new() -> None:
    snapshot = scene.trouble()
    later = replace(snapshot, at=snapshot.at + 100, at_wall=snapshot.at_wall + 100, cycle=snapshot.cycle + 1)
    assert status_document.summarise(later) == status_document.summarise(snapshot)


def test_when_all_are_down_one_star_says_so() -> None:
    service = scene.RESOLVER
    inputs = Inputs(Policy("lb1"), Catalog((service,)), Feed(True, 0.0, loaded=True))
    decision = decide.decide(inputs, Memory(), 1.0)
    told = status_document.summarise(replace(scene.calm(), inputs=inputs, decision=decision))
    assert told.services["dns"][scene.DNS] == ServiceSummary(False, 0, 4, ("*",))


def large(services: int = 1000, backends: int = 10) -> Status:
    """A status of many services, half of whose backends are down."""
    down = tuple(f"web-frontend-{number:02d}.dc1" for number in range(backends // 2))
    vips = {ip_address(0x0AC00000 + number): f"customer-service-{number:04d}" for number in range(services)}
    return Status(
        "lb1",
        vips={vip: VipSummary(True, True, f"{backends // 2}/{backends} backends up") for vip in vips},
        services={name: {vip: ServiceSummary(True, 5, backends, down)} for vip, name in vips.items()},
        digests=dict.fromkeys(vips.values(), "0123456789abcdef"),
    )


def test_a_thousand_services_fit_into_one_key() -> None:
    raw = status_bytes.encode(large())
    assert len(raw) < 512 * 1024
    assert status_bytes.decode(raw, "lb1") == large()


def healthy(vips: int) -> Status:
    """A status of services of one VIP each: what no two of them have in common cannot be packed."""
    addresses = {ip_address(0x0A800000 + number): f"service-{number}" for number in range(vips)}
    return Status(
        "lb1",
        ready=True,
        vips={vip: VipSummary(True, True, "10/10 backends up", "well") for vip in addresses},
        services={name: {vip: ServiceSummary(True, 10, 10)} for vip, name in addresses.items()},
        digests={name: sha256(name.encode()).hexdigest()[:16] for name in addresses.values()},
    )


def test_ten_thousand_services_fit_into_one_key_with_all_that_peers_decide_by() -> None:
    whole = healthy(10_000)
    value, omitted = status_bytes.fit(whole)
    assert len(value) < status_bytes.MAX_BYTES and omitted == ()
    assert status_bytes.decode(value, "lb1") == whole


def test_a_status_of_a_thousand_services_is_read_by_nodes_that_do_not_unpack() -> None:
    assert json.loads(status_bytes.encode(healthy(1000)))["format"] == status_bytes.FORMAT
    assert json.loads(status_bytes.encode(healthy(2000))).keys() == {"format", "packed"}


def test_what_does_not_fit_is_left_out_and_named() -> None:
    whole = large(1000)
    reasons = {vip: replace(item, reason=f"reason {vip}") for vip, item in whole.vips.items()}
    whole = replace(whole, vips=reasons, digests=healthy(1000).digests)
    seen = set()
    for limit in range(50_000, 6000, -500):
        value, omitted = status_bytes.fit(whole, limit)
        seen.add(omitted)
        status = status_bytes.decode(value, "lb1")
        assert status.omitted == omitted
        assert len(value) <= limit or len(omitted) == 4
        assert status.vips.keys() == whole.vips.keys() and all(item.announced for item in status.vips.values())
        assert ("services" in omitted) or status.services.keys() == whole.services.keys()
    order = ("vips.reason", "digests", "services.down", "services")
    assert seen == {order[:count] for count in range(5)}


@pytest.mark.parametrize(
    "packed,why",
    [
        ("a status", "packed"),
        ("YWJj", "packed: Error -3"),
        (base64.b64encode(zlib.compress(b"x" * 100)[:-4]).decode(), "cut off, or too large"),
        (base64.b64encode(zlib.compress(bytes(status_bytes.MAX_UNPACKED + 1))).decode(), "cut off, or too large"),
        (base64.b64encode(zlib.compress(b'{"format": 2, "packed": ""}')).decode(), "format 2, and"),
        (7, "packed: Input should be a valid string"),
    ],
)
def test_what_cannot_be_unpacked_is_an_error_in_words(packed: object, why: str) -> None:
    with pytest.raises(status_bytes.UnreadableStatus, match=why):
        status_bytes.decode(json.dumps({"format": 2, "packed": packed}).encode(), "lb1")


# ---------------------------------------------------------------- hashes and digests


def test_the_hash_is_of_what_the_catalog_was_made_of() -> None:
    base = {"services/web": Entry(b"{}", 7), "services/api": Entry(b"[]", 8)}
    hashes = [
        fingerprint(Catalog(good=good))
        for good in (
            base,
            {**base, "services/web": Entry(b"{ }", 7)},
            {**base, "services/web": Entry(b"{}", 9)},
            {"services/web": base["services/web"]},
        )
    ]
    assert len(set(hashes)) == 4
    assert fingerprint(Catalog(good=dict(reversed(base.items())), index=99)) == hashes[0]


def test_the_hash_has_the_value_that_other_versions_publish() -> None:
    documents = {"services/web": Entry(b"{}", 7), "services/api": Entry(b"[]", 8)}
    instances = {ConsulInstances("api"): (Instance("a", ip_address("10.0.0.1"), 80),)}
    assert fingerprint(Catalog(good=documents)) == "efca39938b52e8c2"
    assert fingerprint(Catalog(good=documents, instances=instances)) == "df6880daed8ca76d"


WEB = scene.WEB.key(scene.WEB4)


def table(*rows: tuple[str, int, int | None], scheduler: Any = scene.MH) -> dict[str, str]:
    destinations = {
        DestinationKey(WEB, ip_address(address), 80): Destination("tunnel", weight, last)
        for address, weight, last in rows
    }
    catalog = Catalog((replace(scene.WEB, vips=(scene.WEB4,)),))
    return status_document.Digests().of(catalog, State(services={WEB: scheduler}, destinations=destinations))


def test_a_digest_is_of_all_that_places_a_flow() -> None:
    one, two = ("10.1.0.1", 100, 100), ("10.1.0.2", 100, 100)
    tables = [
        table(one, two),
        table(two, one),
        table(one),
        table(one, ("10.1.0.2", 0, 100)),
        table(one, ("10.1.0.2", 0, 50)),
        table(one, two, scheduler=replace(scene.MH, flags=frozenset({"mh-port"}))),
        table(),
    ]
    assert len({found["web"] for found in tables}) == len(tables)
    assert table(one, two) == tables[0]


def test_a_table_whose_last_weights_are_not_known_has_no_digest() -> None:
    assert table(("10.1.0.1", 0, None)) == {}


# ---------------------------------------------------------------- differences


def said(node: str, catalog: str = "c", stopping: bool = False, **digests: str) -> Status:
    return Status(node, catalog=CatalogSummary(hash=catalog), stopping=stopping, digests=digests)


def test_only_nodes_with_the_same_catalog_are_compared() -> None:
    catalogs, tables = status_document.compare([said("a", "c1", web="1"), said("b", "c2", web="2")], (None, {}), 5.0)
    assert catalogs is not None and catalogs.parties == {"c1": ("a",), "c2": ("b",)}
    assert tables == {}


def test_stopping_nodes_and_those_without_catalog_differ_from_nobody() -> None:
    of = [said("a", web="1"), said("b", stopping=True, web="2"), said("c", catalog="", web="3")]
    assert status_document.compare(of, (None, {}), 5.0) == (None, {})


def test_a_difference_keeps_its_age_while_nothing_about_it_changes() -> None:
    nodes = [said("a", web="1", api="1"), said("b", web="2", api="1"), said("c", web="1", api="1")]
    first = status_document.compare(nodes, (None, {}), 5.0)
    assert {name: (found.parties, found.since) for name, found in first[1].items()} == {
        "web": ({"1": ("a", "c"), "2": ("b",)}, 5.0)
    }
    assert status_document.compare(nodes, first, 9.0) == first
    changed = status_document.compare([*nodes[:1], said("b", web="3", api="1")], first, 9.0)
    assert changed[1]["web"].since == 9.0
    assert status_document.compare(nodes[:1], first, 9.0) == (None, {})
