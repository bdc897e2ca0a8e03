"""Whole catalogs and drained nodes as edits: export, import, drain.

Pure. An export is the documents by key, as stored, each service's backend keys oldest first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from anycastlb.core.catalog import decode
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import merge_patch
from anycastlb.core.catalog.edit.stored import defaults, grouped
from anycastlb.core.catalog.edit.targets import delete, write
from anycastlb.core.catalog.keys import NAME, why_unknown
from anycastlb.core.model import Edit, Entry, Problem, Tree

KEYS = "defaults, services/<service>, services/<service>/backends/<backend>, gateways/<gateway> or routes/<route>"
OURS = ("services/", "gateways/", "routes/")


def export_documents(tree: Tree) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Every document by its key, and the problems of those that cannot be read; no drains and no node statuses."""
    documents: dict[str, Any] = {}
    problems: list[Problem] = []
    if "defaults" in tree.entries:
        seen = defaults(tree)
        problems += seen.problems
        documents |= {} if seen.problems else {"defaults": seen.document}
    for service in grouped(tree).values():
        problems += service.problems
        documents |= {} if service.own is None else {service.key: service.own}
        for name, entry in service.keyed.items():
            key = service.backend_key(name)
            try:
                documents[key] = merge_patch.plain(decode.backend_document(key, name, entry))
            except MalformedDocument as exc:
                problems += exc.problems
    for key in sorted(key for key in tree.entries if key.startswith(("gateways/", "routes/")) and _holds(key)):
        try:
            documents[key] = merge_patch.plain(decode.document(key, tree.entries[key]))
        except MalformedDocument as exc:
            problems += exc.problems
    return documents, tuple(problems)


def imported(tree: Tree, wanted: Mapping[str, Any], replace: bool) -> tuple[Edit, ...]:
    """The edits after which every named document is as given; None deletes it.

    ``replace``: documents that are not named are deleted. Raises ``MalformedDocument`` for keys that hold no document.
    """
    if strange := [key for key in wanted if not _holds(key)]:
        raise MalformedDocument(*(Problem(key[:200], "", why_unknown(key, KEYS)) for key in strange))
    edits: list[Edit] = []
    for key, wish in wanted.items():
        entry = tree.entries.get(key)
        if wish is None:
            edits += [delete(tree, key)] if entry else []
        elif entry is None or not merge_patch.same(document(key, entry), document(key, _as_entry(wish))):
            edits.append(write(tree, key, merge_patch.bare(wish)))
    if replace:
        ours = (key for key in tree.entries if key == "defaults" or key.startswith(OURS))
        edits += [delete(tree, key) for key in sorted(ours) if key not in wanted and not key.endswith("/")]
    return tuple(edits)


LOCK = "locks/drain"
"""A key that every drain writes and that expects its last version: of two drains at once only one succeeds."""


def drain(tree: Tree, node: str, wanted: Mapping[str, Any], ticket: str) -> tuple[Edit, ...]:
    """The edits that drain a node. ``wanted``: reason, deadline and the like; ``ticket`` is unique.

    For a node that is drained already, the reason, the deadline and the force can be changed."""
    key, before, document = f"drain/{node}", drained(tree, node), merge_patch.bare(wanted)
    if before is None:
        return write(tree, key, document), write(tree, LOCK, {"node": node, "ticket": ticket})
    news = {name: value for name, value in document.items() if name not in ("by", "since")}
    if all(before.get(name) == value for name, value in news.items()):
        return ()
    return (write(tree, key, {**before, **news, "by": document.get("by", "")}),)


def undrain(tree: Tree, node: str) -> tuple[Edit, ...]:
    key = f"drain/{node}"
    return (delete(tree, key),) if key in tree.entries else ()


def drained(tree: Tree, node: str) -> dict[str, Any] | None:
    """The document of a drained node, empty if it cannot be read; None if the node is not drained."""
    entry = tree.entries.get(f"drain/{node}")
    if entry is None:
        return None
    try:
        return dict(merge_patch.plain(decode.document(f"drain/{node}", entry)))
    except MalformedDocument:
        return {}


def _holds(key: str) -> bool:
    parts = key.split("/")
    shape = re.fullmatch(r"defaults|(gateways|routes)/[^/]+|services/[^/]+(/backends/[^/]+)?", key)
    return shape is not None and all(NAME.fullmatch(part) for part in parts)


def _as_entry(document: Any) -> Entry:
    return Entry(merge_patch.value(merge_patch.bare(document)))


def document(key: str, entry: Entry) -> Any:
    """The document stored under a key, or its text if it cannot be read."""
    try:
        if key.count("/") == 3:
            return merge_patch.plain(decode.backend_document(key, key.rsplit("/", 1)[1], entry))
        return merge_patch.plain(decode.document(key, entry))
    except MalformedDocument:
        return entry.value.decode(errors="replace")
