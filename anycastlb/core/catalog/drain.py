"""Parse the value of a key ``drain/<node>``. The key alone drains the node, whatever its value is.

Pure. A value that cannot be read is a problem of the catalog, and never keeps a node from being drained.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, ValidationError

from anycastlb.core.catalog import decode
from anycastlb.core.fields import Document, Duration, problems
from anycastlb.core.model import Drain, Entry, Problem

MAX_DEADLINE = 86400.0
"""Seconds."""
MAX_TEXT = 500
"""Characters of a reason that is a plain text."""


class DrainDocument(Document):
    reason: str = ""
    by: str = ""
    since: str = ""
    deadline: Annotated[Duration, Field(le=MAX_DEADLINE)] | None = None
    force: bool = False


def parse_drain(key: str, entry: Entry) -> tuple[Drain, tuple[Problem, ...]]:
    """The drain in a value, and the problems of the value. A plain text is the reason of the drain."""
    text, origin = entry.value.decode(errors="replace").strip(), entry.origin or key
    if not text.removeprefix("\ufeff").startswith("{"):
        return Drain(reason=text[:MAX_TEXT]), tuple(_misnamed(key, origin))
    try:
        document = decode.document(key, entry)
    except decode.MalformedDocument as exc:
        return Drain(), exc.problems
    try:
        form = DrainDocument.model_validate(document)
    except ValidationError as exc:
        reason, by, since = (str(document.get(name, ""))[:MAX_TEXT] for name in ("reason", "by", "since"))
        return Drain(reason, by, since), decode.MalformedDocument(*problems(exc, origin)).problems
    return Drain(form.reason, form.by, form.since, form.deadline, form.force), tuple(_misnamed(key, origin))


def _misnamed(key: str, origin: str) -> Iterator[Problem]:
    """A node may have dots in its name, but hardly the ending of a document's file."""
    name, dot, ending = key.rpartition(".")
    if dot and ending in ("json", "yaml", "yml", "toml"):
        node = key.partition("/")[2]
        yield Problem(origin, "", f"expected a node's name alone, such as {name}: this drains a node called {node}")
