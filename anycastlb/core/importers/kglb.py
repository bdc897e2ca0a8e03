"""KgLb's configuration, which ``kglbd -config`` reads, to service documents: each balancer becomes one.

What KgLb would assume is written down (``rr``, a weight of 1000, no drain), and so is what it always does: it keeps the
route when all reals fail. A balancer that cannot be read costs only itself. Pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.catalog.keys import named
from anycastlb.core.catalog.scheduler import CANONICAL
from anycastlb.core.fields import is_address, is_unicast, shown
from anycastlb.core.importers.documents import Documents, Note, Real, UnreadableInput, Virtual, document, weight
from anycastlb.core.importers.kglb_checks import check, milliseconds
from anycastlb.core.importers.proto3 import Message
from anycastlb.core.model import Address

EXPECTED = 'the file of `kglbd -config`: {"balancers": [...]}'
SCHEDULERS = {"RR": "rr", "WRR": "wrr", "IP_VS_SCH": "sh"}
FLAGS = (
    "EMPTY", "PERSISTENT", "HASHED", "ONEPACKET", "SCHED1", "SCHED2", "SCHED3", "SH_FALLBACK", "SH_PORT", "SH_NOPORT",
)  # fmt: skip
BITS = {"SH_FALLBACK": "flag-1", "SH_PORT": "flag-2"}
METHODS = {"TUNNEL": "tunnel", "MASQ": "nat"}
FAMILIES = {"AF_INET": 4, "AF_INET6": 6}
WEIGHT = 1000
PERSISTENCE = 360
"""Seconds: ipvsadm's own, where KgLb sets none."""
LONGEST = 86_400_000
"""Milliseconds of a drain."""
FAILSAFE = (
    'when all reals of a balancer fail, KgLb keeps the route and uses them all; so does "fail": "keep", here also '
    "before any of them was ever up; take it out of announce to have the route withdrawn"
)


def convert(text: str) -> tuple[Documents, list[Note]]:
    """The documents by key, and what could not be carried over, or not exactly. Raises ``UnreadableInput``."""
    try:
        config = read_json(text, MAX_BULK)
    except ValueError as exc:
        raise UnreadableInput(0, f"expected {EXPECTED}: {exc}") from exc
    if not isinstance(config, dict) or not isinstance(config.get("balancers"), list):
        raise UnreadableInput(0, f"expected {EXPECTED}, not {shown(config)}")
    conversion = _Conversion(config["balancers"])
    for place, balancer in enumerate(config["balancers"]):
        conversion.add(place, balancer)
    return conversion.documents, conversion.told([name for name in config if name != "balancers"])


class _Conversion:
    def __init__(self, balancers: Sequence[Any]) -> None:
        self.documents: Documents = {}
        self._notes: list[Note] = []
        names = [one.get("name") for one in balancers if isinstance(one, dict)]
        self._names = Counter(name for name in names if isinstance(name, str))
        self._setups: set[str] = set()
        self._neighbors: set[tuple[int, int]] = set()
        self._endpoints: set[str] = set()

    def told(self, unknown: Sequence[str]) -> list[Note]:
        """All notes; those about the file as a whole come last."""
        texts = [f"{shown(name)}: no field of KgLb's; left out" for name in unknown]
        if self.documents:
            texts.append(FAILSAFE)
        if len(self._setups) > 1:
            names = ", ".join(sorted(map(shown, self._setups))[:5])
            texts.append(
                f"setup_name {names}: a catalog has no setups; give each its own [consul] prefix, or one to all"
            )
        for local, peer in sorted(self._neighbors):
            texts.append(f"local_asn {local}, peer_asn {peer}: the session is ExaBGP's, and stands in exabgp.conf")
        return [*self._notes, *(Note(0, text) for text in texts)]

    def add(self, place: int, value: Any) -> None:
        notes: list[Note] = []
        name = value.get("name") if isinstance(value, dict) else None
        try:
            balancer = Message(value)
            self._add(balancer, notes)
            notes += [Note(0, f"{path:.200}: no field of KgLb's; left out") for path in balancer.unread()]
        except UnreadableInput as exc:
            notes = [Note(0, f"{exc.what}; the balancer is left out")]
        whose = f"balancers[{place}]" + (f" {shown(name)}" if name else "")
        self._notes += [Note(0, f"{whose}: {note.what}") for note in dict.fromkeys(notes)]

    def _add(self, balancer: Message, notes: list[Note]) -> None:
        virtual = _virtual(balancer, notes)
        if virtual.name in self._endpoints:
            raise UnreadableInput(0, f"{virtual.name}: another balancer has the same address and port")
        forward = METHODS[balancer.message("upstream_routing").choice("forward_method", tuple(METHODS))]
        probe = check(balancer, virtual.vips[0], notes)
        found = _reals(balancer, virtual, Real(virtual.vips[0], 0, forward, check=probe), notes)
        drain = self._announce(balancer, virtual, notes)
        if balancer.flag("configure_reals"):
            notes.append(Note(0, "configure_reals: as under KgLb, which never did it, something else has to"))
        key = f"services/{self._name(balancer.text('name'), virtual, notes)}"
        self._setups.add(balancer.text("setup_name"))
        self._endpoints.add(virtual.name)
        self.documents[key] = document(virtual) | {"forward": forward, "check": probe, **found, "drain": drain}

    def _name(self, name: str, virtual: Virtual, notes: list[Note]) -> str:
        """Of the service: the balancer's, if it is one and no other has it."""
        if named(name) and self._names[name] == 1 and f"services/{name}" not in self.documents:
            return name
        if f"services/{virtual.name}" in self.documents:
            raise UnreadableInput(0, f"name: its own cannot be had, and {virtual.name} is another balancer's")
        why = "another has it" if named(name) else "no name for a service"
        notes.append(Note(0, f"name: {why}; services/{virtual.name} instead"))
        return virtual.name

    def _announce(self, balancer: Message, virtual: Virtual, notes: list[Note]) -> str:
        """How the VIP is announced; returned is the drain."""
        routing, vip = balancer.message("dynamic_routing"), virtual.vips[0]
        virtual.announce = {"fail": "keep"}
        if percent := _percent(routing.share("announce_limit_ratio")):
            virtual.announce["min_backends"] = f"{percent:g}%"
        bgp = routing.optional("bgp_attributes")
        if bgp is None:
            notes.append(Note(0, f"dynamic_routing: KgLb has no route for it; here {vip} is announced all the same"))
            return "0s"
        virtual.announce["when"] = "all"
        prefix, length = bgp.address("prefix"), bgp.number("prefixlen", 128)
        if (prefix, length) != (vip, vip.max_prefixlen):
            own = f"{vip}/{vip.max_prefixlen}"
            notes.append(Note(0, f"prefix {prefix}/{length}: a VIP has the route {own}, for its own services only"))
        self._neighbors.add((bgp.number("local_asn"), bgp.number("peer_asn")))
        communities = []
        for community in bgp.text("community").replace(",", " ").split():
            if re.fullmatch("[0-9]{1,5}:[0-9]{1,5}", community) and max(map(int, community.split(":"))) < 65536:
                communities.append(community)
            else:
                notes.append(Note(0, f"community {shown(community)}: not two numbers of 16 bits; left out"))
        if communities:
            virtual.announce["communities"] = communities
        return milliseconds(bgp, "hold_time_ms", 0, (0, LONGEST), notes)


