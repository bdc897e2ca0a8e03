"""The keys of the catalog: which names they may have, and which key is about what. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from anycastlb.core.delta import delta
from anycastlb.core.fields import shown
from anycastlb.core.model import EMPTY, Entry, Problem, Tree

T = TypeVar("T")
MAX_NAME = 128
"""Characters."""
NAME = re.compile(rf"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{{0,{MAX_NAME - 1}}}")
NAMES = "expected names of 1 to 128 letters, digits and . _ : [ ] - (first a letter or a digit), not {}"
KEYS = (
    "services/<service>, services/<service>/backends/<backend>, gateways/<gateway>, routes/<route>, defaults or "
    "drain/<node>"
)


def named(name: str) -> bool:
    """May a service, a backend or a node have that name?"""
    return NAME.fullmatch(name) is not None


def why_unknown(key: str, places: str = KEYS) -> str:
    """What is wrong with a key that is in none of these places: that, or only the letters of a name in it."""
    parts = key.split("/")
    names = {(kind, 2): parts[1:2] for kind in ("services", "gateways", "routes", "drain")}
    names["services", 4] = parts[1:2] + parts[3:4]
    in_place = names.get((parts[0], len(parts)), []) if len(parts) != 4 or parts[2] == "backends" else []
    for name in in_place:
        if not named(name):
            return NAMES.format(shown(name))
    return f"unknown key; expected {places}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a tree, each with what it is about."""

    entries: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    """All entries of the tree."""
    services: Mapping[str, Mapping[str, Entry]] = field(default_factory=lambda: EMPTY)
    """Service name -> its own keys: the service document and its backends."""
    gateways: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    routes: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    drained: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    """Node name -> the entry that drains it."""
    unknown: Mapping[str, Problem] = field(default_factory=lambda: EMPTY)
    """Key -> the problem that it is none of a catalog."""


LONE: Mapping[str, Literal["gateway", "route", "drain"]] = {"gateways": "gateway", "routes": "route", "drain": "drain"}
"""The folders of documents that have one key each."""
NO_KEYS = Keys()


def sorted_keys(tree: Tree, before: Keys = NO_KEYS) -> Keys:
    """The keys of a tree by what they are about; an unknown key is a problem.

    ``before``: the keys of an older tree. The mapping of a service whose entries are the same objects in both trees is
    the same object too, so that only what has changed is looked at.
    """
    now, old = tree.entries, before.entries
    differing = delta(old, now).keys
    changed = [key for key in differing if key in now and old.get(key) is not now[key]]
    return _regrouped(now, before, changed, [key for key in differing if key not in now])


def _regrouped(now: Mapping[str, Entry], before: Keys, changed: Collection[str], gone: Collection[str]) -> Keys:
    services, unknown = dict(before.services), dict(before.unknown)
    lone = {"gateway": dict(before.gateways), "route": dict(before.routes), "drain": dict(before.drained)}
    touched: dict[str, dict[str, Entry]] = {}
    for key in (*changed, *gone):
        entry = now.get(key)
        kind, name = _subject(key)
        if kind == "service":
            group = touched.get(name)
            if group is None:
                group = touched[name] = dict(services.get(name, EMPTY))
            _set(group, key, entry)
        elif kind in lone:
            _set(lone[kind], name, entry)
        elif kind == "unknown" or (kind == "folder" and (key in unknown or entry)):
            why = "" if entry is None else why_unknown(key) if kind == "unknown" else _why_no_folder(key, entry)
            _set(unknown, key, Problem(entry.origin or key, "", why) if entry is not None and why else None)
    for name, group in touched.items():
        _set(services, name, group or None)
    return Keys(now, services, lone["gateway"], lone["route"], lone["drain"], unknown)


def _set(rows: dict[str, T], key: str, value: T | None) -> None:
    if value is None:
        rows.pop(key, None)
    else:
        rows[key] = value


def _why_no_folder(key: str, entry: Entry) -> str:
    """What is wrong with a folder: nothing, if it is empty and not in the place of a document that may be empty."""
    parts = key.rstrip("/").split("/")
    if entry.value.strip() or (parts[0] == "drain" and len(parts) == 2):
        return f"a key that ends in / is a folder, and what is in it is not read; expected {key.rstrip('/')}"
    return ""


Kind: TypeAlias = Literal["service", "gateway", "route", "drain", "folder", "unknown", "other"]


def _subject(key: str) -> tuple[Kind, str]:
    """What a key is about: a service, gateway or route, the drain of a node (each with the name), or nothing that is
    known."""
    parts = key.split("/")
    if parts[0] in ("nodes", "locks") or key == "defaults":
        return "other", ""  # nodes' statuses and locks; the defaults are read by themselves
    if not key or key.endswith("/"):
        return "folder", ""  # also the prefix
    fits = all(map(named, parts[1:]))
    if fits and len(parts) == 2 and (kind := LONE.get(parts[0])):
        return kind, parts[1]
    if fits and parts[0] == "services" and (len(parts) == 2 or (len(parts) == 4 and parts[2] == "backends")):
        return "service", parts[1]
    return "unknown", ""
