"""Mutants of what the daemon tells its bridge and hears of it, and of what ExaBGP writes to the bridge."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TypeAlias

from anycastlb.bridge import grammar
from anycastlb.bridge.protocol import Heartbeat, ProtocolError, RouteSet, decode_order, decode_report, encode
from anycastlb.bridge.relay import Relay
from anycastlb.core.model import Route
from tests.fuzz.documents import RANGES
from tests.fuzz.mutation import Mutator, may_raise

Line: TypeAlias = tuple[str, bytes, float]
"""From whom it is, what it says, and how many seconds after the one before."""
ROUTE = Route(communities=("65000:1",), med=5, as_path_prepend=2)
ORDER = encode(RouteSet(3, 15.0, {ip_address("192.0.2.1"): ROUTE, ip_address("2001:db8::1"): Route()}))
ORDERED = json.loads(ORDER)
REPORT = {"report": {"serial": 1, "routes": {}, "sessions": []}}
NEIGHBOR = {
    "peer-address": "198.51.100.1", "local-address": "198.51.100.9", "local-as": 65001, "peer-as": 65000,
    "state": "up", "duration": 3, "capability": {}, "families": ["ipv4 unicast"],
}  # fmt: skip
EVENT = {"exabgp": "5.0.0", "type": "state",
         "neighbor": {"address": {"local": "198.51.100.9", "peer": "198.51.100.1"}, "state": "up", "reason": "x"},
         }  # fmt: skip
LISTED = (
    b"neighbor 198.51.100.1 local-ip 198.51.100.9 local-as 65001 peer-as 65000 router-id 198.51.100.9 "
    b"family-allowed in-open ipv4 unicast 192.0.2.1/32 next-hop 198.51.100.9 med 5 community [ 65000:1 ]"
)
TALK = 12
"""Lines of ExaBGP's in a talk."""


def make(mutator: Mutator) -> Sequence[Line]:
    chance = mutator.chance
    order = mutator.damaged(ORDER if chance.random() < 0.3 else mutator.written(mutator.mutant(ORDERED)))
    lines: list[Line] = [("daemon", order.strip(), 0.0)]
    lines += [_exabgp(mutator) for _ in range(TALK)]
    lines += [
        ("bridge", mutator.written(mutator.mutant(REPORT)), 0.0),
        ("listing", mutator.written([mutator.mutant(NEIGHBOR)]), 0.0),
        ("routes", mutator.damaged(LISTED), 0.0),
    ]
    return lines


def _exabgp(mutator: Mutator) -> Line:
    """A line that ExaBGP may write, and how long after the one before."""
    chance = mutator.chance
    kind = chance.randrange(7)
    if kind == 0:
        line = mutator.written(mutator.mutant(EVENT))
    elif kind == 1:
        line = mutator.written([mutator.mutant(NEIGHBOR)])
    else:
        line = chance.choice([LISTED, b"done", b"error", b"", b"5.0.13"])
    return "exabgp", mutator.damaged(line).replace(b"\n", b" "), chance.choice([0.0, 0.1, 3.0])


def judge(lines: Sequence[Line]) -> None:
    """One talk: the bridge has a good order, and announces only that."""
    relay, now = Relay(RANGES, 15.0, 0.0), 0.0
    relay.connected(now)
    relay.obey(decode_order(ORDER.strip()), now)
    for kind, line, pause in lines:
        text = line.decode(errors="replace")
        with may_raise(ProtocolError, *([ValueError] if kind == "listing" else [])):
            if kind == "daemon":
                assert isinstance(decode_order(line), (RouteSet, Heartbeat))
            elif kind == "bridge":
                decode_report(line)
            elif kind == "listing":
                grammar.neighbors(text)
            elif kind == "routes":
                grammar.routes([text])
            else:
                now += pause
                relay.tick(now)
                if command := relay.next(now):
                    _well_formed(command.line)
                relay.hear(text, now)
    encode(relay.report())


def _well_formed(command: str) -> None:
    assert "\n" not in command.rstrip("\n"), command
    if "announce" in command:
        named = re.findall(r"(\S+)/\d+", command)
        assert named and set(named) <= {"192.0.2.1", "2001:db8::1"}, command
