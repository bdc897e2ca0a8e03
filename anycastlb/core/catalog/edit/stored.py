"""The documents of a tree as they are stored: without the defaults, and with the backends that have a key of their own.

Pure. A document that cannot be read is given with its problems; it can still be replaced or deleted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import merge_patch
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.model import Entry, Problem, Tree


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """One document as it is stored."""

    document: Any = None
    """None if it cannot be read."""
    problems: tuple[Problem, ...] = ()
    """Why it cannot be read."""
    source: str = ""
    """The text that the tag is made from if it cannot be read."""

    @property
    def tag(self) -> str:
        return merge_patch.tag(self.source if self.problems else self.document)


@dataclass(frozen=True, slots=True)
class Stored:
    """One service as it is stored: its own document, and backends with a key of their own."""

    name: str
    entry: Entry | None = None
    """Its own document; None if only backends of it are stored."""
    keyed: Mapping[str, Entry] = field(default_factory=dict)
    """By backend, oldest first."""
    own: dict[str, Any] | None = None
    """The decoded document; None if it is missing or cannot be read."""
    problems: tuple[Problem, ...] = ()

    @property
    def key(self) -> str:
        return f"services/{self.name}"

    def backend_key(self, backend: str) -> str:
        return f"{self.key}/backends/{backend}"

    @property
    def inline(self) -> dict[str, Any]:
        """The backends inside the document."""
        backends = (self.own or {}).get("backends", {})
        return dict(backends) if isinstance(backends, dict) else {}

    def backends(self) -> dict[str, KnownDocument]:
        """Every backend that is stored, in canonical order: those inside the document, then keys by age."""
        inline = self.inline
        documents = {name: KnownDocument(document) for name, document in inline.items()}
        return documents | {name: self._keyed(name, inline.get(name)) for name in self.keyed}

    def _keyed(self, name: str, below: Any) -> KnownDocument:
        try:
            document = decode.backend_document(self.backend_key(name), name, self.keyed[name])
        except MalformedDocument as exc:
            return KnownDocument(None, exc.problems, self.keyed[name].value.decode(errors="replace"))
        return KnownDocument(merge_patch.plain(decode.merge(below if isinstance(below, dict) else {}, document)))

    def seen(self) -> KnownDocument:
        """The document with all readable backends."""
        if self.own is None:
            text = self.entry.value.decode(errors="replace") if self.entry else ""
            return KnownDocument(None, self.problems, text)
        backends = {name: seen.document for name, seen in self.backends().items() if not seen.problems}
        whole = isinstance(self.own.get("backends", {}), dict)
        if whole and (backends or "backends" in self.own):
            return KnownDocument({**self.own, "backends": backends})
        return KnownDocument(self.own)


def stored(tree: Tree, name: str) -> Stored | None:
    """The service of that name; None if nothing of it is stored."""
    key = f"services/{name}"
    prefix = f"{key}/backends/"
    keyed = {k.removeprefix(prefix): entry for k, entry in tree.entries.items() if k.startswith(prefix)}
    return _stored(name, tree.entries.get(key), keyed)


def grouped(tree: Tree) -> dict[str, Stored]:
    """Every service, by name, in their order."""
    keyed: dict[str, dict[str, Entry]] = defaultdict(dict)
    own: dict[str, Entry] = {}
    for key, entry in tree.entries.items():
        match key.split("/"):
            case ["services", name]:
                own[name] = entry
            case ["services", name, "backends", backend]:
                keyed[name][backend] = entry
    names = sorted({*own, *keyed})
    services = {name: _stored(name, own.get(name), keyed.get(name, {})) for name in names}
    return {name: service for name, service in services.items() if service is not None}


def defaults(tree: Tree) -> KnownDocument:
    """The defaults, which are merged under every service; empty if none are stored."""
    entry = tree.entries.get("defaults")
    if entry is None:
        return KnownDocument({})
    try:
        return KnownDocument(merge_patch.plain(decode.document("defaults", entry)))
    except MalformedDocument as exc:
        return KnownDocument(None, exc.problems, entry.value.decode(errors="replace"))


def _stored(name: str, entry: Entry | None, keyed: Mapping[str, Entry]) -> Stored | None:
    named = {backend: keyed_entry for backend, keyed_entry in keyed.items() if NAME.fullmatch(backend)}
    if not NAME.fullmatch(name) or (entry is None and not named):
        return None
    by_age = dict(sorted(named.items(), key=lambda item: (item[1].created, item[0])))
    if entry is None:
        return Stored(name, None, by_age)
    try:
        return Stored(name, entry, by_age, merge_patch.plain(decode.document(f"services/{name}", entry)))
    except MalformedDocument as exc:
        return Stored(name, entry, by_age, None, exc.problems)
