"""The gateways and routes of one reading of a tree: which of their documents count, those of now or the last good ones.

A gateway needs VIPs and ports that no service and no other gateway has; a route needs the gateways and pools that it
names, and hostnames that no other route of a gateway has. What refers to something that is gone stays as it was: an
order to delete a pool is no order to delete its routes, and their requests are answered with 503.

Pure. ``catalog.reading`` reads the services, and pools among them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.claims import Claimant, settle
from anycastlb.core.catalog.contradictions import Limits
from anycastlb.core.catalog.decode import MalformedDocument, contained
from anycastlb.core.catalog.http.gateway import every_port, gateway_mark, judge_gateway, parse_gateway
from anycastlb.core.catalog.http.route import parse_route
from anycastlb.core.model import Catalog, Entry, Gateway, HttpRoute, Problem, SiteKey

T = TypeVar("T", Gateway, HttpRoute)
Parse: TypeAlias = Callable[[str, str, Any], T | tuple[Problem, ...]]
Judge: TypeAlias = Callable[[str, T], Iterable[Problem]]
HOSTNAMES = "expected hostnames of its own; {} belongs to {}"


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A document that counts, with its value."""

    value: T
    entry: Entry


@dataclass
class Documents(Generic[T]):
    """The documents of one kind: ``gateways`` or ``routes``."""

    kind: str
    before: Mapping[str, Kept[T]]
    """Those of the catalog in force."""
    kept: dict[str, Kept[T]] = field(default_factory=dict)

    def read(self, entries: Mapping[str, Entry], parse: Parse[T], judge: Judge[T]) -> tuple[Problem, ...]:
        """Take each document that is good, else its last good version. Returns what is wrong with them.

        ``parse`` reads a document by itself, and is not asked again about an unchanged one; ``judge`` says what is
        wrong with a value beside all others.
        """
        problems: list[Problem] = []
        for name in sorted(entries):
            origin = self._origin(name, entries[name])
            try:
                self.kept[name] = contained(origin, self._read, origin, name, entries[name], parse, judge)
            except MalformedDocument as exc:
                problems += exc.problems
                self.fall_back(name)
        return tuple(problems)

    def _read(self, origin: str, name: str, entry: Entry, parse: Parse[T], judge: Judge[T]) -> Kept[T]:
        known = self.before.get(name)
        if known is not None and known.entry == entry:
            read = known
        else:
            value = parse(origin, name, decode.document(f"{self.kind}/{name}", entry))
            if isinstance(value, tuple):
                raise MalformedDocument(*value)
            read = Kept(known.value if known is not None and known.value == value else value, entry)
        if wrong := tuple(judge(origin, read.value)):
            raise MalformedDocument(*wrong)
        return read

    @property
    def changed(self) -> bool:
        """Is there any value that is not in force?"""
        held = {name: kept.value for name, kept in self.before.items()}
        return any(held.get(name) is not kept.value for name, kept in self.kept.items())

    def fall_back(self, name: str) -> None:
        """Take the last good version; if there is none, nothing."""
        self.kept.pop(name, None)
        if name in self.before:
            self.kept[name] = self.before[name]

    def settled(self, losers: Mapping[str, bool]) -> None:
        """Take what is left after claims were settled."""
        for key, stays in losers.items():
            kind, _, name = key.partition("/")
            if kind == self.kind:
                self.fall_back(name)
                if not stays:
                    self.kept.pop(name, None)

    def claimants(
        self,
        claims: Callable[[T], tuple[Any, ...]],
        marks: Callable[[T], tuple[Any, ...]] = lambda value: (),
        bars: Callable[[T], tuple[Any, ...]] = lambda value: (),
    ) -> list[Claimant]:
        return [
            Claimant(
                key=f"{self.kind}/{name}",
                origin=self._origin(name, kept.entry),
                created=kept.entry.created,
                claims=claims(kept.value),
                held=claims(self.before[name].value) if name in self.before else (),
                marks=marks(kept.value),
                bars=bars(kept.value),
            )
            for name, kept in self.kept.items()
        ]

    def values(self) -> tuple[T, ...]:
        return tuple(kept.value for _, kept in sorted(self.kept.items()))

    def good(self) -> dict[str, Entry]:
        return {f"{self.kind}/{name}": kept.entry for name, kept in self.kept.items()}

    def _origin(self, name: str, entry: Entry) -> str:
        return entry.origin or f"{self.kind}/{name}"


def read_gateways(
    entries: Mapping[str, Entry], previous: Catalog, limits: Limits, certificates: frozenset[str] | None
) -> tuple[Documents[Gateway], tuple[Problem, ...]]:
    """The gateways, whose VIPs may still be those of others: see ``Documents.claimants``."""
    documents = Documents("gateways", _before("gateways", previous, previous.gateways))
    return documents, documents.read(
        entries, parse_gateway, lambda key, gateway: judge_gateway(key, gateway, limits, certificates)
    )


def gateway_claimants(gateways: Documents[Gateway]) -> list[Claimant]:
    """A gateway needs its VIPs and ports for itself, and no service may have every port of such a VIP."""
    return gateways.claimants(
        Gateway.claims,
        lambda gateway: tuple(map(gateway_mark, gateway.vips)),
        lambda gateway: tuple(map(every_port, gateway.vips)),
    )


def read_routes(
    entries: Mapping[str, Entry], previous: Catalog, gateways: Collection[str], pools: Collection[str]
) -> tuple[Documents[HttpRoute], tuple[Problem, ...]]:
    """The routes. ``pools``: the names of all services."""
    documents = Documents("routes", _before("routes", previous, previous.routes))
    problems = documents.read(entries, parse_route, lambda key, route: _unknown(key, route, gateways, pools))
    if not documents.changed:  # nobody claims anything that is not held
        return documents, problems
    settled = settle(documents.claimants(_sites), "hostnames", HOSTNAMES)
    documents.settled(settled.losers)
    return documents, (*problems, *settled.problems)


def _before(kind: str, previous: Catalog, values: tuple[T, ...]) -> dict[str, Kept[T]]:
    keys = {value.name: f"{kind}/{value.name}" for value in values}
    return {value.name: Kept(value, previous.good.get(keys[value.name], Entry(b""))) for value in values}


def _sites(route: HttpRoute) -> tuple[SiteKey, ...]:
    return tuple(SiteKey(gateway, host) for gateway in route.gateways for host in route.hostnames)


def _unknown(key: str, route: HttpRoute, gateways: Collection[str], pools: Collection[str]) -> tuple[Problem, ...]:
    """What the route refers to and is not there."""
    wrong = [
        Problem(key, f"gateways.{place}", f"expected the name of a gateway; there is none called {name}")
        for place, name in enumerate(route.gateways)
        if name not in gateways
    ]
    expected = "expected the name of a service, with or without a VIP; there is none called {}"
    for place, rule in enumerate(route.rules):
        for number, ref in enumerate(rule.refs):
            if ref.pool not in pools:
                wrong.append(Problem(key, f"rules.{place}.backendRefs.{number}.name", expected.format(ref.pool)))
    for elb in route.graph.rules if route.graph else ():
        if elb.pool and elb.pool not in pools:
            wrong.append(Problem(key, f"graph.rules.{elb.name}.args.servername", expected.format(elb.pool)))
    return tuple(wrong)
