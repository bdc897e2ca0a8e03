"""A raw key tree to a ``Catalog``: parse, merge, quarantine.

A bad document never stops another. A service whose documents are bad keeps the last good ones (``Catalog.good``); a
bad backend key keeps its own last good value, or is left out. Discovered instances become backend documents under
those that operators wrote, so that all that holds for a backend holds for them. Pure: no clock, no file, no Consul.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, ParamSpec, TypeVar

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.check import CheckTypes, parts_of
from anycastlb.core.catalog.contradictions import Limits, clash, unreachable
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.discovery import Instances, discover, instance_document
from anycastlb.core.catalog.drain import parse_drain
from anycastlb.core.catalog.service import parse_service
from anycastlb.core.fields import address, shown, whole
from anycastlb.core.model import (
    EMPTY,
    Address,
    Catalog,
    Discover,
    Drain,
    Entry,
    Network,
    Problem,
    Service,
    Tree,
)

P = ParamSpec("P")
T = TypeVar("T")
MAX_NAME = 128
"""Characters."""
NAME = re.compile(rf"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{{0,{MAX_NAME - 1}}}")
NAMES = "expected names of 1 to 128 letters, digits and . _ : [ ] - (first a letter or a digit), not {}"
MAX_CHECKS = 10_000
"""Checks that one document may ask for: its backends, times the parts of a combined check."""
KEYS = "services/<service>, services/<service>/backends/<backend>, defaults or drain/<node>"
ANYWHERE: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
"""Every address may be a VIP: for validating documents where no node's settings are known."""
ANY_MARK = ((1, 2**32 - 1),)
"""Every firewall mark may be a service, for the same purpose."""


def parse_catalog(
    tree: Tree,
    previous: Catalog,
    vip_ranges: tuple[Network, ...],
    fwmark_ranges: tuple[tuple[int, int], ...],
    check_types: CheckTypes,
    instances: Instances = EMPTY,
) -> Catalog:
    """The catalog in a tree, falling back on ``previous`` document by document. Never raises for what is in it.

    A service that newly asks for a discovery stays as it was until ``instances`` has its first answer.
    """
    limits = Limits(vip_ranges=vip_ranges, fwmark_ranges=fwmark_ranges)
    keys = _sorted_keys(tree)
    reading = _Reading(previous, limits, check_types, instances, problems=list(keys.problems))
    reading.read_defaults(tree.entries.get("defaults"))
    for name, own in keys.services.items():
        reading.read_service(name, own)
    reading.settle_claims()
    leaving = {node: _drain(f"drain/{node}", tree.entries[f"drain/{node}"]) for node in sorted(keys.drained)}
    reading.problems += [problem for _, drain_problems in leaving.values() for problem in drain_problems]
    remarks = {name: some for name, some in sorted(reading.remarks.items()) if some and name in reading.services}
    return Catalog(
        services=tuple(service for _, service in sorted(reading.services.items())),
        drained=frozenset(keys.drained),
        drains={node: drain for node, (drain, _) in leaving.items()},
        problems=tuple(dict.fromkeys([*reading.problems, *(one for some in remarks.values() for one in some)])),
        index=tree.index,
        good=reading.good() | {f"drain/{node}": tree.entries[f"drain/{node}"] for node in keys.drained},
        remarks=remarks,
        discovers={wanted: tuple(sorted(names)) for wanted, names in reading.discovers.items()},
        instances={wanted: instances[wanted] for wanted in reading.discovers if wanted in instances},
    )


def troubled(catalog: Catalog, troubles: Mapping[Discover, tuple[str, ...]]) -> Catalog:
    """The catalog with the troubles of its discoveries as problems of every service that asks for them."""
    problems = list(catalog.problems)
    for wanted, names in catalog.discovers.items():
        for name in names:
            key = f"services/{name}"
            origin = (catalog.good[key].origin if key in catalog.good else "") or key
            problems += [Problem(origin, "backends_from", text) for text in troubles.get(wanted, ())]
    return (
        catalog if len(problems) == len(catalog.problems) else replace(catalog, problems=tuple(dict.fromkeys(problems)))
    )


