"""The routes that are wanted of ExaBGP: what the last look showed, and the changes that the cycle asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from anycastlb.core.model import Address, Change, Route


class WantedRoutes:
    """``routes``: None while nobody knows what is announced, so that nothing may be sent (None, not "no routes").
    ``decided``: has a cycle ended, or changed them, since they were taken from a report?"""

    def __init__(self) -> None:
        self.routes: dict[Address, Route] | None = None
        self.decided = False
        self.asked: set[Address] = set()
        """What the present cycle has asked to change."""
        self._looked: Mapping[Address, Route] | None = None
        """What the look of the present cycle has shown; None once the cycle has ended."""
        self._alike: Mapping[Address, Route] | None = None
        """What a look has shown that is what is wanted."""

    @property
    def known(self) -> bool:
        return self.routes is not None

    def adopt(self, announced: Mapping[Address, Route]) -> None:
        """What is announced already is wanted, unless it is known what is wanted."""
        if self.routes is None:
            self.routes = dict(announced)

    def forget(self) -> None:
        """Nobody knows any more what is announced."""
        self.routes, self.decided, self._looked, self._alike = None, False, None, None

    def begin_cycle(self, announced: Mapping[Address, Route]) -> None:
        """A cycle begins with a look, which shows this. Nobody may change it any more."""
        self.asked = set()
        self._looked = announced if self.routes is not None else None

    @property
    def in_cycle(self) -> bool:
        return self._looked is not None

    def ask(self, vips: Iterable[Address]) -> None:
        """The cycle asks to change the routes of these VIPs."""
        self.asked.update(vips)

    def change(self, changes: Sequence[Change]) -> None:
        if self.routes is None:
            return
        self._alike = None
        for change in changes:
            if change.new is None:
                self.routes.pop(change.key, None)
            else:
                self.routes[change.key] = change.new

    def end_cycle(self) -> bool:
        """Want what the cycle's look showed, but for what it asked to change. True if that is to be sent."""
        looked, self._looked = self._looked, None
        if self.routes is None or looked is None:
            return False
        if self.decided and not self.asked and (looked is self._alike or self.routes == looked):
            self._alike = looked
            return False
        before, self._alike = dict(self.routes), None
        for vip in [vip for vip in self.routes if vip not in looked and vip not in self.asked]:
            del self.routes[vip]
        self.routes |= {vip: route for vip, route in looked.items() if vip not in self.asked}
        return not self.decided or before != self.routes
