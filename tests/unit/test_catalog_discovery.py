"""Discovered instances in the catalog: merged, ordered, quarantined, and never a gap."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.parse import parse_catalog, troubled
from anycastlb.core.model import Catalog, ConsulInstances, DnsInstances, Entry, Instance, Service, Tree

RANGES = (ip_network("192.0.2.0/24"),)
CONSUL = {"consul": {"service": "web"}}
WANTED = ConsulInstances("web")
WEB: dict[str, Any] = {"vip": "192.0.2.10", "port": 80, "backends_from": CONSUL}


def tree(index: int = 1, **documents: Any) -> Tree:
    """``services__web__backends__b=...``, each a key created in the order given."""
    entries = {
        name.replace("__", "/"): Entry((doc if isinstance(doc, str) else json.dumps(doc)).encode(), number)
        for number, (name, doc) in enumerate(documents.items(), 1)
    }
    return Tree(entries, index)


def instance(number: int, name: str = "", created: int = 0, address: str = "", **fields: Any) -> Instance:
    where = ip_address(address or f"10.1.0.{number}")
    return Instance(name or f"web{number}", where, fields.pop("port", 8080), created=created or number, **fields)


def parse(given: Tree, *instances: Instance, before: Catalog | None = None) -> Catalog:
    known = {WANTED: instances}
    return parse_catalog(given, before or Catalog(), RANGES, (), PARAMS, known)


def waiting(given: Tree, before: Catalog | None = None) -> Catalog:
    """Parsed while nothing is known of any discovery."""
    return parse_catalog(given, before or Catalog(), RANGES, (), PARAMS)


def web(catalog: Catalog) -> Service:
    return next(service for service in catalog.services if service.name == "web")


def names(catalog: Catalog) -> list[str]:
    return [backend.name for backend in web(catalog).backends]


def problems(catalog: Catalog) -> list[str]:
    return [str(problem) for problem in catalog.problems]


def test_written_first_then_keys_by_age_then_instances_in_their_order() -> None:
    given = tree(
        services__web={**WEB, "backends": {"z": {"address": "10.9.0.1"}, "a": {"address": "10.9.0.2"}}},
        services__web__backends__y={"address": "10.9.0.3"},
        services__web__backends__b={"address": "10.9.0.4"},
    )
    catalog = parse(given, instance(3), instance(1), instance(2))
    assert names(catalog) == ["z", "a", "y", "b", "web3", "web1", "web2"], "as the discovery ordered them"
    assert problems(catalog) == []


def test_an_instance_is_a_backend_with_every_default() -> None:
    given = tree(services__web={**WEB, "forward": "dr", "check": {"type": "http", "path": "/up"}})
    backend = web(parse(given, instance(1, weight=7), instance(2, port=None))).backends
    assert (backend[0].port, backend[0].weight, backend[0].forward) == (8080, 7, "dr")
    assert (backend[0].check.type, backend[0].check.port) == ("http", 8080)
    assert (backend[1].port, backend[1].weight) == (80, 100)
    fallback = web(parse(given, instance(1), instance(2, fallback=True))).backends
    assert [one.fallback for one in fallback] == [False, True]


def test_what_is_written_wins_field_by_field() -> None:
    given = tree(
        services__web={**WEB, "backends": {"web1": {"weight": 3}, "web2": {"address": "10.9.0.2"}}},
        services__web__backends__web3="drain=true",
    )
    catalog = parse(given, instance(1, weight=5), instance(2, weight=5), instance(3, weight=5))
    one, two, three = sorted(web(catalog).backends, key=lambda backend: backend.name)
    assert (str(one.address), one.weight) == ("10.1.0.1", 3)
    assert (str(two.address), two.weight, two.port) == ("10.9.0.2", 5, 8080)
    assert (three.drain, three.weight) == (True, 5)
    assert names(catalog) == ["web2", "web1", "web3"], "with an address of its own it has a place of its own"


def test_what_is_written_about_an_absent_instance_waits_for_it() -> None:
    given = tree(
        services__web={**WEB, "backends": {"web1": {"weight": 3}}},
        services__web__backends__web2="weight=4",
    )
    catalog = parse(given)
    assert names(catalog) == [] and problems(catalog) == []
    catalog = parse(given, instance(2), instance(1), before=catalog)
    assert {backend.name: backend.weight for backend in web(catalog).backends} == {"web1": 3, "web2": 4}


def test_without_a_discovery_a_backend_needs_its_address() -> None:
    document = {"vip": "192.0.2.10", "port": 80, "backends": {"web1": {"weight": 3}}}
    assert "backends.web1.address" in problems(waiting(tree(services__web=document)))[0]


def test_a_bad_instance_is_left_out_alone() -> None:
    given = tree(services__web={**WEB, "backends": {"web": {"address": "10.9.0.1", "port": 8080}}})
    clash, heavy = instance(1, "web.node1", address="10.9.0.1"), instance(3, weight=70000)
    catalog = parse(given, clash, instance(2), heavy)
    assert names(catalog) == ["web", "web2"]
    told = problems(catalog)
    assert any("backends.web.node1: expected an address and port of its own; web has the same" in one for one in told)
    assert any("backends.web3.weight" in one for one in told)
    assert problems(parse(given, instance(2), before=catalog)) == []


def test_two_instances_in_one_place() -> None:
    catalog = parse(tree(services__web=WEB), instance(1, "old"), instance(1, "new", created=9))
    assert names(catalog) == ["old"] and "old has the same" in problems(catalog)[0]
    inline = tree(services__web={**WEB, "backends": {"new": {"weight": 2}}})
    catalog = parse(inline, instance(1, "old"), instance(1, "new", created=9))
    assert names(catalog) == ["old"], "what is written about it does not make it stand"


def test_a_bad_word_about_an_instance_is_the_writers_fault() -> None:
    good = parse(tree(services__web=WEB), instance(1))
    document = {**WEB, "drain": "1s", "backends": {"web1": {"weight": "heavy"}}}
    bad = parse(tree(services__web=document), instance(1), before=good)
    assert names(bad) == ["web1"] and web(bad).drain == 30.0 and "backends.web1.weight" in problems(bad)[0]
    keyed = tree(services__web={**WEB, "drain": "1s"}, services__web__backends__web1={"weight": "heavy"})
    catalog = parse(keyed, instance(1), before=good)
    assert names(catalog) == ["web1"] and web(catalog).drain == 1.0
    assert problems(catalog)[0].startswith("services/web/backends/web1: weight")


def test_the_memo_notices_instances_and_nothing_else() -> None:
    given = tree(services__web=WEB, services__dns={"vip": "192.0.2.11", "port": 53})
    first = parse(given, instance(1))
    again = parse(given, instance(1), before=first)
    assert all(one is two for one, two in zip(first.services, again.services, strict=True))
    moved = parse(given, instance(1), instance(2), before=again)
    assert names(moved) == ["web1", "web2"]
    assert moved.services[0] is first.services[0], "who discovers nothing is left alone"


def test_a_service_with_bad_documents_still_follows_its_instances() -> None:
    good = parse(tree(services__web=WEB), instance(1))
    bad = parse(tree(services__web="{nonsense"), instance(1), before=good)
    assert names(bad) == ["web1"] and bad.discovers == {WANTED: ("web",)}
    moved = parse(tree(services__web="{nonsense"), instance(2), before=bad)
    assert names(moved) == ["web2"] and len(moved.problems) == 1
    assert moved.good["services/web"].value == json.dumps(WEB).encode()


def test_a_service_that_loses_a_claim_follows_its_instances_too() -> None:
    other = {"vip": "192.0.2.11", "port": 80}
    good = parse(tree(services__other=other, services__web=WEB), instance(1))
    grasping = tree(services__other=other, services__web={**WEB, "vip": "192.0.2.11"})
    catalog = parse(grasping, instance(2), before=good)
    assert names(catalog) == ["web2"] and str(web(catalog).vips[0]) == "192.0.2.10"


class TestWaiting:
    """Nothing is known of the discovery yet."""

    STATIC = {"vip": "192.0.2.10", "port": 80, "backends": {"old": {"address": "10.1.0.9"}}}  # noqa: RUF012

    def test_a_new_service_has_what_is_written(self) -> None:
        catalog = waiting(tree(services__web={**WEB, "backends": {"a": {"address": "10.9.0.1"}}}))
        assert names(catalog) == ["a"] and catalog.discovers == {WANTED: ("web",)} and catalog.instances == {}

    def test_an_old_service_stays_as_it_was(self) -> None:
        static = tree(services__web=self.STATIC)
        before = waiting(static)
        catalog = waiting(tree(2, services__web={**WEB, "vip": "192.0.2.12"}), before)
        assert names(catalog) == ["old"] and catalog.discovers == {WANTED: ("web",)}
        assert catalog.good["services/web"] == static.entries["services/web"], "the disk keeps it as well"
        catalog = waiting(tree(3, services__web={**WEB, "vip": "192.0.2.12"}), catalog)
        assert names(catalog) == ["old"]
        catalog = parse(tree(3, services__web={**WEB, "vip": "192.0.2.12"}), instance(1), before=catalog)
        assert names(catalog) == ["web1"] and str(web(catalog).vips[0]) == "192.0.2.12"

    def test_an_answer_without_instances_is_an_answer(self) -> None:
        before = waiting(tree(services__web=self.STATIC))
        assert names(parse(tree(services__web=WEB), before=before)) == []

    def test_other_changes_of_a_service_that_waits_go_through(self) -> None:
        before = waiting(tree(services__web=WEB))
        assert web(waiting(tree(services__web={**WEB, "drain": "1s"}), before)).drain == 1.0

    def test_it_gives_up_waiting_when_it_is_told_otherwise(self) -> None:
        before = waiting(tree(services__web=self.STATIC))
        catalog = waiting(tree(services__web=WEB), before)
        catalog = waiting(tree(services__web={**self.STATIC, "drain": "1s"}), catalog)
        assert web(catalog).drain == 1.0 and catalog.discovers == {}


def test_troubles_are_problems_of_every_service_that_asks() -> None:
    static = {"vip": "192.0.2.12", "port": 80, "backends": {"old": {"address": "10.1.0.9"}}}
    before = waiting(tree(services__late=static))
    documents = {
        "services__web": WEB,
        "services__two": {**WEB, "vip": "192.0.2.11"},
        "services__late": {**static, "backends_from": {"dns": {"name": "x.example.org"}}},
    }
    catalog = parse(tree(**documents), instance(1), before=before)
    dns = DnsInstances("x.example.org")
    told = troubled(catalog, {WANTED: ("away",), dns: ("NXDOMAIN", "slow"), ConsulInstances("z"): ("?",)})
    assert sorted(problems(told)) == [
        "services/late: backends_from: NXDOMAIN",
        "services/late: backends_from: slow",
        "services/two: backends_from: away",
        "services/web: backends_from: away",
    ]
    assert troubled(catalog, {}) is catalog


@pytest.mark.parametrize(
    "bad", [{}, {"consul": {}}, {"dns": {"name": "a b"}}, {**CONSUL, "dns": {"name": "x"}}, "web", {"consul": None}]
)
def test_a_bad_backends_from_quarantines_its_service(bad: Any) -> None:
    good = parse(tree(services__web=WEB), instance(1))
    catalog = parse(tree(services__web={**WEB, "backends_from": bad}), instance(1), before=good)
    assert names(catalog) == ["web1"] and "backends_from" in problems(catalog)[0]


def test_a_thousand_instances_of_which_many_are_bad() -> None:
    given = [instance(1, f"web{number}", number, f"10.1.{number // 200}.{number % 200}") for number in range(1000)]
    catalog = parse(tree(services__web=WEB), *given)
    assert len(web(catalog).backends) == 1000
    catalog = parse(tree(services__web=WEB), *(instance(1, f"web{number}", number) for number in range(1000)))
    assert names(catalog) == ["web0"] and len(catalog.problems) == 999