def _drain(key: str, entry: Entry) -> tuple[Drain, tuple[Problem, ...]]:
    try:
        return contained(entry.origin or key, parse_drain, key, entry)
    except MalformedDocument as exc:
        return Drain(), exc.problems


def named(name: str) -> bool:
    """May a service, a backend or a node have that name?"""
    return NAME.fullmatch(name) is not None


def contained(origin: str, parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``parse`` returns for one document. Whatever goes wrong in there is that document's problem, and stops no
    other. Raises nothing but ``MalformedDocument``."""
    try:
        return parse(*args, **kwargs)
    except MalformedDocument:
        raise
    except Exception as exc:  # a fault of ours, or a document that nobody thought of
        text = f"expected a document that can be read; this is a fault of anycastlb, please report it: {exc!r:.200}"
        raise MalformedDocument(Problem(origin, "", text)) from exc


# ---------------------------------------------------------------- which key is what


@dataclass
class _Keys:
    services: dict[str, dict[str, Entry]] = field(default_factory=lambda: defaultdict(dict))
    """Service name -> its own keys: the service document and its backends."""
    drained: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def _sorted_keys(tree: Tree) -> _Keys:
    keys = _Keys()
    for key, entry in sorted(tree.entries.items()):
        parts = key.split("/")
        if not key or key.endswith("/") or parts[0] in ("nodes", "locks") or key == "defaults":
            continue  # a folder (of the prefix too), nodes' statuses and locks; the defaults are read by themselves
        fits = all(map(named, parts[1:]))
        if fits and parts[0] == "drain" and len(parts) == 2:
            keys.drained.add(parts[1])
        elif fits and parts[0] == "services" and (len(parts) == 2 or (len(parts) == 4 and parts[2] == "backends")):
            keys.services[parts[1]][key] = entry
        else:
            keys.problems.append(Problem(entry.origin or key, "", f"unknown key; expected {KEYS}"))
    return keys


# ---------------------------------------------------------------- one reading of a tree


@dataclass(frozen=True)
class _Built:
    """A service that can be used."""

    service: Service
    used: Mapping[str, Entry]
    """What it was made of."""
    remarks: tuple[Problem, ...] = ()
    """Problems that do not keep it from being used."""


@dataclass
class _Reading:
    previous: Catalog
    limits: Limits
    check_types: CheckTypes
    instances: Instances
    problems: list[Problem]
    discovers: dict[Discover, set[str]] = field(default_factory=lambda: defaultdict(set))
    defaults: Mapping[str, Any] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    remarks: dict[str, tuple[Problem, ...]] = field(default_factory=dict)
    used: dict[str, Mapping[str, Entry]] = field(default_factory=dict)
    """Service name (empty for the defaults) -> the entries it was made of."""
    same_defaults: bool = False

    def __post_init__(self) -> None:
        self._before = {service.name: service for service in self.previous.services}
        self._good_before: dict[str, dict[str, Entry]] = defaultdict(dict)
        for key, entry in self.previous.good.items():
            if key.startswith("services/"):
                self._good_before[key.split("/")[1]][key] = entry

    def read_defaults(self, entry: Entry | None) -> None:
        last_good = self.previous.good.get("defaults")
        for candidate in (entry, last_good if entry else None):
            if candidate is None:
                continue
            try:
                self.defaults = contained(candidate.origin or "defaults", decode.document, "defaults", candidate)
                self.used[""] = {"defaults": candidate}
                break
            except MalformedDocument as exc:
                self.problems += exc.problems
        self.same_defaults = self.used.get("", {}).get("defaults") == last_good

    def good(self) -> dict[str, Entry]:
        return {key: entry for entries in self.used.values() for key, entry in entries.items()}

    def read_service(self, name: str, own: dict[str, Entry]) -> None:
        before = self._good_before.get(name, {})
        known = self._last(name)
        if own == before and self.same_defaults and known is not None and not self._moved(known.service):
            self._keep(name, replace(known, used=own))  # nothing about it changed
            return
        built = self._best(name, own, before)
        if built is None:
            self._keep_last_good(name)
            return
        wanted = built.service.backends_from
        asked = None if known is None else known.service.backends_from
        if wanted is not None and wanted not in self.instances and known is not None and asked != wanted:
            self.discovers[wanted].add(name)
            self._keep_last_good(name)  # it would lose its backends until the new ones are known
            return
        self._keep(name, built)

    def _best(self, name: str, own: dict[str, Entry], before: dict[str, Entry]) -> _Built | None:
        """The service from its documents of now; if its own is bad or gone, from the last good one with the backends'
        keys of now, whose drains count all the same. Where it is gone, nothing else is taken away."""
        key = f"services/{name}"
        try:
            return self._built(name, own, before)
        except MalformedDocument as exc:
            self.problems += exc.problems
        if key not in before or before[key] == own.get(key):
            return None
        with suppress(MalformedDocument):
            return self._built(name, {**({} if key in own else before), **own, key: before[key]}, before)
        return None

    def _last(self, name: str) -> _Built | None:
        """The service as it is in force."""
        service = self._before.get(name)
        if service is None:
            return None
        return _Built(service, self._good_before.get(name, {}), self.previous.remarks.get(name, ()))

    def _moved(self, service: Service) -> bool:
        """Have the instances behind it changed?"""
        wanted = service.backends_from
        return wanted is not None and self.instances.get(wanted) != self.previous.instances.get(wanted)

    def _keep(self, name: str, built: _Built) -> None:
        self.services[name], self.used[name], self.remarks[name] = built.service, built.used, built.remarks
        if built.service.backends_from is not None:
            self.discovers[built.service.backends_from].add(name)

    def _keep_last_good(self, name: str) -> None:
        """Keep the service of the last good documents, with the instances that are known now."""
        last = self._last(name)
        if last is None:
            return
        if self._moved(last.service):
            before = len(self.problems)
            with suppress(MalformedDocument):
                last = self._built(name, last.used, last.used)
            del self.problems[before:]  # these documents are stored no longer
        self._keep(name, last)

    def _built(self, name: str, own: Mapping[str, Entry], before: Mapping[str, Entry]) -> _Built:
        """Raises nothing but ``MalformedDocument``."""
        key = f"services/{name}"
        return contained(own[key].origin or key if key in own else key, self._build, name, own, before)

    def _build(self, name: str, own: Mapping[str, Entry], before: Mapping[str, Entry]) -> _Built:
        key = f"services/{name}"
        if key not in own:
            raise MalformedDocument(Problem(key, "", "missing; expected a service document above its backends"))
        document = decode.document(key, own[key])
        origin = own[key].origin or key
        merged = decode.merge(self.defaults, document)
        backends = merged.get("backends", {})
        if not isinstance(backends, dict):
            raise MalformedDocument(
                Problem(origin, "backends", f"expected an object of backends by name, not {shown(backends)}")
            )
        if strange := [Problem(origin, "backends", NAMES.format(shown(one))) for one in backends if not named(one)]:
            raise MalformedDocument(*strange)
        if (probes := len(backends) * parts_of(merged.get("check"))) > MAX_CHECKS:
            text = (
                f"expected at most {MAX_CHECKS} checks in one document, not {probes}; give backends keys of their own"
            )
            raise MalformedDocument(Problem(origin, "check", text))
        used = {key: own[key]}
        pool = _Pool(dict(backends), self._discovered(merged))
        endpoints = _Endpoints(merged, pool.written)
        by_age = sorted((k for k in own if k != key), key=lambda k: (own[k].created, k))
        for backend_key in by_age:
            candidates = [own[backend_key], *([before[backend_key]] if backend_key in before else [])]
            if (entry := self._add_backend(name, backend_key, candidates, merged, pool, endpoints)) is not None:
                used[backend_key] = entry
        left_out: list[Problem] = []
        while True:
            whole = {**merged, "backends": pool.documents()}
            built = parse_service(origin, name, whole, self.limits, self.check_types)
            if isinstance(built, Service):
                strangers = unreachable(origin, built)
                if strangers and len(own) == 1 and built.backends_from is None:
                    raise MalformedDocument(*strangers)  # nobody else had a hand in it
                return _Built(built, used, (*left_out, *strangers))
            if not (more := pool.leave_out(built)):
                raise MalformedDocument(*built)
            left_out += more

    def _discovered(self, merged: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
        """The documents of the instances that the service asks for, by name; None if it asks for none."""
        wanted = discover(merged.get("backends_from"))
        if wanted is None:
            return None
        documents: dict[str, dict[str, Any]] = {}
        for instance in self.instances.get(wanted, ()):
            documents.setdefault(instance.name, instance_document(instance))
        return documents

    def _add_backend(
        self,
        service: str,
        key: str,
        candidates: Iterable[Entry],
        merged: dict[str, Any],
        pool: _Pool,
        endpoints: _Endpoints,
    ) -> Entry | None:
        """Add the first usable of a backend key's values, the stored one before its last good one, and return it.

        A value that cannot be used changes no other backend. The keys come by age, so a key is judged only against the
        service document and the keys that are older than it.
        """
        for place, candidate in enumerate(candidates):
            try:
                contained(candidate.origin or key, self._take_backend, service, key, candidate, merged, pool, endpoints)
            except MalformedDocument as exc:
                self.problems += exc.problems if place == 0 else ()
                continue
            return candidate
        return None

    def _take_backend(
        self,
        service: str,
        key: str,
        entry: Entry,
        merged: dict[str, Any],
        pool: _Pool,
        endpoints: _Endpoints,
    ) -> None:
        """Raises ``MalformedDocument``, and has changed nothing then."""
        name, origin = key.rsplit("/", 1)[1], entry.origin or key
        inline = pool.written.get(name)
        backend = decode.merge(inline if isinstance(inline, dict) else {}, decode.backend_document(key, name, entry))
        trial = {**merged, "backends": pool.trial(name, backend)}
        outcome = parse_service(origin, service, trial, self.limits, self.check_types)
        if not isinstance(outcome, Service) and (bad := _about_backend(outcome, name)):
            raise MalformedDocument(*bad)
        if other := endpoints.take(name, backend):
            raise MalformedDocument(Problem(origin, "address", clash(other)))
        pool.written[name] = backend

    def settle_claims(self) -> None:
        """Two services must not claim one VIP, port and protocol: the holder keeps it, else the older one gets it."""
        held = {service.name: set(map(service.key, service.vips)) for service in self.previous.services}
        owners: dict[Any, str] = {}

        def age(name: str) -> tuple[bool, int, str]:
            service = self.services[name]
            holds = bool(held.get(name, set()) & set(map(service.key, service.vips)))
            return not holds, self.used[name][f"services/{name}"].created, name

        for name in sorted(self.services, key=age):
            service = self.services[name]
            rival = next((owners[k] for k in map(service.key, service.vips) if k in owners), None)
            if rival is None:
                owners.update(dict.fromkeys(map(service.key, service.vips), name))
                continue
            entry = self.used[name][f"services/{name}"]
            claim = next(str(k) for k in map(service.key, service.vips) if owners.get(k) == rival)
            what = f"expected a VIP, port and protocol of its own; {claim} belongs to service {rival}"
            self.problems.append(Problem(entry.origin or f"services/{name}", "vip", what))
            self._fall_back(name, owners)

    def _fall_back(self, name: str, owners: dict[Any, str]) -> None:
        before = self._before.get(name)
        del self.services[name], self.used[name]
        if before is None or any(key in owners for key in map(before.key, before.vips)):
            return
        self._keep_last_good(name)
        owners.update(dict.fromkeys(map(before.key, before.vips), name))


def _about_backend(problems: Iterable[Problem], name: str) -> list[Problem]:
    """Only the problems of the backend itself, with their paths inside its own document."""
    prefix = f"backends.{name}"
    mine = [problem for problem in problems if problem.path == prefix or problem.path.startswith(prefix + ".")]
    return [Problem(p.key, p.path[len(prefix) :].lstrip("."), p.expected) for p in mine]


# ---------------------------------------------------------------- the backends of one service


class _Endpoints:
    """Which written backend has which address and port. The service document's own have theirs first."""

    def __init__(self, service: Mapping[str, Any], inline: Mapping[str, Any]) -> None:
        self._port = 0 if service.get("fwmark") else service.get("port", 0)
        self._owners: dict[tuple[Address, int], str] = {}
        self._held: dict[str, tuple[Address, int]] = {}
        for name, document in inline.items():
            if isinstance(document, dict):
                self.take(name, document)

    def take(self, name: str, document: Mapping[str, Any]) -> str:
        """Give the backend the endpoint of its document instead of the one it had; the name of the backend that has
        it, if another one does."""
        endpoint = self._endpoint(document)
        if endpoint is None:
            return ""
        if (owner := self._owners.get(endpoint, name)) != name:
            return owner
        if name in self._held:
            del self._owners[self._held[name]]
        self._owners[endpoint] = name
        self._held[name] = endpoint
        return ""

    def _endpoint(self, document: Mapping[str, Any]) -> tuple[Address, int] | None:
        """None: it has no address yet, or one that ``parse_service`` reports as bad."""
        try:
            return address(document.get("address")), whole(document.get("port", self._port))
        except ValueError:
            return None


@dataclass
class _Pool:
    """What operators wrote (inline, then keys by age), over the discovered instances of the same names.

    A written backend without an address changes an instance of its name; without that instance it has no effect.
    """

    written: dict[str, Any]
    discovered: dict[str, dict[str, Any]] | None
    """By name, in canonical order; None if the service discovers nothing."""

    def documents(self) -> dict[str, Any]:
        """All backend documents in canonical order: the written ones, then the instances, oldest first."""
        instances = self.discovered or {}
        written = {name: self._over(name, document) for name, document in self.written.items() if self._stands(name)}
        discovered = {name: self._over(name, self.written.get(name, {})) for name in instances if name not in written}
        return written | discovered

    def trial(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """One written backend as it would be; nothing while it has no address."""
        whole = self._over(name, document)
        return {} if self.discovered is not None and "address" not in whole else {name: whole}

    def leave_out(self, problems: Iterable[Problem]) -> list[Problem]:
        """Drop the instances that alone cause problems, and return these problems; none if the cause is elsewhere."""
        names, instances = self.documents(), self.discovered or {}
        blamed = [(problem, _blamed(problem.path, names)) for problem in problems]
        bad = {
            name
            for problem, name in blamed
            if name in instances and (name not in self.written or not (self._stands(name) or _inside(problem, name)))
        }
        for name in bad:
            del instances[name]
        return [problem for problem, name in blamed if name in bad]

    def _stands(self, name: str) -> bool:
        document = self.written[name]
        return self.discovered is None or not isinstance(document, dict) or "address" in document

    def _over(self, name: str, document: Any) -> Any:
        below = (self.discovered or {}).get(name)
        return decode.merge(below, document) if below is not None and isinstance(document, dict) else document


def _blamed(path: str, names: Container[str]) -> str:
    """The backend that a dotted path is about, if any: names may have dots of their own."""
    name = path.removeprefix("backends.") if path.startswith("backends.") else ""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def _inside(problem: Problem, name: str) -> bool:
    """Is the problem in a field of the backend, rather than about the backend as a whole?"""
    return problem.path != f"backends.{name}"
