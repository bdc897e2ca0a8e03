"""The keys of the catalog: which names they may have, and which key is about what. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from anycastlb.core.model import Entry, Problem, Tree

MAX_NAME = 128
"""Characters."""
NAME = re.compile(rf"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{{0,{MAX_NAME - 1}}}")
NAMES = "expected names of 1 to 128 letters, digits and . _ : [ ] - (first a letter or a digit), not {}"
KEYS = "services/<service>, services/<service>/backends/<backend>, defaults or drain/<node>"


def named(name: str) -> bool:
    """May a service, a backend or a node have that name?"""
    return NAME.fullmatch(name) is not None


@dataclass
class Keys:
    """The keys of a tree, each with what it is about."""

    services: dict[str, dict[str, Entry]] = field(default_factory=lambda: defaultdict(dict))
    """Service name -> its own keys: the service document and its backends."""
    drained: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def sorted_keys(tree: Tree) -> Keys:
    """The keys of a tree by what they are about; an unknown key is a problem."""
    keys = Keys()
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
