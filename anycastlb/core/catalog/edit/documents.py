"""A gateway or a route as the target of an edit: one document under one key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit.merge_patch import bare, plain, same
from anycastlb.core.catalog.edit.stored import KnownDocument
from anycastlb.core.catalog.edit.targets import Target, TargetMissing, delete, write
from anycastlb.core.catalog.keys import NAME
from anycastlb.core.model import Edit, Tree

Kind: TypeAlias = Literal["gateways", "routes"]


@dataclass(frozen=True, slots=True)
class DocumentTarget(Target):
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def seen(self, tree: Tree) -> KnownDocument | None:
        entry = tree.entries.get(str(self))
        if entry is None:
            return None
        try:
            return KnownDocument(plain(decode.document(str(self), entry)))
        except MalformedDocument as exc:
            return KnownDocument(None, exc.problems, entry.value.decode(errors="replace"))

    def put(self, tree: Tree, document: Any) -> tuple[Edit, ...]:
        seen, wanted = self.seen(tree), bare(document)
        if seen is not None and not seen.problems and same(seen.document, wanted):
            return ()
        return (write(tree, str(self), wanted),)

    def delete(self, tree: Tree) -> tuple[Edit, ...]:
        if str(self) not in tree.entries:
            raise self.missing()
        return (delete(tree, str(self)),)

    def missing(self) -> TargetMissing:
        kind = self.kind.removesuffix("s")
        return TargetMissing(
            f"there is no {kind} {self.name!r}", f"GET /v1/{self.kind} shows every one; PUT makes a new one"
        )


def read_documents(tree: Tree, kind: Kind) -> dict[str, Any]:
    """Every document of the kind that can be read, by its name, in their order."""
    names = sorted(key.removeprefix(f"{kind}/") for key in tree.entries if key.startswith(f"{kind}/"))
    seen = {name: DocumentTarget(kind, name).seen(tree) for name in names if NAME.fullmatch(name)}
    return {name: one.document for name, one in seen.items() if one is not None and not one.problems}
