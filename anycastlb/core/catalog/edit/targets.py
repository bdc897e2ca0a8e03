"""One document that can be written to: a service, a backend of one, the defaults; and a wish for it as edits.

Pure. Nothing is validated here but that the object exists: what the edits would mean is for ``judge``. A write keeps
every backend where it is stored and in the order it has, since that order is the kernel's table.
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
    """There is no such object; ``mend`` says what to do."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.mend = mend


class Target(ABC):
    """Where one document is stored."""

    @abstractmethod
    def seen(self, tree: Tree) -> KnownDocument | None:
        """The document there; None if there is none."""

    @abstractmethod
    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        """Make it this document. Raises ``Missing`` if what it belongs to is not there."""

    @abstractmethod
    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        """Raises ``Missing``."""

    def patch(self, tree: Tree, patch: Any) -> tuple[Edit, ...]:
        """Merge this over it (RFC 7396). Raises ``Missing``, and ``Bad`` if what is there cannot be read."""
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
        """Empty, if nothing is stored."""
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
        found = stored(tree, self.name)
        return found.seen() if found and found.entry else None

    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        """Without ``backends`` the backends stay as they are; with it they become exactly those."""
        found = stored(tree, self.name) or Stored(self.name)
        wanted = merge_patch.bare(document)
        if not isinstance(wanted, dict):
            return (write(tree, found.key, wanted),)
        backends = wanted.get("backends")
        if backends is None:
            inline = (found.own or {}).get("backends")
            return _own(tree, found, wanted if inline is None else {**wanted, "backends": inline})
        if not isinstance(backends, dict):
            return _own(tree, found, wanted)
        gone = dict.fromkeys(name for name in found.backends() if name not in backends)
        return _shared_out(tree, found, wanted, {**gone, **backends})

    def patch(self, tree: Tree, patch: Any) -> tuple[Edit, ...]:
        """As RFC 7396 says, and each backend where it is stored."""
        found = stored(tree, self.name)
        if found is None or found.entry is None:
            raise self.missing()
        if found.own is None:
            raise MalformedDocument(*found.problems)
        if not isinstance(patch, dict):
            return self.put(tree, patch)
        above = {name: value for name, value in patch.items() if name != "backends"}
        own = merge_patch.merge_patch(found.own, above)
        if "backends" not in patch:
            return _own(tree, found, own)
        said = patch["backends"]
        if said is None:
            own.pop("backends", None)
            return _shared_out(tree, found, own, dict.fromkeys(found.backends()))
        if not isinstance(said, dict):
            return _own(tree, found, {**own, "backends": said})
        return _shared_out(tree, found, own if "backends" in own else {**own, "backends": {}}, _patched(found, said))

    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        found = stored(tree, self.name)
        if found is None:
            raise self.missing()
        keys = [found.backend_key(name) for name in found.keyed]
        return tuple(delete(tree, key) for key in [*([found.key] if found.entry else []), *keys])

    def missing(self) -> TargetMissing:
        return TargetMissing(
            f"there is no service {self.name!r}", "GET /v1/services shows every one; PUT makes a new one"
        )


@dataclass(frozen=True, slots=True)
class BackendTarget(Target):
    service: str
    name: str
    discovered: bool = False
    """Is there an instance of that name? What is written then says more about it."""

    def __str__(self) -> str:
        return f"services/{self.service}/backends/{self.name}"

    def seen(self, tree: Tree) -> KnownDocument | None:
        found = stored(tree, self.service)
        return found.backends().get(self.name) if found else None

    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        found = stored(tree, self.service)
        if found is None or found.entry is None:
            raise ServiceTarget(self.service).missing()
        own = found.own if found.own is not None else {}
        return _shared_out(tree, found, own, {self.name: merge_patch.bare(document)}, keyed=True)

    def patch(self, tree: Tree, patch: Any) -> tuple[Edit, ...]:
        if not self.discovered or self.seen(tree) is not None:
            return Target.patch(self, tree, patch)  # slots make a new class, which super() does not know
        wanted = merge_patch.merge_patch({}, patch)
        return self.put(tree, wanted) if wanted else ()

    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        found = stored(tree, self.service)
        if found is None or self.name not in found.backends():
            raise self.missing()
        if found.own is None:  # nothing that could be read stands above it
            return (delete(tree, str(self)),)
        return _shared_out(tree, found, found.own, {self.name: None})

    def missing(self) -> TargetMissing:
        what = f"the service {self.service!r} has no backend {self.name!r} in the catalog"
        mend = f"GET /v1/services/{self.service} shows every one; PUT makes a new one"
        if self.discovered:
            what = f"{self.name!r} of the service {self.service!r} was discovered, it is not written in the catalog"
            mend = "PUT or PATCH writes a document over it; to be rid of it, take it out where it is registered"
        return TargetMissing(what, mend)


