"""The value of a key ``drain/<node>`` to a ``Drain``. That the key is there drains the node, whatever stands in it.

Pure. What cannot be read is a problem of the catalog, and never keeps a node from being drained.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from anycastlb.core.catalog import decode
from anycastlb.core.fields import Document, Duration, problems
from anycastlb.core.model import Drain, Entry, Problem

MAX_DEADLINE = 86400.0
"""Seconds."""
MAX_TEXT = 500
"""Characters of a text that is nothing else than the reason."""


class DrainDocument(Document):
    reason: str = ""
    by: str = ""
    since: str = ""
    deadline: Annotated[Duration, Field(le=MAX_DEADLINE)] | None = None
    force: bool = False


def parse_drain(key: str, entry: Entry) -> tuple[Drain, tuple[Problem, ...]]:
    """What is told of a drain, and what of that cannot be read. A plain text is its reason."""
    text = entry.value.decode(errors="replace").strip()
    if not text.startswith("{"):
        return Drain(reason=text[:MAX_TEXT]), ()
    origin = entry.origin or key
    try:
        document = decode.document(key, entry)
    except decode.MalformedDocument as exc:
        return Drain(), exc.problems
    try:
        form = DrainDocument.model_validate(document)
    except ValidationError as exc:
        reason, by, since = (str(document.get(name, ""))[:MAX_TEXT] for name in ("reason", "by", "since"))
        return Drain(reason, by, since), problems(exc, origin)
    return Drain(form.reason, form.by, form.since, form.deadline, form.force), ()
