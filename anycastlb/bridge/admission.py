"""Which routes may leave the node, and which of those that ExaBGP has are ours to withdraw.

A route that was ours stays ours: ``vip_ranges`` may be narrowed while ExaBGP still announces a route that is now
outside of them, and nobody but this bridge could withdraw it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from anycastlb.bridge.protocol import fault, within
from anycastlb.core.model import EMPTY, Address, Network, Route

GIVEN = 1000
"""Reasons remembered, so that each is given once."""


class Admission:
    """``ranges``: the networks whose host routes may leave the node."""

    def __init__(self, ranges: Sequence[Network]) -> None:
        self.refused: Mapping[Address, str] = EMPTY
        """Why routes of the last set may not leave the node."""
        self._ranges = tuple(ranges)
        self._past_ranges = dict.fromkeys(ranges)
        """Every network that was ever among the ranges."""
        self._offered: Mapping[Address, Route] = EMPTY
        self._foreign: set[Address] = set()
        """VIPs that ExaBGP has and that are not ours."""
        self._given: set[str] = set()

    def change_ranges(self, ranges: Sequence[Network]) -> None:
        """From now on only host routes of these may leave; what was ours stays so."""
        if tuple(ranges) == self._ranges:
            return
        self._ranges, self._offered = tuple(ranges), EMPTY
        self._past_ranges |= dict.fromkeys(ranges)
        self._foreign = {vip for vip in self._foreign if not within(vip, tuple(self._past_ranges))}

    def offer(self, routes: Mapping[Address, Route]) -> list[str]:
        """Judge the routes of a set, all of which are ours from now on; return the reasons not yet given."""
        before, refused = self._offered, {}
        for vip, route in routes.items():
            known = before.get(vip)
            if known is route or known == route:
                if vip in self.refused:
                    refused[vip] = self.refused[vip]
            elif reason := fault(vip, route, self._ranges):
                refused[vip] = reason
        self._offered, self.refused = routes, refused
        self._foreign.difference_update(routes)
        new = [reason for reason in refused.values() if reason not in self._given]
        self._given = {*islice(self._given, GIVEN), *new}
        return new

    def listed(self, vips: Iterable[Address]) -> None:
        """ExaBGP had these before this bridge began."""
        past = tuple(self._past_ranges)
        self._foreign.update(vip for vip in vips if vip not in self._offered and not within(vip, past))

    def is_ours(self, vip: Address) -> bool:
        return vip not in self._foreign