def _patched(found: Stored, said: Mapping[str, Any]) -> dict[str, Any]:
    """The named backends as they would be; None for those that go. Raises ``Bad`` if one cannot be read."""
    current = found.backends()
    wanted: dict[str, Any] = {}
    for name, patch in said.items():
        seen = current.get(name)
        if patch is None:
            wanted[name] = None
        elif seen is not None and seen.problems and isinstance(patch, dict):
            raise MalformedDocument(*seen.problems)
        else:
            wanted[name] = merge_patch.merge_patch(seen.document if seen else {}, patch)
    return wanted


def _shared_out(
    tree: Tree, found: Stored, own: dict[str, Any], wanted: Mapping[str, Any], keyed: bool = False
) -> tuple[Edit, ...]:
    """Each wanted backend (None: away with it) to where it is stored, the rest of the document as ``own`` says.

    A new one goes into the document as long as no other has a key: behind those it would otherwise stand before
    them, and move their flows. ``keyed``: a new one gets its own key in any case.
    """
    current, inline, edits = found.backends(), found.inline, []
    stay = [name for name in found.keyed if wanted.get(name, found) is not None]
    for name, document in wanted.items():
        seen, key = current.get(name), found.backend_key(name)
        if document is None:
            inline.pop(name, None)
            edits += [delete(tree, key)] if name in found.keyed else []
        elif name in found.keyed:
            if seen is not None and not seen.problems and merge_patch.same(seen.document, _read(key, name, document)):
                continue
            below = inline.get(name)
            if below and not (isinstance(document, dict) and merge_patch.same(decode.merge(below, document), document)):
                inline[name] = {}  # nothing of it may show through
            edits.append(write(tree, key, document))
        elif name in inline or not (keyed or stay):
            inline[name] = _read(key, name, document)
        else:
            edits.append(write(tree, key, document))
    if found.own is None and keyed:
        return tuple(edits)  # the document cannot be read: it stays as it is
    none_left = not stay and all(document is None for document in wanted.values())
    if inline or ("backends" in own and (none_left or "backends" in (found.own or {}))):
        whole = {**own, "backends": inline}
    else:
        whole = {name: value for name, value in own.items() if name != "backends"}
    return (*_own(tree, found, whole), *edits)


def _own(tree: Tree, found: Stored, document: Any) -> tuple[Edit, ...]:
    """The service's own document, if it is to be another."""
    if found.own is not None and merge_patch.same(found.own, document):
        return ()
    return (write(tree, found.key, document),)


def _read(key: str, name: str, document: Any) -> Any:
    """A backend's document as its key would be read: its name may be its address."""
    if not isinstance(document, dict):
        return document
    try:
        return decode.backend_document(key, name, Entry(merge_patch.value(document)))
    except MalformedDocument:
        return document  # the judge tells why


def write(tree: Tree, key: str, document: Any) -> Edit:
    return Edit(key, merge_patch.value(document), _version(tree, key))


def delete(tree: Tree, key: str) -> Edit:
    return Edit(key, None, _version(tree, key))


def _version(tree: Tree, key: str) -> str:
    return tree.entries[key].version if key in tree.entries else ""
