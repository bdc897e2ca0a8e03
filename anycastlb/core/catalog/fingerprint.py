"""The fingerprint of a catalog: equal on two nodes exactly if the catalogs in force there are equal.

It covers the documents, their age (which decides the order of backends) and the instances that were discovered. Nodes
publish it in their status and compare it there, also between versions, so its value must not change. The metric
``catalog_fingerprint`` shows the first bits of the same fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from anycastlb.core.model import Catalog, Discover, Entry, Instance

Documents = Mapping[str, Entry]
Discovered = Mapping[Discover, tuple[Instance, ...]]
KNOWN = 4
_known: tuple[tuple[Documents, Discovered, str], ...] = ()
"""The latest fingerprints, each with what it was made of: a catalog is hashed once, not for each status and scrape."""


def fingerprint(catalog: Catalog) -> str:
    """16 hexadecimal digits."""
    global _known  # one assignment, so that threads need no lock
    for documents, discovered, known in _known:
        if documents is catalog.good and discovered is catalog.instances:
            return known
    fresh = _hash(catalog.good, catalog.instances)
    _known = ((catalog.good, catalog.instances, fresh), *_known[: KNOWN - 1])
    return fresh


def _hash(documents: Documents, discovered: Discovered) -> str:
    digest = sha256()
    for key in sorted(documents):
        entry = documents[key]
        digest.update(f"{key}\0{entry.created}\0{entry.format}\0{len(entry.value)}\0".encode() + entry.value)
    for wanted, instances in sorted(discovered.items(), key=lambda item: repr(item[0])):
        digest.update(f"\n{wanted!r}\0{instances!r}".encode())
    return digest.hexdigest()[:16]
