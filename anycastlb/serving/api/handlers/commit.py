"""One write from beginning to end: read the tree, make the edits, judge them, commit them, tell of them.

The catalog's store is the only thing it touches. Everything that may take long runs in a worker thread.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiohttp import web

from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import Rules, TargetMissing, ValidatedEdits, applied, validate
from anycastlb.core.events import Event
from anycastlb.core.model import Conflict, Edit, Problem, SourceError, Tree
from anycastlb.serving.api.http.context import Context, caller, context
from anycastlb.serving.api.http.errors import ApiError

MAX_PROBLEMS = 100
"""In one answer: a bad field in the defaults is told of every service."""
MAX_EVENTS = 50
"""About one write; what is more is counted."""
MAX_TEXT = 2000
"""Characters of a document in an event."""
Make = Callable[[Tree], Sequence[Edit]]


async def load(at: Context) -> Tree:
    """The tree as it is. Raises ``Fault``."""
    try:
        return await at.store.load()
    except SourceError as exc:
        raise ApiError(503, f"the catalog's store did not answer: {exc}", at.source, "an answer", NOTHING) from exc


NOTHING = "nothing was written; try again when the store answers (/readyz shows how it is)"


async def write(request: web.Request, make: Make, tree: Tree | None = None) -> tuple[Sequence[Edit], Tree]:
    """The edits that ``make`` makes of the tree, and the tree after them; nothing is written if there is none, or if
    they would cause problems. Raises ``Fault``."""
    at = context(request)
    before = tree if tree is not None else await load(at)
    edits, judged = await asyncio.to_thread(weigh, at, before, make)
    if judged.problems:
        raise refusal(judged.problems)
    if edits:
        await commit(at, edits)
        await tell(request, before, edits)
    return edits, await asyncio.to_thread(applied, before, edits)


def weigh(at: Context, tree: Tree, make: Make) -> tuple[Sequence[Edit], ValidatedEdits]:
    """The edits, and what they would mean. Raises ``Fault``."""
    try:
        edits = make(tree)
    except TargetMissing as exc:
        raise missing(exc) from exc
    except MalformedDocument as exc:
        raise refusal(exc.problems) from exc
    catalog = at.snapshot().inputs.catalog
    return edits, validate(tree, edits, rules(at), catalog) if edits else ValidatedEdits(catalog, ())


async def commit(at: Context, edits: Sequence[Edit]) -> None:
    """Raises ``Fault``."""
    try:
        await at.store.commit(edits)
    except SourceError as exc:
        raise lost(exc, edits[0].key) from exc


def lost(exc: SourceError, key: str) -> ApiError:
    """What became of a write that failed."""
    if isinstance(exc, Conflict):
        mend = "read it again and decide anew; nothing was written"
        return ApiError(409, f"lost a race: {exc}", key, "what was read is still what is stored", mend)
    what, expected = f"the catalog's store did not take the write: {exc}", "an answer"
    mend = "read it again before you repeat it: if only the answer was lost, it was written"
    return ApiError(503, what, key, expected, mend)


async def tell(request: web.Request, before: Tree, edits: Sequence[Edit]) -> None:
    """One event for each key: who, what, before, after."""
    journal = context(request).journal
    who, reason = caller(request).name, f"{request.method} {request.path[:200]}"
    for event in await asyncio.to_thread(lambda: list(_events(before, edits[:MAX_EVENTS], reason, who))):
        journal.emit(event)
    if len(edits) > MAX_EVENTS:
        more = f"{reason}: and {len(edits) - MAX_EVENTS} more keys"
        journal.emit(Event("write", "catalog", more, after=f"{len(edits)} keys", by=who))


def _events(before: Tree, edits: Iterable[Edit], reason: str, who: str) -> Iterable[Event]:
    for edit in edits:
        entry = before.entries.get(edit.key)
        was = _short(entry.value) if entry else ""
        now = _short(edit.value) if edit.value is not None else ""
        yield Event("write", edit.key, reason, was, now, by=who)


def _short(value: bytes) -> str:
    """A document on one line, cut at a sane length."""
    try:
        text = json.dumps(json.loads(value), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        text = " ".join(value.decode(errors="replace").split())
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def rules(at: Context) -> Rules:
    node = at.settings.node
    return Rules(node.vip_ranges, node.fwmark_ranges, at.check_types)


MEND = "mend what is named and send it again; nothing was written (docs/CATALOG.md has every field)"


def refusal(problems: Sequence[Problem], mend: str = MEND) -> ApiError:
    """422, with all problems."""
    first = problems[0]
    where = f"{first.key}: {first.path}" if first.path else first.key
    what = "the document has a problem" if len(problems) == 1 else f"the document has {len(problems)} problems"
    return ApiError(422, what, where, first.expected, mend, problems=shown(problems))


def missing(exc: TargetMissing) -> ApiError:
    return ApiError(404, str(exc), "path", "an object of the catalog", exc.mend)


def shown(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    found = list(problems)
    told = [{"key": problem.key, "path": problem.path, "expected": problem.expected} for problem in found]
    if len(told) > MAX_PROBLEMS:
        more = {"key": "", "path": "", "expected": f"and {len(told) - MAX_PROBLEMS} more problems"}
        return [*told[:MAX_PROBLEMS], more]
    return told