def _percent(ratio: float) -> float:
    """Rounded down, so that two of three are not less than 0.66666667 of them."""
    return math.floor(ratio * 1e6 + 1e-6) / 1e4


def _virtual(balancer: Message, notes: list[Note]) -> Virtual:
    ipvs = balancer.message("lb_service").message("ipvs_service")
    kind = ipvs.one_of("tcp_attributes", "udp_attributes", "fwmark_attributes")
    target = ipvs.message(kind)
    if kind == "fwmark_attributes":
        raise UnreadableInput(0, f"fwmark {target.number('fwmark')}: a service needs its VIP, which KgLb does not say")
    vip, port = target.address("address"), target.number("port", 65535)
    if not port:
        raise target.bad("port", "a port from 1 to 65535")
    scheduler = ipvs.choice("scheduler", tuple(SCHEDULERS))
    if scheduler == "IP_VS_SCH":
        notes.append(Note(0, "scheduler IP_VS_SCH: no kernel has ip_vs_sch; sh instead"))
    virtual = Virtual(kind[:3], (vip,), port, SCHEDULERS[scheduler])
    flags = ipvs.choices("flags", FLAGS)
    names = [BITS[flag] for flag in flags if flag in BITS]
    virtual.flags = tuple(sorted({CANONICAL.get((virtual.scheduler, name), name) for name in names}))
    virtual.one_packet = "ONEPACKET" in flags and virtual.protocol == "udp"
    if "ONEPACKET" in flags and virtual.protocol != "udp":
        notes.append(Note(0, "flags ONEPACKET: for UDP only; left out"))
    if "PERSISTENT" in flags:
        virtual.persistence = PERSISTENCE
        notes.append(Note(0, f"flags PERSISTENT: KgLb sets no time-out; {PERSISTENCE} seconds instead"))
    for flag in flags:
        if flag not in (*BITS, "ONEPACKET", "PERSISTENT", "HASHED"):  # HASHED is the kernel's own
            notes.append(Note(0, f"flags {flag}: KgLb refuses it too, and applies nothing then; left out"))
    return virtual


def _reals(balancer: Message, virtual: Virtual, like: Real, notes: list[Note]) -> dict[str, Any]:
    """Give the service its reals, all ``like`` one; returned is where others are to be found."""
    discovery = balancer.message("upstream_discovery")
    port = discovery.number("port", 65535)
    family = discovery.choice("resolve_family", tuple(FAMILIES))
    share = weight(balancer.number("weight_up") or WEIGHT, 0, notes)
    if not port:
        port = virtual.port
        notes.append(Note(0, f"upstream_discovery.port: missing; the service's own {port} instead"))
    if discovery.one_of("static_attributes", "mdb_attributes") == "mdb_attributes":
        query = discovery.message("mdb_attributes").text("query")
        notes.append(Note(0, f"mdb_attributes {shown(query)}: nothing here asks an MDB; the service has no backends"))
        return {}
    hosts = discovery.message("static_attributes").texts("hosts")
    if len(hosts) == 1 and not is_address(hosts[0]) and port == virtual.port:
        notes.append(Note(0, f"host {shown(hosts[0])}: found by DNS, with all its addresses and not the first alone"))
        return {"backends_from": {"dns": {"name": hosts[0], "type": "AAAA" if FAMILIES[family] == 6 else "A"}}}
    if not hosts:
        notes.append(Note(0, "static_attributes.hosts: none, which KgLb refuses; the service has no backends"))
    known: set[Address] = set()
    for host in hosts:
        if not is_address(host):
            why = "no address; write its address, or discover it by DNS"
        elif (found := ip_address(host)).version != FAMILIES[family]:
            why = f"not of resolve_family {family}, so that KgLb finds no address"
        elif found in known or not is_unicast(found):
            why = "it is there twice" if found in known else "not the address of one host"
        else:
            known.add(found)
            virtual.reals.append(replace(like, address=found, port=port, weight=share))
            continue
        notes.append(Note(0, f"host {shown(host)}: {why}; left out"))
    return {}
