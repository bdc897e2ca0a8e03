"""ExaBGP 5's process API as values: command lines from typed values, answers and events to typed values.

Pure. ExaBGP finds its commands by *substring*, so a free word in a line can shut it down: every word written here is
a literal, an ``ipaddress`` object or a number that was parsed as one. Nothing a peer or an operator wrote is passed on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Literal

from anycastlb.core.model import Address, Route

VERSION = "version"
ENABLE_ACK = "enable-ack"
SHOW_NEIGHBORS = "show neighbor json"
BATCH_MAX = 98
"""Prefixes in one command, at most: ExaBGP works through 50 steps in one pass, of which one prefix takes one."""
BATCH_MIN = 24
BATCH_WORK = 200
"""Prefixes times neighbors in one command, at most: more of them make an urgent withdrawal wait longer."""

NAMED = {
    "no-export": "65535:65281",
    "no-advertise": "65535:65282",
    "no-export-subconfed": "65535:65283",
    "no-peer": "65535:65284",
    "blackhole": "65535:666",
}
"""Communities that ExaBGP lists by name."""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """A BGP neighbor as ExaBGP's configuration has it."""

    peer: Address
    local_as: int
    peer_as: int
    families: frozenset[int]
    """IP versions of the unicast families it is configured for."""
    up: bool = False
    up_for: int = 0
    """Whole seconds it has been up; 0 when it is not."""

    def carries(self, vip: Address) -> bool:
        """``next-hop self`` needs a session of the VIP's own family."""
        return self.peer.version == vip.version and vip.version in self.families


@dataclass(frozen=True, slots=True)
class StateEvent:
    peer: Address
    state: Literal["up", "down", "connected"]
    reason: str = ""


