"""A model of the kernel's ``mh`` table: which backend a flow goes to, and what share of flows a change would move.

Theory of operation
-------------------

*The table* has 4093 slots. Each backend has a permutation of all slots, made of two hashes of its address and port.
The backends take turns in the order of the kernel's list, and each takes its next free slot, as many at a time as its
weight says, until every slot has an owner. A flow's address (and its port with ``mh-port``) is hashed to a slot, and
the slot's owner is its backend.

*What it depends on.* Nothing but the backends, their order and their weights. So nodes that agree on these send every
flow to the same backend without telling each other anything, and a flow that moves to another node keeps its backend.
Weights are divided by their greatest common divisor and shifted down to ``BITS`` bits, as the kernel does. A backend
with weight 0 keeps its slots, by its last weight: with ``mh-fallback`` its flows are hashed again until they meet one
that takes flows; without it they are refused.

*What it is for.* ``moves`` tells an operator before an edit what share of flows would go elsewhere, measured with a
fixed sample, so that all nodes give the same number.

*Why it can be trusted.* It is written from how Linux does it (net/netfilter/ipvs/ip_vs_mh.c, after Eisenbud et al.,
"Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4), and tests compare it with the
kernel flow by flow. The table's size is a build option of the kernel (CONFIG_IP_VS_MH_TAB_INDEX); the one here is the
default, which distributions keep. Kernels of 32 bits hash differently.

Pure. Decision record: docs/decisions/0003-pools-and-gates.md. The figures are in docs/FLOWS.md.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from anycastlb.core.model import Address, Destination, DestinationKey, ServiceKey, State, VirtualService

SIZE = 4093
"""Slots of a table."""
BITS = 6
"""Weights, divided by what they have in common, are shifted to the right until they have no more bits than this."""
FIRST, SECOND = 2654435761, 2654446892
"""The keys of the two hashes; constants, so that all nodes agree."""
FTP_DATA = 20
"""IPVS schedules no packet that comes from this port: to it that is the data of an FTP session (ip_vs_core.c)."""
SAMPLE = 20_000
"""Flows that a share is measured with: one of 10 % is right within 0.6 % (three standard deviations)."""
_MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Table:
    """Which backend each slot belongs to, and which of them take flows."""

    slots: tuple[DestinationKey, ...]
    """Empty if no backend ever had a weight."""
    available: frozenset[DestinationKey]
    by_port: bool
    """The client's port counts (``mh-port``)."""
    fallback: bool
    """A flow of a backend that takes none goes to another (``mh-fallback``); else it is refused."""

    def pick(self, client: Address, port: int) -> DestinationKey | None:
        """Where the kernel sends a new flow of this client address and port; None: nowhere."""
        if port == FTP_DATA:
            return None
        return self.at(_folded(client, client.version) + (port if self.by_port else 0))

    def at(self, value: int) -> DestinationKey | None:
        """The same for what a flow's address and port add up to."""
        return self.below(value, _hash(value, FIRST) % SIZE)

    def owner(self, slot: int) -> DestinationKey | None:
        """The backend that takes every flow of this slot, if there is one."""
        owner = self.slots[slot] if self.slots else None
        return owner if owner in self.available else None

    def below(self, value: int, first: int) -> DestinationKey | None:
        """The same as ``at`` for a value whose slot is known."""
        owner = self.owner(first)
        if owner is not None or not self.slots or not self.fallback or not self.available:
            return owner
        for offset in range(SIZE):
            again = self.slots[_hash(value + (offset + first) % SIZE, FIRST) % SIZE]
            if again in self.available:
                return again
        return None


def build(service: VirtualService, destinations: Mapping[DestinationKey, Destination]) -> Table:
    """The table of one service. ``destinations`` are oldest first, as in ``State``; the kernel's list has them newest
    first."""
    weights = {key: row.weight or row.last_weight or 0 for key, row in reversed(list(destinations.items()))}
    return Table(
        slots=tuple(_populated(weights)),
        available=frozenset(key for key, row in destinations.items() if row.weight > 0),
        by_port="mh-port" in service.flags,
        fallback="mh-fallback" in service.flags,
    )


def moved(before: Table, after: Table, flows: int = SAMPLE) -> float:
    """The share of flows that go elsewhere, of those that the table before sent anywhere; 0 to 1."""
    sent = gone = 0
    for slot, values in _sampled(flows):
        was, goes = before.owner(slot), after.owner(slot)
        if was is not None and goes is not None:
            sent += len(values)
            gone += len(values) * (goes != was)
            continue
        for value in values:
            if (was := before.below(value, slot)) is not None:
                sent += 1
                gone += after.below(value, slot) != was
    return gone / sent if sent else 0.0


