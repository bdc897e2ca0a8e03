"""The fingerprint of a catalog: equal on two nodes exactly if the catalogs in force there are equal.

It covers the documents, their age (which decides the order of backends) and the instances that were discovered. Nodes
publish it in their status and compare it there, also between versions, so its value must not change. The metric
``catalog_fingerprint`` shows the first bits of the same fingerprint.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from anycastlb.core.model import Catalog, Discover, Entry, Instance

Documents = tuple[tuple[str, Entry], ...]
Discovered = tuple[tuple[Discover, tuple[Instance, ...]], ...]


def fingerprint(catalog: Catalog) -> str:
    """16 hexadecimal digits."""
    discovered = sorted(catalog.instances.items(), key=lambda item: repr(item[0]))
    return _hash(tuple(sorted(catalog.good.items())), tuple(discovered))


@lru_cache(4)
def _hash(documents: Documents, discovered: Discovered) -> str:
    """The catalog is hashed once for each version of it, not once for each status and each scrape."""
    digest = sha256()
    for key, entry in documents:
        digest.update(f"{key}\0{entry.created}\0{entry.format}\0{len(entry.value)}\0".encode())
        digest.update(entry.value)
    for wanted, instances in discovered:
        digest.update(f"\n{wanted!r}\0{instances!r}".encode())
    return digest.hexdigest()[:16]