def batch(neighbors: int) -> int:
    """How many prefixes one command for so many neighbors may have."""
    return max(BATCH_MIN, min(BATCH_MAX, BATCH_WORK // neighbors))


def alike(neighbors: Sequence[Neighbor], route: Route) -> tuple[Neighbor, ...]:
    """The first of these neighbors, and the others to which the route is announced in the very same words."""
    if not route.as_path_prepend:
        return tuple(neighbors)
    path = _path(neighbors[0], route)
    return tuple(neighbor for neighbor in neighbors if _path(neighbor, route) == path)


def announce(neighbors: Sequence[Neighbor], route: Route, vips: Sequence[Address]) -> str:
    """One command that announces these host routes, all with the same attributes, to neighbors that are alike."""
    words = [_selector([neighbor.peer for neighbor in neighbors]), "announce attributes next-hop self"]
    if route.med is not None:
        words += ["med", str(int(route.med))]
    if route.local_preference is not None:
        words += ["local-preference", str(int(route.local_preference))]
    words += _path(neighbors[0], route)
    if route.communities:
        words += ["community [", *map(_numbers, route.communities), "]"]
    if route.large_communities:
        words += ["large-community [", *map(_numbers, route.large_communities), "]"]
    return " ".join([*words, "nlri", *map(_prefix, vips)])


def withdraw(peers: Sequence[Address], vips: Sequence[Address]) -> str:
    return " ".join([_selector(peers), "withdraw attributes next-hop self nlri", *map(_prefix, vips)])


def show_routes(peer: Address) -> str:
    """List what ExaBGP announces to this neighbor (and, ExaBGP being what it is, to those whose address begins so)."""
    return f"show adj-rib out {peer} extensive"


def canonical(route: Route) -> Route:
    """The route as ExaBGP lists it: communities are a sorted set there."""
    return Route(
        communities=_sorted(route.communities),
        large_communities=_sorted(route.large_communities),
        med=route.med,
        local_preference=route.local_preference,
        as_path_prepend=route.as_path_prepend,
    )


def event(line: str) -> StateEvent | None:
    """Decode a session's change of state; None for any other event."""
    try:
        document = json.loads(line)
        if document["type"] != "state":
            return None
        neighbor = document["neighbor"]
        state = neighbor["state"]
        if state not in ("up", "down", "connected"):
            return None
        reason = "".join(char for char in str(neighbor.get("reason", "")) if char.isprintable())
        return StateEvent(ip_address(neighbor["address"]["peer"]), state, reason[:200])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def neighbors(line: str) -> list[Neighbor]:
    """Decode the answer to ``show neighbor json``. Raises ``ValueError``."""
    try:
        return [_neighbor(item) for item in json.loads(line)]
    except (KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ValueError(f"expected ExaBGP 5's list of neighbors, not {line[:120]!r} ({exc})") from exc


def routes(lines: Iterable[str]) -> tuple[dict[Address, dict[Address, Route | None]], list[str]]:
    """Decode the answer to ``show_routes``: host routes by peer, and the lines that make no sense.

    A host route is None when its attributes could not be read. Prefixes that are no host route are left out.
    """
    listed: dict[Address, dict[Address, Route | None]] = {}
    senseless = []
    for line in lines:
        match = re.match(r"neighbor (\S+) .*?local-as (\d+) .*? ipv[46] unicast (\S+) next-hop \S+ ?(.*)", line)
        try:
            if match is None:
                raise ValueError
            peer, prefix = ip_address(match[1]), ip_network(match[3])
        except ValueError:
            senseless.append(line)
            continue
        if prefix.prefixlen == prefix.max_prefixlen:
            listed.setdefault(peer, {})[prefix.network_address] = _listed(match[4].split(), match[2])
    return listed, senseless


def _neighbor(item: dict[str, dict[str, object]]) -> Neighbor:
    local, peer = item["local"], item["peer"]
    families = local["families"]
    if not isinstance(families, dict):
        raise TypeError("families")
    up = str(item["state"]) == "up"
    return Neighbor(
        peer=ip_address(str(peer["address"])),
        local_as=int(str(local["as"])),
        peer_as=int(str(peer["as"])),
        families=frozenset(version for version in (4, 6) if f"ipv{version} unicast" in families),
        up=up,
        up_for=int(str(item["duration"])) if up else 0,
    )


def _listed(words: list[str], own: str) -> Route | None:
    """Decode the attributes of a listed route: ``med 50 community [ 1:2 3:4 ]``; None if a word is not known."""
    values: dict[str, tuple[str, ...]] = {}
    rest = iter(words)
    for name in rest:
        first = next(rest, "")
        if first in ("[", "("):
            values[name] = tuple(iter(lambda: next(rest, "]").replace(")", "]"), "]"))
        else:
            values[name] = (first,)
    path = values.pop("as-path", ())
    if set(path) - {own}:
        return None
    try:
        route = Route(
            communities=tuple(NAMED.get(name, name) for name in values.pop("community", ())),
            large_communities=values.pop("large-community", ()),
            med=int(values.pop("med")[0]) if "med" in values else None,
            local_preference=int(values.pop("local-preference")[0]) if "local-preference" in values else None,
            as_path_prepend=max(0, len(path) - 1),
        )
        return None if values else canonical(route)
    except ValueError:
        return None


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({_numbers(value) for value in values}, key=_parts))


def _parts(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split(":"))


def _numbers(value: str) -> str:
    """Rebuild ``65001:100`` from its numbers. Raises ``ValueError``."""
    return ":".join(map(str, _parts(value)))


def _selector(peers: Sequence[Address]) -> str:
    return " , ".join(f"neighbor {peer}" for peer in peers)


def _path(neighbor: Neighbor, route: Route) -> list[str]:
    """The AS path, in words, where it must be given; ExaBGP announces exactly this one then."""
    if not route.as_path_prepend or neighbor.local_as == neighbor.peer_as:  # an iBGP peer would see a loop
        return []
    return ["as-path [", *[str(int(neighbor.local_as))] * (1 + route.as_path_prepend), "]"]


def _prefix(vip: Address) -> str:
    return f"{vip}/{vip.max_prefixlen}"
