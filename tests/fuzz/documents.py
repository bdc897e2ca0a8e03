"""Mutants of documents, many beside each other in one catalog, and beside good ones that must stay as they are."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.bridge.protocol import fault
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision import plan
from anycastlb.core.decision.decide import decide_again
from anycastlb.core.decision.remembered import FROM_SCRATCH
from anycastlb.core.model import (
    Address,
    Catalog,
    CheckState,
    Entry,
    Feed,
    Inputs,
    Memory,
    Policy,
    Result,
    Snapshot,
    State,
    Tree,
)
from anycastlb.engine.node import checks
from tests.fuzz.mutation import Mutator

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
MARKS = ((1, 99),)
OTHER: dict[str, Any] = {"vip": "192.0.2.200", "port": 80, "backends": {"o1": {"address": "10.9.0.1"}}}
BACKENDS = {"b1": {"address": "10.1.0.1", "weight": 50}, "b2": {"address": "10.1.0.2", "port": 8080, "drain": True}}
SERVICES: tuple[dict[str, Any], ...] = (
    {"port": 80, "backends": BACKENDS},
    {"port": 443, "scheduler": "mh", "scheduler_flags": ["mh-port"], "forward": "gue",
     "check": {"type": "https", "path": "/health", "expect": ["200-299"], "headers": {"X": "1"}, "interval": "2s",
               "rise": 2},
     "announce": {"min_backends": "50%", "when": "all", "damping": {"half_life": "1m", "longest": "10m"}, "med": 5,
                  "communities": ["65535:666"], "hold_up": "1s", "reopen": "60%"},
     "backends": BACKENDS, "slow_start": "10s", "drain": "30s", "max_failed": "50%"},
    {"port": 53, "protocol": "udp", "one_packet": True, "backends_from": {"consul": {"service": "dns", "tag": "a"}},
     "check": {"type": "dns", "name": "example.org", "answer": "192.0.2.9"}},
    {"persistence": {"timeout": "5m", "netmask": "255.255.255.0"}, "backends": BACKENDS,
     "check": {"type": "all", "checks": [{"type": "tcp", "port": 22}, {"type": "any", "checks": [{"type": "icmp"}]}]}},
    {"port": 80, "backends": BACKENDS, "dns": {"ttl": "1m", "srv": "_http._tcp"}, "consul": True,
     "check": {"type": "http", "via": "forward", "method": "POST", "send": "x", "body": "re:^ok", "redirects": 2}},
)  # fmt: skip
"""Kinds of services; ``service`` gives each a VIP of its own."""
TOGETHER = 15
"""Services in a catalog."""


def service(number: int) -> dict[str, Any]:
    """A good service."""
    kind = number % len(SERVICES)
    vip = f"192.0.2.{number + 1}"
    of_its_own: dict[str, Any] = {"vip": [vip, f"2001:db8::{number + 1:x}"] if kind == 1 else vip}
    if kind == 3:
        of_its_own["fwmark"] = number + 1
    return of_its_own | SERVICES[kind]


KNOWN = {f"services/s{n}": Entry(json.dumps(service(n)).encode(), n + 1) for n in range(TOGETHER)}
"""The good documents."""
ANOTHER: dict[str, Any] = {"services/other": Entry(json.dumps(OTHER).encode(), 90)}


@dataclass(frozen=True)
class Mutant:
    """A document at the place of a good one: of a service, of a backend of it, or of something that concerns all."""

    number: int
    """Of the service."""
    key: str
    entry: Entry
    known: bool
    """Did the node know the good ones? Of all mutants in a catalog the first one says so."""
    up: bool | None
    """What all checks say, likewise; None: nothing yet."""

    @property
    def about_all(self) -> bool:
        return self.key == "defaults"

    @property
    def spares_its_service(self) -> bool:
        """May the service not be lost by this?"""
        return self.key.startswith(("drain/", f"services/s{self.number}/")) and "backends" in service(self.number)


def make(mutator: Mutator) -> Sequence[Mutant]:
    """One mutant of each service; at times one of the defaults, or of a drain, in the place of one of them."""
    chance = mutator.chance
    known, up = chance.random() < 0.5, chance.choice([None, True, False])
    common = chance.choice([None, None, None, "defaults", "drain/lb1", "drain/lb2"])
    mutants = []
    for number in range(TOGETHER):
        key, good = f"services/s{number}", service(number)
        if common is not None and number == 0:
            key, good = common, {"scheduler": "rr", "check": {"type": "tcp", "fall": 2}, "reason": "x"}
        elif chance.random() < 0.2:
            key, good = f"{key}/backends/{chance.choice(['b1', 'b9', '10.1.0.9:80'])}", dict(BACKENDS["b2"])
        document = mutator.mutant(good)
        if chance.random() < 0.04:
            entry = Entry(mutator.as_yaml(document), 99, "yaml")
        else:
            entry = Entry(mutator.written(document), 99)
        mutants.append(Mutant(number, key, entry, known, up))
    return mutants


def judge(mutants: Sequence[Mutant]) -> None:
    """The others stay as they are, and what is good can be decided, written and published."""
    numbers = tuple(mutant.number for mutant in mutants)
    good = {f"services/s{n}": KNOWN[f"services/s{n}"] for n in numbers} | ANOTHER
    entries = {**good, **{mutant.key: mutant.entry for mutant in mutants}}
    before = _well(numbers) if mutants[0].known else Catalog()
    catalog = parse_catalog(Tree(entries, 2), before, RANGES, MARKS, PARAMS)
    assert all(len(str(problem)) < 3000 for problem in catalog.problems)
    if not any(mutant.about_all for mutant in mutants):
        _judge(catalog, mutants, before)
    announced = _decide(catalog, mutants[0].up)
    drained = "lb1" in catalog.drained or mutants[0].about_all
    assert drained or (ip_address(OTHER["vip"]) in announced) == bool(mutants[0].up)


@cache
def _well(numbers: tuple[int, ...]) -> Catalog:
    """The good documents of these services, and another one."""
    good = {f"services/s{n}": KNOWN[f"services/s{n}"] for n in numbers} | ANOTHER
    catalog = parse_catalog(Tree(good, 1), Catalog(), RANGES, MARKS, PARAMS)
    assert not catalog.problems
    return catalog


def _judge(catalog: Catalog, mutants: Sequence[Mutant], before: Catalog) -> None:
    names = {service.name for service in catalog.services}
    (kept,) = (one for one in catalog.services if one.name == "other")
    (other,) = (one for one in _well((0,)).services if one.name == "other")
    assert (kept.vips, kept.backends) == (other.vips, other.backends), catalog.problems
    lost = {f"s{mutant.number}" for mutant in mutants if mutant.spares_its_service} - names
    assert not lost, (lost, catalog.problems)
    held = {one.name for one in before.services} - {f"s{m.number}" for m in mutants if m.key.count("/") == 1} - names
    assert not held, (held, catalog.problems)


def _decide(catalog: Catalog, up: bool | None) -> Collection[Address]:
    """What is announced in the end. What is desired can be planned, sent and published; nothing is announced that
    nobody checked to be well."""
    now, memory, actual, last = 100.0, Memory(), State(), FROM_SCRATCH
    seen = Result(bool(up), "seen", 0.0, now)
    health = {} if up is None else {one: CheckState(up, since=now, last=seen) for one in checks(catalog)}
    inputs = Inputs(Policy("lb1"), catalog=catalog, feed=Feed(loaded=True), health=health)
    for _ in range(2):
        last = decide_again(last, inputs, memory, now)
        decision = last.decision
        assert not decision.faults, decision.faults
        _, faults = plan.compare(actual, decision.desired)
        assert not faults, faults
        for vip, route in decision.desired.routes.items():
            assert any(vip in network for network in RANGES) and vip in catalog.vips and not fault(vip, route, RANGES)
            serving = [service for service in catalog.services if vip in service.vips]
            assert up or any(service.announce.fail == "keep" or _unchecked(service) for service in serving), vip
        memory, now, actual = decision.memory, now + 30, decision.desired
    snapshot = Snapshot(inputs=inputs, actual=actual, decision=decision, cycle=1, at=now)
    published = status_bytes.encode(status_document.summarise(snapshot))
    json.loads(published, parse_constant=_no_constant)
    return actual.routes


def _unchecked(service: Any) -> bool:
    return any("none" in repr(backend.check.type) for backend in service.backends)


def _no_constant(name: str) -> Mapping[str, Any]:
    raise AssertionError(f"{name} in JSON")
