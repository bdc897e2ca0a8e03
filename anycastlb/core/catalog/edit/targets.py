"""The documents that can be written to (a service, a backend of it, the defaults), and the edits that a write needs.

Pure. Only the existence of the object is checked here; ``validate`` says what the edits would mean. A write keeps every
backend where it is stored and in its order, since that order is the kernel's table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import merge_patch
from anycastlb.core.catalog.edit.stored import KnownDocument, Stored, defaults, stored
from anycastlb.core.model import AnycastlbError, Edit, Entry, Tree


class TargetMissing(AnycastlbError):
    """The object does not exist; ``fix`` says what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


class Target(ABC):
    """A place where one document is stored."""

    @abstractmethod
    def seen(self, tree: Tree) -> KnownDocument | None:
        """The document that is stored; None if there is none."""

    @abstractmethod
    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        """Replace the document. Raises ``TargetMissing`` if the service it belongs to does not exist."""

    @abstractmethod
    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        """Delete the document. Raises ``TargetMissing``."""

    def patch(self, tree: Tree, patch: Any) -> tuple[Edit, ...]:
        """Merge a patch over the document (RFC 7396). Raises ``TargetMissing``, and ``MalformedDocument`` if the stored
        document cannot be read."""
        seen = self.seen(tree)
        if seen is None:
            raise self.missing()
        if seen.problems:
            raise MalformedDocument(*seen.problems)
        return self.put(tree, merge_patch.merge_patch(seen.document, patch))

    @abstractmethod
    def missing(self) -> TargetMissing: ...


@dataclass(frozen=True, slots=True)
class DefaultsTarget(Target):
    def __str__(self) -> str:
        return "defaults"

    def seen(self, tree: Tree) -> KnownDocument:
        """The defaults; empty if none are stored."""
        return defaults(tree)

    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        seen = defaults(tree)
        wanted = merge_patch.bare(document)
        if not seen.problems and merge_patch.same(seen.document, wanted) and ("defaults" in tree.entries or not wanted):
            return ()
        return (write(tree, "defaults", wanted),)

    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        return (delete(tree, "defaults"),) if "defaults" in tree.entries else ()

    def missing(self) -> TargetMissing:
        return TargetMissing("there are no defaults", "PUT them")


@dataclass(frozen=True, slots=True)
class ServiceTarget(Target):
    name: str

    def __str__(self) -> str:
        return f"services/{self.name}"

    def seen(self, tree: Tree) -> KnownDocument | None:
        record = stored(tree, self.name)
        return record.seen() if record and record.entry else None

    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        """Without ``backends`` in the document the backends stay as they are; with it they become exactly those."""
        record = stored(tree, self.name) or Stored(self.name)
        wanted = merge_patch.bare(document)
        if not isinstance(wanted, dict):
            return (write(tree, record.key, wanted),)
        backends = wanted.get("backends")
        if backends is None:
            inline = (record.own or {}).get("backends")
            return _own(tree, record, wanted if inline is None else {**wanted, "backends": inline})
        if not isinstance(backends, dict):
            return _own(tree, record, wanted)
        gone = dict.fromkeys(name for name in record.backends() if name not in backends)
        return _backend_edits(tree, record, wanted, {**gone, **backends})

    def patch(self, tree: Tree, patch: Any) -> tuple[Edit, ...]:
        """As RFC 7396 says; each backend is changed where it is stored."""
        record = stored(tree, self.name)
        if record is None or record.entry is None:
            raise self.missing()
        if record.own is None:
            raise MalformedDocument(*record.problems)
        if not isinstance(patch, dict):
            return self.put(tree, patch)
        above = {name: value for name, value in patch.items() if name != "backends"}
        own = merge_patch.merge_patch(record.own, above)
        if "backends" not in patch:
            return _own(tree, record, own)
        backends = patch["backends"]
        if backends is None:
            own.pop("backends", None)
            return _backend_edits(tree, record, own, dict.fromkeys(record.backends()))
        if not isinstance(backends, dict):
            return _own(tree, record, {**own, "backends": backends})
        return _backend_edits(
            tree, record, own if "backends" in own else {**own, "backends": {}}, _patched(record, backends)
        )

    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        record = stored(tree, self.name)
        if record is None:
            raise self.missing()
        keys = [record.backend_key(name) for name in record.keyed]
        return tuple(delete(tree, key) for key in [*([record.key] if record.entry else []), *keys])

    def missing(self) -> TargetMissing:
        return TargetMissing(
            f"there is no service {self.name!r}", "GET /v1/services shows every one; PUT makes a new one"
        )


