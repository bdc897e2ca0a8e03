"""What is fuzzed: each target takes a mutator, makes one case, and raises what should not have been."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from typing import Any

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.cluster import status_bytes, status_document
from anycastlb.adapters.cluster.status_bytes import UnreadableStatus
from anycastlb.adapters.consul.client import ConsulAnswer
from anycastlb.adapters.consul.key_list import KeyList
from anycastlb.adapters.discovery.consul import chosen
from anycastlb.adapters.drivers.ipvs import codec
from anycastlb.adapters.drivers.ipvs.reader import IpvsReader, counters
from anycastlb.adapters.sources import staging
from anycastlb.adapters.system.netlink import messages
from anycastlb.bridge import grammar
from anycastlb.bridge.protocol import (
    Heartbeat,
    ProtocolError,
    RouteSet,
    decode_order,
    decode_report,
    encode,
    fault,
)
from anycastlb.bridge.relay import Relay
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision import plan
from anycastlb.core.decision.decide import decide
from anycastlb.core.model import (
    Catalog,
    CheckState,
    ConsulInstances,
    Destination,
    DestinationKey,
    Entry,
    Feed,
    Inputs,
    Memory,
    Policy,
    Result,
    Route,
    ServiceKey,
    Snapshot,
    SourceError,
    State,
    Tree,
    VirtualService,
)
from anycastlb.engine.node import checks
from tests.fuzz.mutation import Mutator

RANGES = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
MARKS = ((1, 99),)
OTHER = {"vip": "192.0.2.200", "port": 80, "backends": {"o1": {"address": "10.9.0.1"}}}
BACKENDS = {"b1": {"address": "10.1.0.1", "weight": 50}, "b2": {"address": "10.1.0.2", "port": 8080, "drain": True}}
SERVICES: tuple[dict[str, Any], ...] = (
    {"vip": "192.0.2.1", "port": 80, "backends": BACKENDS},
    {"vip": ["192.0.2.2", "2001:db8::2"], "port": 443, "scheduler": "mh", "scheduler_flags": ["mh-port"],
    "forward": "gue",
     "check": {"type": "https", "path": "/health", "expect": ["200-299"], "headers": {"X": "1"}, "interval": "2s",
     "rise": 2},
     "announce": {"min_backends": "50%", "when": "all", "damping": {"half_life": "1m", "longest": "10m"}, "med": 5,
                  "communities": ["65535:666"], "hold_up": "1s", "reopen": "60%"},
     "backends": BACKENDS, "slow_start": "10s", "drain": "30s", "max_failed": "50%"},
    {"vip": "192.0.2.3", "port": 53, "protocol": "udp", "one_packet": True,
    "backends_from": {"consul": {"service": "dns", "tag": "a"}},
     "check": {"type": "dns", "name": "example.org", "expect": "192.0.2.9"}},
    {"vip": "192.0.2.4", "fwmark": 7, "persistence": {"timeout": "5m", "netmask": "255.255.255.0"},
    "backends": BACKENDS,
     "check": {"type": "all", "checks": [{"type": "tcp", "port": 22}, {"type": "any",
     "checks": [{"type": "icmp"}]}]}},
    {"vip": "192.0.2.5", "port": 80, "backends": BACKENDS, "dns": {"ttl": "1m", "srv": "_http._tcp"}, "consul": True,
     "check": {"type": "http", "via": "forward", "method": "POST", "send": "x", "body": "re:^ok", "redirects": 2}},
)  # fmt: skip
KNOWN = tuple(
    {
        f"services/s{n}": Entry(json.dumps(document).encode(), n + 1),
        "services/other": Entry(json.dumps(OTHER).encode(), 90),
    }
    for n, document in enumerate(SERVICES)
)
WELL = tuple(parse_catalog(Tree(known, 1), Catalog(), RANGES, MARKS, PARAMS) for known in KNOWN)
(GOOD,) = (service for service in WELL[0].services if service.name == "other")
Case = Callable[[Mutator], None]


@contextmanager
def may_raise(*errors: type[Exception]) -> Iterator[None]:
    """These are how the product says that something is not what it should be: each in words."""
    try:
        yield
    except errors as exc:
        assert str(exc) and len(str(exc)) < 20_000, repr(exc)


# ---------------------------------------------------------------- documents


def documents(mutator: Mutator) -> None:
    """A mutant beside good documents: the others stay as they are, and what is good can be decided and written."""
    chance = mutator.chance
    number = chance.randrange(len(SERVICES))
    key, good = f"services/s{number}", SERVICES[number]
    if chance.random() < 0.2:
        key, good = f"{key}/backends/{chance.choice(['b1', 'b9', '10.1.0.9:80'])}", dict(BACKENDS["b2"])
    elif chance.random() < 0.1:
        key, good = chance.choice(["defaults", "drain/lb1"]), {"scheduler": "rr", "check": {"type": "tcp", "fall": 2}}
    mutant = mutator.mutant(good)
    form, value = "json", mutator.written(mutant)
    if chance.random() < 0.1:
        form, value = "yaml", mutator.as_yaml(mutant)
    entries = {**KNOWN[number], key: Entry(value, 99, form)}  # type: ignore[arg-type]
    known = chance.random() < 0.5
    catalog = parse_catalog(Tree(entries, 2), WELL[number] if known else Catalog(), RANGES, MARKS, PARAMS)
    _judge(catalog, key, f"s{number}")
    _decide(catalog, chance.choice([None, True, False]))


def _judge(catalog: Catalog, key: str, mutated: str) -> None:
    assert all(len(str(problem)) < 3000 for problem in catalog.problems)
    if key != "defaults":
        kept = [service for service in catalog.services if service.name == "other"]
        assert kept and (kept[0].vips, kept[0].backends) == (GOOD.vips, GOOD.backends), catalog.problems
    if key.startswith(("drain", f"services/{mutated}/")):
        names = {service.name for service in catalog.services}
        assert mutated in names or not _stands_alone(mutated), catalog.problems


def _stands_alone(name: str) -> bool:
    """Does the service come to be without anything that discovery has to find?"""
    return "backends" in SERVICES[int(name[1:])]


def _decide(catalog: Catalog, up: bool | None) -> None:
    """What is desired can be planned, sent and published; nothing is announced that nobody checked to be well."""
    now, memory, actual = 100.0, Memory(), State()
    for _ in range(2):
        health = {one: CheckState(up, since=now, last=Result(bool(up), "seen", 0.0, now)) for one in checks(catalog)}
        inputs = Inputs(Policy("lb1"), catalog=catalog, feed=Feed(loaded=True), health=health if up is not None else {})
        decision = decide(inputs, memory, now)
        assert not decision.faults, decision.faults
        _, faults = plan.compare(actual, decision.desired)
        assert not faults, faults
        for vip, route in decision.desired.routes.items():
            assert any(vip in network for network in RANGES) and vip in catalog.vips and not fault(vip, route, RANGES)
            serving = [service for service in catalog.services if vip in service.vips]
            assert up or any(service.announce.fail == "keep" or _unchecked(service) for service in serving), vip
        snapshot = Snapshot(inputs=inputs, actual=decision.desired, decision=decision, cycle=1, at=now)
        published = status_bytes.encode(status_document.summarise(snapshot))
        json.loads(published, parse_constant=_no_constant)
        memory, now = decision.memory, now + 30


def _unchecked(service: Any) -> bool:
    return any("none" in repr(backend.check.type) for backend in service.backends)


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} in JSON")


# ---------------------------------------------------------------- Consul


ITEM = {"LockIndex": 0, "Key": "anycastlb/services/web", "Flags": 0, "Value": "eyJ2aXAiOiAxfQ==", "CreateIndex": 5,
        "ModifyIndex": 9}  # fmt: skip
CHUNK = (("services/web", "9", 4), ("services/dns", "", None))
INSTANCE = {
    "Node": {"Node": "n1", "Address": "10.1.0.1", "CreateIndex": 7},
    "Service": {"ID": "web-1", "Service": "web", "Address": "", "Port": 8080, "Tags": ["a"], "CreateIndex": 8,
                "Weights": {"Passing": 10, "Warning": 1}},
    "Checks": [{"CheckID": "c", "Status": "passing"}],
}  # fmt: skip
STATUS = json.loads(status_bytes.encode(status_document.summarise(Snapshot())))


def consul(mutator: Mutator) -> None:
    """An answer of Consul's: a list of keys (also while an import is under way), of instances, a node's status."""
    chance = mutator.chance
    keys = [
        {**ITEM, "Key": f"anycastlb/{key}"}
        for key in ("services/web", "services/dns", "import/commit", "import/x/00000")
    ]
    items = [*keys[: chance.choice([1, 2, 4])]]
    if len(items) == 4:
        items[2]["Value"] = _base64(
            json.dumps(mutator.mutant({"id": "x", "state": "committed", "chunks": 1, "done": 0}))
        )
        items[3]["Value"] = _base64(json.dumps(mutator.mutant(CHUNK)) + '\n{"a"')
    body = mutator.written(mutator.mutant(items) if chance.random() < 0.7 else items).replace(b", ", b",")
    reader = KeyList("anycastlb/")
    for _ in range(2):
        with may_raise(SourceError):
            staging.in_force(reader.decode(body))
    with may_raise(SourceError):
        text = mutator.written(mutator.mutant([INSTANCE, INSTANCE])).decode(errors="replace")
        answer = ConsulAnswer("Consul at x: GET y", chance.choice([200, 404, 500]), {}, text).json()
        chosen(ConsulInstances("web", chance.choice(["", "a"])), answer, 3)
    with may_raise(UnreadableStatus):
        status_bytes.decode(mutator.written(mutator.mutant(STATUS)), "lb1")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode(errors="replace")).decode()


# ---------------------------------------------------------------- ExaBGP and its bridge


ROUTE = Route(communities=("65000:1",), med=5, as_path_prepend=2)
ORDER = encode(RouteSet(3, 15.0, {ip_address("192.0.2.1"): ROUTE, ip_address("2001:db8::1"): Route()}))
NEIGHBOR = {
    "peer-address": "198.51.100.1", "local-address": "198.51.100.9", "local-as": 65001, "peer-as": 65000,
    "state": "up",
    "duration": 3, "capability": {}, "families": ["ipv4 unicast"],
}  # fmt: skip
EVENT = {"exabgp": "5.0.0", "type": "state", "neighbor": {"address": {"local": "198.51.100.9",
"peer": "198.51.100.1"},
         "state": "up", "reason": "x"}}  # fmt: skip
LISTED = (
    "neighbor 198.51.100.1 local-ip 198.51.100.9 local-as 65001 peer-as 65000 router-id 198.51.100.9 "
    "family-allowed in-open ipv4 unicast 192.0.2.1/32 next-hop 198.51.100.9 med 5 community [ 65000:1 ]"
)


def bridge(mutator: Mutator) -> None:
    """What the daemon tells its bridge and hears of it, and what ExaBGP writes to the bridge, line by line."""
    chance = mutator.chance
    order = mutator.damaged(ORDER if chance.random() < 0.3 else mutator.written(mutator.mutant(json.loads(ORDER))))
    with may_raise(ProtocolError):
        wanted = decode_order(order.strip())
        assert isinstance(wanted, (RouteSet, Heartbeat))
    with may_raise(ProtocolError):
        decode_report(mutator.written(mutator.mutant({"report": {"serial": 1, "routes": {}, "sessions": []}})))
    relay, now = Relay(RANGES, 15.0, 0.0), 0.0
    relay.connected(now)
    with may_raise(ProtocolError):
        relay.obey(decode_order(ORDER.strip()), now)
    for _ in range(12):
        now += chance.choice([0.0, 0.1, 3.0])
        relay.tick(now)
        if command := relay.next(now):
            assert "\n" not in command.line.rstrip("\n")
        line = chance.choice(
            [
                json.dumps(mutator.mutant(EVENT)),
                json.dumps([mutator.mutant(NEIGHBOR)]),
                LISTED,
                "done",
                "error",
                "",
                "5.0.13",
            ]
        )
        text = mutator.damaged(line.encode(errors="surrogatepass")).decode(errors="replace").replace("\n", " ")
        relay.hear(text, now)
    encode(relay.report())
    with may_raise(ValueError):
        grammar.neighbors(mutator.written([mutator.mutant(NEIGHBOR)]).decode(errors="replace"))
    grammar.routes([mutator.damaged(LISTED.encode()).decode(errors="replace")])


# ---------------------------------------------------------------- the kernel


KEY = ServiceKey("tcp", ip_address("192.0.2.1"), 80)
PIECES = (
    codec.service(KEY, VirtualService("mh", persistence=300)),
    codec.service(ServiceKey("fwmark", ip_address("::"), 7), VirtualService("rr")),
    codec.destination(DestinationKey(KEY, ip_address("10.1.0.1"), 80), Destination("tunnel", 100, 100), 100),
    codec.destination(
        DestinationKey(KEY, ip_address("2001:db8::1"), 80), Destination("gue", 1, 1, tunnel_port=6080), 1
    ),
)
PAYLOAD = 20


def netlink(mutator: Mutator) -> None:
    """Messages of the kernel's about IPVS. What cannot be read is left out; nothing is made of bytes behind its end."""
    chance, reader = mutator.chance, IpvsReader()
    for _ in range(3):
        body = mutator.damaged(chance.choice(PIECES))
        length = chance.choice([PAYLOAD + len(body), chance.randrange(70_000)])
        data = length.to_bytes(4, sys.byteorder) + bytes(PAYLOAD - 4) + body
        end = min(len(data), length)
        for read in (reader.service, reader.destination):
            with may_raise(ValueError):
                read(data, PAYLOAD, end)
        with may_raise(ValueError):
            counters(data, PAYLOAD, end, chance.random() < 0.5)
        for start, stop, _ in messages(data):
            assert stop > start


TARGETS: Mapping[str, Case] = {"documents": documents, "consul": consul, "bridge": bridge, "netlink": netlink}
