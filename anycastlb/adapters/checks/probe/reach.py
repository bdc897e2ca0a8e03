"""Says which targets the checks of this node may connect to. It opens no connection.

Whoever may write a backend's key says where checks go and what they send, and a check runs as the daemon. So checks do
not go to what trusts this node for being this node: its loopback, its own addresses, the link's addresses (such as the
metadata of a cloud), unless the backend itself lies there. Where its API or its Consul agent listens they never go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from anycastlb.adapters.checks.probe.params import proxy_of
from anycastlb.adapters.system.route_lookup import is_own
from anycastlb.core.model import Address, Check, Network, endpoint

Target: TypeAlias = tuple[Address, int]
FRESH = 5.0
"""Seconds for which it is remembered whether an address is the node's own."""


class Reach:
    """``networks``: where checks may go; empty: everywhere but to the node itself. ``closed``: where they never may."""

    def __init__(
        self,
        networks: Iterable[Network] = (),
        closed: Iterable[Target] = (),
        own: Callable[[Address], bool] = is_own,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks, self._own, self._clock = tuple(networks), own, clock
        self._closed = frozenset((_unmapped(address), port) for address, port in closed)
        self._closed_ports = frozenset(port for _, port in self._closed)
        self._known: dict[Address, tuple[bool, float]] = {}
        self._allowed: dict[Check, float] = {}
        """Until when a check may be made without another look."""

    def refusal(self, check: Check, now: float | None = None) -> str:
        """Why this check must not be made now, for an operator; empty if it may. ``now`` is given by who knows it."""
        now = self._clock() if now is None else now
        if self._allowed.get(check, now) > now or self.always_allows(check):
            return ""
        why = self._judged(check)
        if not why:
            looked = [self._known[target][1] for target in map(_target, targets(check)) if target in self._known]
            self._allowed[check] = min(looked, default=now) + FRESH
        return why

    def always_allows(self, check: Check) -> bool:
        """Is it allowed whatever addresses this node has? To find that out takes longer than a probe."""
        return all(
            port not in self._closed_ports and (self._is_named(_unmapped(address)) if self._networks else not elsewhere)
            for address, port, elsewhere in targets(check)
        )

    def _judged(self, check: Check) -> str:
        for address, port, elsewhere in targets(check):
            target = _unmapped(address)
            # The kernel connects to the loopback where the address is 0.0.0.0.
            local = target.is_loopback or target.is_unspecified or self._is_own(target)
            if (target, port) in self._closed or (local and port in self._closed_ports):
                return f"not tried: {endpoint(address, port)} is this node's API or Consul's, which no check may use"
            if self._networks:
                if not self._is_named(target):
                    named = ", ".join(map(str, self._networks[:3])) + (", ..." if len(self._networks) > 3 else "")
                    return f"not tried: {address} is in none of this node's [checks] networks ({named})"
            elif elsewhere and (local or target.is_link_local):
                whose = "this node's own" if local else "link-local"
                return (
                    f"not tried: {address} is {whose} and not the backend's; name it in [checks] networks of node.toml "
                    "if checks may go there"
                )
        return ""

    def _is_named(self, target: Address) -> bool:
        return any(target in network for network in self._networks)

    def _is_own(self, address: Address) -> bool:
        now = self._clock()
        known = self._known.get(address)
        if known is None or now - known[1] > FRESH:
            if len(self._known) > 100_000:  # of backends that are long gone
                self._known.clear()
                self._allowed.clear()
            known = self._known[address] = (self._own(address), now)
        return known[0]


def targets(check: Check) -> Iterator[tuple[Address, int, bool]]:
    """Whom a check connects to, and whether that is somebody else than its backend."""
    if check.via is not None:
        yield check.via.address, check.via.port or check.port, False
    elif (proxy := proxy_of(check.params)) is not None:
        yield *proxy, True
    else:
        yield check.address, check.port, check.elsewhere


def _target(target: tuple[Address, int, bool]) -> Address:
    return _unmapped(target[0])


def _unmapped(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 address, as the kernel takes it."""
    return getattr(address, "ipv4_mapped", None) or address