def shares(table: Table, flows: int = SAMPLE) -> dict[DestinationKey, float]:
    """What share of new flows each backend gets; 0 to 1."""
    counts = dict.fromkeys(table.slots, 0)
    for slot, values in _sampled(flows):
        for value in values:
            if (backend := table.below(value, slot)) is not None:
                counts[backend] += 1
    return {key: count / flows for key, count in counts.items()}


@lru_cache(maxsize=4)
def _sampled(flows: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """A fixed sample of what flows' addresses and ports add up to, by the slot of each: the same for every table."""
    values, slots = random.Random(SIZE), dict[int, list[int]]()
    for _ in range(flows):
        value = values.getrandbits(32)
        slots.setdefault(_hash(value, FIRST) % SIZE, []).append(value)
    return tuple((slot, tuple(some)) for slot, some in slots.items())


def moves(before: State, after: State, limit: int | None = None) -> dict[ServiceKey, float]:
    """For every ``mh`` service of both states whose backends differ, or for so many of them: the share of its flows
    that would go elsewhere.

    Established flows of a node that stays up are in its connection table and do not move; this is what happens to
    those that another node takes over, and to where new ones go.
    """
    old, new = _by_service(before), _by_service(after)
    changed = (
        key
        for key, row in after.services.items()
        if key in before.services
        and row.scheduler == before.services[key].scheduler == "mh"
        and list(old.get(key, {}).items()) != list(new.get(key, {}).items())
    )
    return {
        key: moved(build(before.services[key], old.get(key, {})), build(after.services[key], new.get(key, {})))
        for key in islice(changed, limit)
    }


def _by_service(state: State) -> dict[ServiceKey, dict[DestinationKey, Destination]]:
    grouped: dict[ServiceKey, dict[DestinationKey, Destination]] = {}
    for key, row in state.destinations.items():
        grouped.setdefault(key.service, {})[key] = row
    return grouped


def _populated(weights: Mapping[DestinationKey, int]) -> Iterator[DestinationKey]:
    """The slots in turn. Each backend has a permutation of all slots; they take their next free one in rounds, in the
    order of the list, as many at a time as their weight says."""
    common = math.gcd(*weights.values()) if weights else 0
    if not common:
        return
    shift = max((max(weights.values()) // common).bit_length() - BITS, 0)
    owners: list[DestinationKey | None] = [None] * SIZE
    rounds = [
        (key, (weight // common >> shift) or 1, _hash(_own(key), SECOND) % (SIZE - 1) + 1)
        for key, weight in weights.items()
        if weight
    ]
    at = {key: _hash(_own(key), FIRST) % SIZE for key, _, _ in rounds}
    left = SIZE
    while left:
        for key, turns, skip in rounds:
            slot = at[key]
            for _ in range(min(turns, left)):
                while owners[slot] is not None:
                    slot = (slot + skip) % SIZE
                owners[slot] = key
                left -= 1
            at[key] = slot
    yield from (owner for owner in owners if owner is not None)


def _own(key: DestinationKey) -> int:
    """What a backend's address and port add up to. Under an IPv4 VIP only the first 32 bits of IPv6 count."""
    family = 6 if key.service.address.version == 6 else 4
    return _folded(key.address, family) + key.port


def _folded(address: Address, family: int) -> int:
    """An address in 32 bits: the four words of IPv6 are folded by exclusive or. IPv4 has no more than the first."""
    words = [int.from_bytes(address.packed[start : start + 4]) for start in range(0, 16, 4)]
    return words[0] ^ words[1] ^ words[2] ^ words[3] if family == 6 else words[0]


def _hash(value: int, key: int) -> int:
    """The kernel's ``hsiphash`` of one 32-bit word: SipHash-1-3 (Aumasson and Bernstein, 2012), lower half."""
    last = 4 << 56 | value & 0xFFFFFFFF
    v0, v1 = key ^ 0x736F6D6570736575, key ^ 0x646F72616E646F6D
    v2, v3 = key ^ 0x6C7967656E657261, key ^ 0x7465646279746573 ^ last
    for turn in range(4):
        v0 = v0 + v1 & _MASK
        v1 = (v1 << 13 | v1 >> 51) & _MASK ^ v0
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = v2 + v3 & _MASK
        v3 = (v3 << 16 | v3 >> 48) & _MASK ^ v2
        v0 = v0 + v3 & _MASK
        v3 = (v3 << 21 | v3 >> 43) & _MASK ^ v0
        v2 = v2 + v1 & _MASK
        v1 = (v1 << 17 | v1 >> 47) & _MASK ^ v2
        v2 = (v2 << 32 | v2 >> 32) & _MASK
        if turn == 0:
            v0, v2 = v0 ^ last, v2 ^ 0xFF
    return (v0 ^ v1 ^ v2 ^ v3) & 0xFFFFFFFF
