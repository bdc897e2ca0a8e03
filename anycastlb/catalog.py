"""A raw key tree to a ``Catalog``: parse, merge, quarantine, and refuse a suspicious shrink.

A bad document never stops another. A service whose documents are bad keeps the last good ones (``Catalog.good``); a
bad backend key keeps its own last good value, or is left out. Pure: no clock, no file, no Consul.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import yaml

from anycastlb import services
from anycastlb.documents import shown
from anycastlb.model import Catalog, Entry, Network, Problem, Service, Share, Shrink, Tree
from anycastlb.services import CheckTypes, Limits, merged_check

NAME = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,127}")
KEYS = "services/<service>, services/<service>/backends/<backend>, defaults or drain/<node>"
MOST_BYTES = 512 * 1024
"""Consul's own bound on a value."""


class _Bad(Exception):
    """A document that cannot be used, with its problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__()
        self.problems = problems


def parse(
    tree: Tree,
    previous: Catalog,
    vip_ranges: tuple[Network, ...],
    fwmark_ranges: tuple[tuple[int, int], ...],
    check_types: CheckTypes,
) -> Catalog:
    """The catalog in a tree, falling back on ``previous`` document by document. Never raises for what is in it."""
    limits = Limits(vip_ranges=vip_ranges, fwmark_ranges=fwmark_ranges)
    keys = _sorted_keys(tree)
    reading = _Reading(previous, limits, check_types, problems=list(keys.problems))
    reading.read_defaults(tree.entries.get("defaults"))
    for name, own in keys.services.items():
        reading.read_service(name, own)
    reading.settle_claims()
    return Catalog(
        services=tuple(service for _, service in sorted(reading.services.items())),
        drained=frozenset(keys.drained),
        problems=tuple(dict.fromkeys(reading.problems)),
        index=tree.index,
        good=reading.good() | {f"drain/{node}": tree.entries[f"drain/{node}"] for node in keys.drained},
    )


def admit(
    current: Catalog,
    candidate: Catalog,
    max_shrink: Share,
    confirm: float | None,
    held: Shrink | None,
    now: float,
) -> Shrink | None:
    """None: apply the candidate. Else: hold it back, because it lost too many of the current VIPs at once.

    ``confirm``: seconds after which a shrink that persists is believed (None = never); ``held``: the shrink in force.
    """
    lost = current.vips - candidate.vips
    allowed = max_shrink.count if max_shrink.percent is None else len(current.vips) * max_shrink.percent / 100
    emptied = bool(current.vips) and not candidate.vips
    if not emptied and len(lost) <= allowed:
        return None
    since = held.since if held else now
    until = None if confirm is None else since + confirm
    if until is not None and now >= until:
        return None
    return Shrink(tuple(sorted(lost, key=lambda vip: (vip.version, vip))), len(current.vips), since, until)


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
        if key.endswith("/") or parts[0] == "nodes" or key == "defaults":
            continue  # a folder key, other nodes' status, and what is read by itself
        named = all(NAME.fullmatch(part) for part in parts[1:])
        if named and parts[0] == "drain" and len(parts) == 2:
            keys.drained.add(parts[1])
        elif named and parts[0] == "services" and (len(parts) == 2 or (len(parts) == 4 and parts[2] == "backends")):
            keys.services[parts[1]][key] = entry
        else:
            keys.problems.append(Problem(entry.origin or key, "", f"unknown key; expected {KEYS}"))
    return keys


# ---------------------------------------------------------------- one reading of a tree


@dataclass
class _Reading:
    previous: Catalog
    limits: Limits
    check_types: CheckTypes
    problems: list[Problem]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
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
                self.defaults = _document("defaults", candidate)
                self.used[""] = {"defaults": candidate}
                break
            except _Bad as exc:
                self.problems += exc.problems
        self.same_defaults = self.used.get("", {}).get("defaults") == last_good

    def good(self) -> dict[str, Entry]:
        return {key: entry for entries in self.used.values() for key, entry in entries.items()}

    def read_service(self, name: str, own: dict[str, Entry]) -> None:
        before = self._good_before.get(name, {})
        if own == before and self.same_defaults and name in self._before:
            self._keep(name, self._before[name], own)  # nothing about it changed
            return
        try:
            service, used = self._built(name, own, before)
        except _Bad as exc:
            self.problems += exc.problems
            if name in self._before:
                self._keep(name, self._before[name], before)
            return
        self._keep(name, service, used)

    def _keep(self, name: str, service: Service, used: Mapping[str, Entry]) -> None:
        self.services[name], self.used[name] = service, used

    def _built(
        self, name: str, own: Mapping[str, Entry], before: Mapping[str, Entry]
    ) -> tuple[Service, dict[str, Entry]]:
        """The service and the entries it was made of. Raises ``_Bad``."""
        key = f"services/{name}"
        if key not in own:
            raise _Bad(Problem(key, "", "missing; expected a service document above its backends"))
        document = _document(key, own[key])
        origin = own[key].origin or key
        merged = _merged(self.defaults, document)
        backends = merged.get("backends", {})
        if not isinstance(backends, dict):
            raise _Bad(Problem(origin, "backends", f"expected an object of backends by name, not {shown(backends)}"))
        used = {key: own[key]}
        merged["backends"] = dict(backends)
        by_age = sorted((k for k in own if k != key), key=lambda k: (own[k].created, k))
        for backend_key in by_age:
            self._add_backend(name, backend_key, own[backend_key], before.get(backend_key), merged, used)
        found = services.parse(origin, name, merged, self.limits, self.check_types)
        if isinstance(found, Service):
            return found, used
        raise _Bad(*found)

    def _add_backend(
        self,
        service: str,
        key: str,
        entry: Entry,
        before: Entry | None,
        merged: dict[str, Any],
        used: dict[str, Entry],
    ) -> None:
        """Merge one backend key over the document, or its last good value, or leave it out with its problem."""
        name = key.rsplit("/", 1)[1]
        inline = merged["backends"].get(name) or {}
        for candidate in (entry, before):
            if candidate is None:
                continue
            try:
                document = _backend_document(key, name, candidate)
                backend = _merged(inline if isinstance(inline, dict) else {}, document)
                trial = {**merged, "backends": {name: backend}}
                found = services.parse(candidate.origin or key, service, trial, self.limits, self.check_types)
                bad = [] if isinstance(found, Service) else _about_backend(found, name)
                if bad:
                    raise _Bad(*bad)
            except _Bad as exc:
                if candidate is entry:
                    self.problems += exc.problems
                continue
            merged["backends"][name] = backend
            used[key] = candidate
            return

    def settle_claims(self) -> None:
        """Two services must not claim one VIP, port and protocol: who holds it keeps it, else the older key."""
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
        self._keep(name, before, self._good_before[name])
        owners.update(dict.fromkeys(map(before.key, before.vips), name))


def _about_backend(problems: Iterable[Problem], name: str) -> list[Problem]:
    """Only what is wrong with the backend itself, told from its own document's point of view."""
    prefix = f"backends.{name}"
    mine = [problem for problem in problems if problem.path == prefix or problem.path.startswith(prefix + ".")]
    return [Problem(p.key, p.path[len(prefix) :].lstrip("."), p.expected) for p in mine]


