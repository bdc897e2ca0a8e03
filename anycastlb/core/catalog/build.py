"""One service from the documents of its keys: its own document, its backends' keys and its discovered instances.

Pure. A bad backend key keeps its own last good value, or is left out; a bad service document raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.check import CheckTypes, ReadCheck, parts_of
from anycastlb.core.catalog.contradictions import Limits, clash, unreachable
from anycastlb.core.catalog.decode import MalformedDocument, contained
from anycastlb.core.catalog.discovery import Instances, discover, instance_document
from anycastlb.core.catalog.http.pool import defaults_under, is_pool
from anycastlb.core.catalog.keys import NAMES, named
from anycastlb.core.catalog.pool import Endpoints, Pool
from anycastlb.core.catalog.schema import ServiceDocument
from anycastlb.core.catalog.service import backend_problems, parse_own, parse_service
from anycastlb.core.fields import shown
from anycastlb.core.model import Entry, Problem, Service

MAX_CHECKS = 10_000
"""Checks that one document may ask for: its backends, times the parts of a combined check."""
MAX_DESTINATIONS = 100_000
"""Destinations in the kernel that one document may ask for: its VIPs, times its backends."""


@dataclass(frozen=True)
class Rules:
    """What the documents of every service are read with."""

    limits: Limits
    check_types: CheckTypes
    instances: Instances
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The document ``defaults``, which lies under each service document."""
    certificates: frozenset[str] | None = None
    """The names of this node's certificates; None = not known."""


@dataclass(frozen=True)
class Built:
    """A service that can be used."""

    service: Service
    used: Mapping[str, Entry]
    """The entries that it was made of."""
    remarks: tuple[Problem, ...] = ()
    """Problems that do not keep it from being used."""


@dataclass(frozen=True)
class ServiceKeys:
    """The keys of one service, as they are and as they last were good."""

    name: str
    own: Mapping[str, Entry]
    good: Mapping[str, Entry]

    @property
    def key(self) -> str:
        return f"services/{self.name}"

    @property
    def origin(self) -> str:
        """The place of the service document, for its problems."""
        return (self.own[self.key].origin if self.key in self.own else "") or self.key

    def backend_keys(self) -> list[str]:
        """The keys of its backends, the oldest first."""
        return sorted((key for key in self.own if key != self.key), key=lambda key: (self.own[key].created, key))

    def candidates(self, key: str) -> list[Entry]:
        """The values of a backend's key that may be used: the stored one before its last good one."""
        return [self.own[key], *([self.good[key]] if key in self.good else [])]


def build(keys: ServiceKeys, rules: Rules, problems: list[Problem]) -> Built:
    """The service of some keys. The problems of bad backend keys are added to ``problems``.

    Raises nothing but ``MalformedDocument``.
    """
    return contained(keys.origin, lambda: _Build(keys, rules, problems).run())


class _Build:
    """The building of one service."""

    def __init__(self, keys: ServiceKeys, rules: Rules, problems: list[Problem]) -> None:
        self._keys, self._rules, self._problems = keys, rules, problems
        self._merged = _service_document(keys, rules.defaults)
        self._pool = Pool(dict(self._merged.get("backends", {})), _discovered(self._merged, rules.instances))
        self._endpoints = Endpoints(self._merged, self._pool.written)
        self._read: dict[object, ReadCheck] = {}

    @cached_property
    def _own(self) -> ServiceDocument | None:
        """The service by itself, which its backends' keys are tried with."""
        return parse_own(self._merged)

    def run(self) -> Built:
        """The service with its backends."""
        used = {self._keys.key: self._keys.own[self._keys.key]}
        for key in self._keys.backend_keys():
            if (entry := self._add_backend(key, self._keys.candidates(key))) is not None:
                used[key] = entry
        left_out: list[Problem] = []
        while not isinstance(built := self._parse(self._keys.origin, self._pool.documents()), Service):
            if not (more := self._pool.leave_out(built)):
                raise MalformedDocument(*built)
            left_out += more
        strangers = unreachable(self._keys.origin, built)
        if strangers and len(self._keys.own) == 1 and built.backends_from is None:
            raise MalformedDocument(*strangers)  # nobody else had a hand in it
        return Built(built, used, (*left_out, *strangers))

    def _parse(self, origin: str, backends: Mapping[str, Any]) -> Service | tuple[Problem, ...]:
        document = {**self._merged, "backends": backends}
        return parse_service(origin, self._keys.name, document, self._rules.limits, self._rules.check_types)

    def _add_backend(self, key: str, candidates: Iterable[Entry]) -> Entry | None:
        """Add the first usable of a backend key's values, and return it.

        A value that cannot be used changes no other backend. The keys come by age, so a key is judged only against the
        service document and the keys that are older than it.
        """
        for place, candidate in enumerate(candidates):
            try:
                contained(candidate.origin or key, self._take_backend, key, candidate)
            except MalformedDocument as exc:
                self._problems += exc.problems if place == 0 else ()
                continue
            return candidate
        return None

    def _take_backend(self, key: str, entry: Entry) -> None:
        """Raises ``MalformedDocument``, and has changed nothing then."""
        name, origin = key.rsplit("/", 1)[1], entry.origin or key
        inline = self._pool.written.get(name)
        backend = decode.merge(inline if isinstance(inline, dict) else {}, decode.backend_document(key, name, entry))
        if (whole := self._pool.trial(name, backend)) is not None:
            types = self._rules.check_types
            if bad := backend_problems(origin, name, whole, self._own, types, self._read):
                raise MalformedDocument(*bad)
        if other := self._endpoints.take(name, backend):
            raise MalformedDocument(Problem(origin, "address", clash(other)))
        self._pool.written[name] = backend


def _service_document(keys: ServiceKeys, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The service document over the defaults. Raises ``MalformedDocument`` if its backends cannot be read at all."""
    if keys.key not in keys.own:
        raise MalformedDocument(Problem(keys.key, "", "missing; expected a service document above its backends"))
    origin = keys.origin
    own = decode.document(keys.key, keys.own[keys.key])
    merged = decode.merge(defaults_under(own, defaults), own)
    if not own and is_pool(merged):
        raise MalformedDocument(
            Problem(origin, "vip", "missing; expected a service with a vip, or the fields of a pool")
        )
    backends = merged.get("backends", {})
    if not isinstance(backends, dict):
        raise MalformedDocument(
            Problem(origin, "backends", f"expected an object of backends by name, not {shown(backends)}")
        )
    if strange := [Problem(origin, "backends", NAMES.format(shown(one))) for one in backends if not named(one)]:
        raise MalformedDocument(*strange)
    if (probes := len(backends) * parts_of(merged.get("check"))) > MAX_CHECKS:
        text = f"expected at most {MAX_CHECKS} checks in one document, not {probes}; give backends keys of their own"
        raise MalformedDocument(Problem(origin, "check", text))
    vips = merged.get("vip")
    if isinstance(vips, list) and (destinations := len(vips) * len(backends)) > MAX_DESTINATIONS:
        text = f"expected at most {MAX_DESTINATIONS} destinations (VIPs times backends), not {destinations}"
        raise MalformedDocument(Problem(origin, "vip", text))
    return merged


def _discovered(merged: Mapping[str, Any], instances: Instances) -> dict[str, dict[str, Any]] | None:
    """The documents of the instances that the service asks for, by name; None if it asks for none."""
    wanted = discover(merged.get("backends_from"))
    if wanted is None:
        return None
    documents: dict[str, dict[str, Any]] = {}
    for instance in instances.get(wanted, ()):
        documents.setdefault(instance.name, instance_document(instance))
    return documents