@dataclass(frozen=True, slots=True)
class BackendTarget(Target):
    service: str
    name: str
    discovered: bool = False
    """Is there a discovered instance of that name? A written document is then merged over it."""

    def __str__(self) -> str:
        return f"services/{self.service}/backends/{self.name}"

    def seen(self, tree: Tree) -> KnownDocument | None:
        record = stored(tree, self.service)
        return record.backends().get(self.name) if record else None

    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        record = stored(tree, self.service)
        if record is None or record.entry is None:
            raise ServiceTarget(self.service).missing()
        own = record.own if record.own is not None else {}
        return _backend_edits(tree, record, own, {self.name: merge_patch.bare(document)}, keyed=True)

    def patch(self, tree: Tree, patch: Any) -> tuple[Edit, ...]:
        if not self.discovered or self.seen(tree) is not None:
            return Target.patch(self, tree, patch)  # slots make a new class, which super() does not know
        wanted = merge_patch.merge_patch({}, patch)
        return self.put(tree, wanted) if wanted else ()

    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        record = stored(tree, self.service)
        if record is None or self.name not in record.backends():
            raise self.missing()
        if record.own is None:  # the service document cannot be read
            return (delete(tree, str(self)),)
        return _backend_edits(tree, record, record.own, {self.name: None})

    def missing(self) -> TargetMissing:
        what = f"the service {self.service!r} has no backend {self.name!r} in the catalog"
        mend = f"GET /v1/services/{self.service} shows every one; PUT makes a new one"
        if self.discovered:
            what = f"{self.name!r} of the service {self.service!r} was discovered, it is not written in the catalog"
            mend = "PUT or PATCH writes a document over it; to be rid of it, take it out where it is registered"
        return TargetMissing(what, mend)


def _patched(record: Stored, patches: Mapping[str, Any]) -> dict[str, Any]:
    """The named backends after a patch; None for those to be deleted. Raises ``MalformedDocument`` if one cannot be
    read."""
    current = record.backends()
    wanted: dict[str, Any] = {}
    for name, patch in patches.items():
        seen = current.get(name)
        if patch is None:
            wanted[name] = None
        elif seen is not None and seen.problems and isinstance(patch, dict):
            raise MalformedDocument(*seen.problems)
        else:
            wanted[name] = merge_patch.merge_patch(seen.document if seen else {}, patch)
    return wanted


def _backend_edits(
    tree: Tree, record: Stored, own: dict[str, Any], wanted: Mapping[str, Any], keyed: bool = False
) -> tuple[Edit, ...]:
    """The edits that write each wanted backend (None: delete it) where it is stored, and the rest of the document.

    A new backend goes into the document as long as no other has a key of its own: backends inside the document come
    before those with a key, so it would move their flows. ``keyed``: a new one gets its own key in any case.
    """
    current, inline, edits = record.backends(), record.inline, []
    stay = [name for name in record.keyed if wanted.get(name, record) is not None]
    for name, document in wanted.items():
        seen, key = current.get(name), record.backend_key(name)
        if document is None:
            inline.pop(name, None)
            edits += [delete(tree, key)] if name in record.keyed else []
        elif name in record.keyed:
            if seen is not None and not seen.problems and merge_patch.same(seen.document, _read(key, name, document)):
                continue
            below = inline.get(name)
            if below and not (isinstance(document, dict) and merge_patch.same(decode.merge(below, document), document)):
                inline[name] = {}  # nothing of it may be merged under the key
            edits.append(write(tree, key, document))
        elif name in inline or not (keyed or stay):
            inline[name] = _read(key, name, document)
        else:
            edits.append(write(tree, key, document))
    if record.own is None and keyed:
        return tuple(edits)  # the document cannot be read: it stays as it is
    none_left = not stay and all(document is None for document in wanted.values())
    if inline or ("backends" in own and (none_left or "backends" in (record.own or {}))):
        whole = {**own, "backends": inline}
    else:
        whole = {name: value for name, value in own.items() if name != "backends"}
    return (*_own(tree, record, whole), *edits)


def _own(tree: Tree, record: Stored, document: Any) -> tuple[Edit, ...]:
    """The edit of the service's own document, if it changes."""
    if record.own is not None and merge_patch.same(record.own, document):
        return ()
    return (write(tree, record.key, document),)


def _read(key: str, name: str, document: Any) -> Any:
    """A backend's document as its key would be read: its name may be its address."""
    if not isinstance(document, dict):
        return document
    try:
        return decode.backend_document(key, name, Entry(merge_patch.value(document)))
    except MalformedDocument:
        return document  # ``validate`` reports it


def write(tree: Tree, key: str, document: Any) -> Edit:
    return Edit(key, merge_patch.value(document), _version(tree, key))


def delete(tree: Tree, key: str) -> Edit:
    return Edit(key, None, _version(tree, key))


def _version(tree: Tree, key: str) -> str:
    return tree.entries[key].version if key in tree.entries else ""
