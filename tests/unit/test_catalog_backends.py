"""Backend keys: what one of them says is never the business of another backend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.discovery import Instances
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.fields import address
from anycastlb.core.model import EMPTY, Backend, Catalog, ConsulInstances, Entry, Instance, Tree

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
WEB = {"vip": "192.0.2.10", "port": 80}
KEY = "services/web/backends/"
NOTHING = Catalog()


def parse(entries: Mapping[str, Any], previous: Catalog = NOTHING, instances: Instances = EMPTY) -> Catalog:
    """``entries``: oldest first."""
    made = {key: Entry(json.dumps(value).encode(), created=age) for age, (key, value) in enumerate(entries.items(), 1)}
    return parse_catalog(Tree(made, 1), previous, RANGES, (), PARAMS, instances)


def places(catalog: Catalog) -> dict[str, str]:
    return {backend.name: str(backend.address) for backend in catalog.services[0].backends}


def problems(catalog: Catalog) -> list[str]:
    return list(map(str, catalog.problems))


def backend(number: int, **more: Any) -> dict[str, Any]:
    return {"address": f"10.1.0.{number}", **more}


def test_the_younger_of_two_keys_with_one_address_is_left_out_and_the_service_goes_on() -> None:
    stored = {"services/web": WEB, f"{KEY}b": backend(1), f"{KEY}c": backend(2), f"{KEY}a": backend(1)}
    for previous in (NOTHING, parse(dict(list(stored.items())[:3]))):
        catalog = parse(stored, previous)
        assert places(catalog) == {"b": "10.1.0.1", "c": "10.1.0.2"}
        assert problems(catalog) == [f"{KEY}a: address: expected an address and port of its own; b has the same"]
        later = parse({**stored, f"{KEY}c": backend(2, drain=True), f"{KEY}d": backend(3)}, catalog)
        assert places(later) == {"b": "10.1.0.1", "c": "10.1.0.2", "d": "10.1.0.3"}
        assert later.services[0].backends[1].drain
        del stored[f"{KEY}b"]
        assert places(parse(stored, catalog)) == {"c": "10.1.0.2", "a": "10.1.0.1"}
        stored = {"services/web": WEB, f"{KEY}b": backend(1), f"{KEY}c": backend(2), f"{KEY}a": backend(1)}


def test_of_keys_of_one_age_the_first_by_name_has_the_address() -> None:
    entries = {
        key: Entry(json.dumps(value).encode())
        for key, value in {f"{KEY}b": backend(1), f"{KEY}a": backend(1), "services/web": WEB}.items()
    }
    catalog = parse_catalog(Tree(entries, 1), NOTHING, RANGES, (), PARAMS)
    assert places(catalog) == {"a": "10.1.0.1"}


def test_a_key_that_moves_to_an_address_in_use_keeps_its_last_good_value() -> None:
    stored = {"services/web": WEB, f"{KEY}a": backend(1), f"{KEY}b": backend(2)}
    catalog = parse({**stored, f"{KEY}b": backend(1, weight=7)}, parse(stored))
    assert places(catalog) == {"a": "10.1.0.1", "b": "10.1.0.2"} and "a has the same" in problems(catalog)[0]


def test_the_documents_own_backend_has_its_address_before_any_key() -> None:
    web = {**WEB, "backends": {"a": backend(1), "b": backend(2)}}
    taken = {"services/web": web, f"{KEY}x": backend(1), f"{KEY}b": backend(1), f"{KEY}c": backend(3)}
    catalog = parse(taken)
    assert places(catalog) == {"a": "10.1.0.1", "b": "10.1.0.2", "c": "10.1.0.3"}
    assert len(catalog.problems) == 2 and all("a has the same" in one for one in problems(catalog))


def test_an_address_that_a_key_has_given_up_is_free() -> None:
    web = {**WEB, "backends": {"a": backend(1)}}
    catalog = parse({"services/web": web, f"{KEY}a": backend(9), f"{KEY}b": backend(1)})
    assert places(catalog) == {"a": "10.1.0.9", "b": "10.1.0.1"} and not catalog.problems


def test_another_port_is_another_place() -> None:
    stored = {"services/web": WEB, f"{KEY}a": backend(1), f"{KEY}b": backend(1, port="81")}
    assert not parse(stored).problems
    assert len(parse({**stored, f"{KEY}c": backend(1, port=80)}).problems) == 1
    marked = {"services/web": {"vip": "192.0.2.10", "fwmark": 7}, f"{KEY}a": backend(1), f"{KEY}b": backend(1)}
    entries = {key: Entry(json.dumps(value).encode()) for key, value in marked.items()}
    catalog = parse_catalog(Tree(entries, 1), NOTHING, RANGES, ((1, 9),), PARAMS)
    assert places(catalog) == {"a": "10.1.0.1"}


VALUES = st.one_of(
    st.builds(backend, st.integers(1, 4)),
    st.builds(backend, st.integers(1, 4), weight=st.sampled_from([1, -1, "?"]), port=st.sampled_from([80, 81, "x"])),
    st.sampled_from([{"address": "fd00::1"}, {"address": ""}, {"drain": True}, {}, [], 7, {"check": {"type": "?"}}]),
)
STORED = st.lists(st.tuples(st.sampled_from("abcdef"), VALUES), max_size=6, unique_by=lambda item: item[0])


@given(
    inline=st.dictionaries(st.sampled_from("abcxy"), st.builds(backend, st.integers(1, 4)), max_size=3).filter(
        lambda some: len({one["address"] for one in some.values()}) == len(some)
    ),
    stored=STORED,
    one=VALUES,
    two=VALUES,
    vip=st.sampled_from(["192.0.2.10", ["192.0.2.10", "2001:db8::1"]]),
    forward=st.sampled_from(["tunnel", "dr"]),
)
@settings(max_examples=300, deadline=None)
def test_what_the_youngest_key_says_changes_no_other_backend(
    inline: dict[str, Any], stored: list[tuple[str, Any]], one: Any, two: Any, vip: Any, forward: str
) -> None:
    web = {"vip": vip, "port": 80, "forward": forward, "backends": inline}
    older = {"services/web": web, f"{KEY}other": backend(200), **{f"{KEY}{name}": value for name, value in stored}}
    before = parse(older)

    def others(catalog: Catalog) -> list[Backend]:
        return [backend for backend in catalog.services[0].backends if backend.name != "young"]

    for previous in (NOTHING, before, parse({**older, f"{KEY}young": two})):
        assert others(parse({**older, f"{KEY}young": one}, previous)) == others(before)


def test_backends_of_both_families_may_have_keys_whatever_the_forwarding() -> None:
    web = {"vip": ["192.0.2.10", "2001:db8::1"], "port": 80, "forward": "dr"}
    stored = {"services/web": web, f"{KEY}four": backend(1), f"{KEY}six": {"address": "fd00::1"}}
    both = parse(stored)
    assert not both.problems and places(both) == {"four": "10.1.0.1", "six": "fd00::1"}
    del stored[f"{KEY}six"]
    catalog = parse(stored, both)
    (service,) = catalog.services
    assert [len(service.members(vip)) for vip in service.vips] == [1, 0], "one family's end is not the other's"
    assert problems(catalog) == ["services/web: backends.four: expected an IPv6 address for VIP 2001:db8::1 with dr"]


@pytest.mark.parametrize("more", [{}, {"backends_from": {"consul": {"service": "web"}}}])
@pytest.mark.parametrize(
    ("check", "path"),
    [
        ({"type": "smoke"}, "check.type"),
        ({"type": "http", "expct": 200}, "check.expct"),
        ({"type": "http", "interval": "often"}, "check.interval"),
        ({"interval": "often"}, "check.interval"),
        ({"type": "command", "command": ["/bin/true"], "via": "forward"}, "check.via"),
        ({"type": "all", "checks": []}, "check.checks"),
        ({"type": "all", "checks": [{"type": "smoke"}]}, "check.checks.0.type"),
    ],
)
def test_a_bad_check_is_a_problem_before_the_first_backend_registers(check: Any, path: str, more: Any) -> None:
    catalog = parse({"services/web": {**WEB, "backends": {}, "check": check, **more}})
    assert [problem.path for problem in catalog.problems] == [path] and not catalog.services


@pytest.mark.parametrize("check", [{"path": "/health"}, {"type": "http", "via": "forward"}, {"type": "tcp"}, {}])
def test_a_check_that_backends_may_complete_is_none(check: Any) -> None:
    catalog = parse({"services/web": {**WEB, "backends": {}, "check": check}})
    assert not catalog.problems and len(catalog.services) == 1


def test_an_instance_that_was_left_out_stays_a_problem_until_it_is_solved() -> None:
    wanted = ConsulInstances("web")
    twice = {wanted: tuple(Instance(name, address("10.1.0.1"), 80) for name in ("i1", "i2"))}
    stored: dict[str, Any] = {"services/web": {**WEB, "backends_from": {"consul": {"service": "web"}}}}
    first = parse(stored, instances=twice)
    assert "i1 has the same" in problems(first)[0]
    stored["services/other"] = {"vip": "192.0.2.11", "port": 80}
    second = parse(stored, first, twice)
    assert second.problems == first.problems
    stored["services/web"] = {**stored["services/web"], "port": "?"}
    third = parse(stored, second, twice)
    assert set(first.problems) < set(third.problems), "its last good version is in force, with what is wrong in it"
    solved = {wanted: twice[wanted][:1]}
    assert problems(parse(stored, third, solved)) == [one for one in problems(third) if "port" in one.split()[1]]
    del stored["services/web"]
    assert not parse(stored, third, twice).problems


def test_a_backend_is_drained_under_a_document_that_is_bad_or_gone() -> None:
    stored: dict[str, Any] = {"services/web": WEB, f"{KEY}a": backend(1), f"{KEY}b": backend(2)}
    good = parse(stored)
    drained = {f"{KEY}a": backend(1, drain=True)}
    for bad in ({**stored, "services/web": {**WEB, "port": "?"}, **drained}, drained):
        catalog = parse(bad, good)
        assert [(one.name, one.drain) for one in catalog.services[0].backends] == [("a", True), ("b", False)]
        assert catalog.services[0].port == 80 and catalog.problems


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("where", "value"), [({"port": 80}, {"port": 0}), ({"fwmark": 7}, {}), ({"fwmark": 7}, {"port": 0})]
)
def test_a_key_without_a_port_for_the_services_check_is_left_out(known: bool, where: Any, value: Any) -> None:
    """Found by ``make fuzz``: the whole service was lost on a node that did not know it yet."""
    backends = {"web1": {"address": "10.1.0.1", "port": 80}}
    web = {"vip": "192.0.2.10", **where, "check": {"type": "http", "path": "/health"}, "backends": backends}
    written = {"services/web": web}
    before = parse_catalog(_tree(written), NOTHING, RANGES, ((1, 99),), PARAMS) if known else NOTHING
    written[f"{KEY}b9"] = {"address": "10.1.0.9", **value}
    catalog = parse_catalog(_tree(written), before, RANGES, ((1, 99),), PARAMS)
    assert [backend.name for service in catalog.services for backend in service.backends] == ["web1"]
    (problem,) = catalog.problems
    assert (problem.key, problem.path) == (f"{KEY}b9", "port")
    assert "expected a port other than 0" in problem.expected


def _tree(entries: Mapping[str, Any]) -> Tree:
    return Tree({key: Entry(json.dumps(value).encode(), age) for age, (key, value) in enumerate(entries.items(), 1)}, 1)
