"""Who keeps what only one may have: a VIP, port and protocol, or a hostname of a gateway.

Who holds it in the catalog in force keeps it, otherwise the older document gets it. The other one falls back on its
last good version, if that claims nothing that is taken. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from anycastlb.core.model import Problem


@dataclass(frozen=True, slots=True)
class Claimant:
    """One document that claims something."""

    key: str
    """``services/web``."""
    origin: str
    """What the document is called in a problem."""
    created: int
    claims: tuple[Hashable, ...]
    held: tuple[Hashable, ...]
    """What it has in the catalog in force."""
    marks: tuple[Hashable, ...] = ()
    """What it shares with others of its kind."""
    bars: tuple[Hashable, ...] = ()
    """What nobody may claim or mark beside it: a service with every port of a VIP leaves none to a gateway."""

    def age(self) -> tuple[bool, int, str]:
        """Who holds what it claims comes first, then the older."""
        return set(self.held).isdisjoint(self.claims), self.created, self.key


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of the claims."""

    losers: Mapping[str, bool]
    """By key: those that do not get what they claim, and whether their last good version can stay."""
    problems: tuple[Problem, ...]


def settle(claimants: Iterable[Claimant], path: str, expected: str) -> Settled:
    """``expected``: what is expected of the field ``path``, with a place for the claim and one for its owner."""
    owners: dict[Hashable, Claimant] = {}
    losers: dict[str, bool] = {}
    problems: list[Problem] = []
    for one in sorted(claimants, key=Claimant.age):
        taken = next((claim for claim in (*one.claims, *one.bars) if claim in owners), None)
        if taken is None:
            owners.update(dict.fromkeys((*one.claims, *one.marks), one))
            continue
        rival, claim = owners[taken], taken if taken in one.claims else one.claims[0]
        problems.append(Problem(one.origin, path, expected.format(claim, _called(rival.key))))
        losers[one.key] = bool(one.held) and owners.keys().isdisjoint(one.held)
        if losers[one.key]:
            owners.update(dict.fromkeys(one.held, one))
    return Settled(losers, tuple(problems))


def _called(key: str) -> str:
    """``services/web`` -> ``service web``."""
    kind, _, name = key.partition("/")
    return f"{kind.removesuffix('s')} {name}"