# ---------------------------------------------------------------- documents


def _document(key: str, entry: Entry) -> dict[str, Any]:
    """The object in one value; ``null`` fields are left out (they mean the default). Raises ``_Bad``."""
    origin = entry.origin or key
    if entry.error:
        raise _Bad(Problem(origin, "", entry.error))
    if len(entry.value) > MOST_BYTES:
        raise _Bad(Problem(origin, "", f"expected at most {MOST_BYTES} bytes, not {len(entry.value)}"))
    try:
        document = _DECODERS[entry.format](entry.value.decode())
    except (ValueError, RecursionError, yaml.YAMLError) as exc:
        told = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise _Bad(Problem(origin, "", f"expected a {entry.format.upper()} object: {told}")) from exc
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise _Bad(Problem(origin, "", f"expected a {entry.format.upper()} object, not {shown(document)}"))
    return {name: _without_null(value) for name, value in document.items() if value is not None}


def _backend_document(key: str, name: str, entry: Entry) -> dict[str, Any]:
    """A backend key: an object, or the plain form ``weight=10 port=8080``; its name may be its address."""
    text = entry.value[:MOST_BYTES].decode(errors="replace").strip()
    plain = entry.format == "json" and (not text or re.fullmatch(r"[a-z_]+=\S+(\s+[a-z_]+=\S+)*", text))
    document: dict[str, Any] = {}
    if plain:
        document |= dict(pair.split("=", 1) for pair in text.split())
    else:
        document = _document(key, entry)
    if plain and "drain" in document:
        document["drain"] = {"true": True, "1": True, "false": False, "0": False}.get(document["drain"], "?")
    if found := re.fullmatch(r"\[?([^\]]*?)\]?(?::(\d{1,5}))?", name):
        host, port = (name, None) if _is_address(name) else (found[1], found[2])
        if _is_address(host) and "address" not in document:
            document = {"address": host, **({"port": port} if port else {}), **document}
    return document


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the field {shown(twice)} stands twice")
        return dict(pairs)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, object_pairs_hook=unique, parse_constant=constant)


_DECODERS: Mapping[str, Callable[[str], Any]] = {"json": _json, "toml": tomllib.loads, "yaml": yaml.safe_load}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(item) for name, item in value.items() if item is not None}
    return value


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` merged over ``under``, object by object; a check of another type replaces the one below."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if name == "check" and isinstance(below, dict) and isinstance(value, dict):
            merged[name] = merged_check(below, value)
        elif isinstance(below, dict) and isinstance(value, dict):
            merged[name] = _merged(below, value)
        else:
            merged[name] = value
    return merged
