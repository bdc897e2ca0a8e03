"""One write from beginning to end: read the tree, make the edits, validate them, commit them, report them as events.

One value, ``ValidatedEdits``, goes through all of it, and the answer is made from it too. It is committed together with
the tree by which conditions and validation judged it: if another write came first, all of it is done anew with what is
stored then. The catalog's store is the only thing this module touches. Everything that may take long runs in a worker
thread.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp import web

from anycastlb.adapters.sources.staging import MAX_DOCUMENT
from anycastlb.core.catalog.bounds import read_json
from anycastlb.core.catalog.decode import MalformedDocument
from anycastlb.core.catalog.edit import Rules, TargetMissing, ValidatedEdits, validate
from anycastlb.core.events import Event
from anycastlb.core.model import Conflict, Edit, SourceError, Tree
from anycastlb.serving.api.http.context import Context, caller, context
from anycastlb.serving.api.http.errors import ApiError, InvalidDocument

MAX_EVENTS = 50
"""Events about one write; the keys beyond them are only counted."""
MAX_TEXT = 2000
"""Characters of a document in an event."""
TURNS = 20
"""How often a write is judged anew because another one came first."""
PAUSE = 0.05
"""Seconds that it waits before, at most, for each time that this happened."""
Make = Callable[[Tree], Sequence[Edit]]
Judge = Callable[[Tree], Awaitable[ValidatedEdits]]


async def load(at: Context) -> Tree:
    """The tree as it is stored now. Raises ``ApiError``."""
    try:
        return await at.store.load()
    except SourceError as exc:
        raise ApiError(503, f"the catalog's store did not answer: {exc}", at.source, "an answer", NOTHING) from exc


NOTHING = "nothing was written; try again when the store answers (/readyz shows how it is)"


async def write(request: web.Request, make: Make, tree: Tree | None = None) -> ValidatedEdits:
    """Commit the edits that ``make`` makes of the tree, by default of the one that is stored now.

    Nothing is written if there are no edits, or if they would cause problems. Raises ``ApiError``.
    """
    at = context(request)

    async def judge(tree: Tree) -> ValidatedEdits:
        return await asyncio.to_thread(validated_edits, at, tree, make)

    return await judged(request, judge, tree)


async def judged(request: web.Request, judge: Judge, tree: Tree | None = None) -> ValidatedEdits:
    """Commit what ``judge`` makes of the tree, by default of the one that is stored now. Raises ``ApiError``.

    It is called again while other writes come first, unless they changed what the request would have changed.
    """
    at = context(request)
    async with at.writing:
        validated = await judge(tree if tree is not None else await load(at))
        turn = 0
        while True:
            try:
                await commit(request, validated)
                return validated
            except LostRace:
                turn += 1
                await asyncio.sleep(random.uniform(0, turn * PAUSE))
                now = await load(at)
                if turn == TURNS or _overtaken(validated.edits, now):
                    raise
                validated = await judge(now)


def _overtaken(edits: Iterable[Edit], tree: Tree) -> bool:
    """Has somebody else written what these edits would have written?"""
    versions = {key: entry.version for key, entry in tree.entries.items()}
    return any(edit.expects != versions.get(edit.key, "") for edit in edits)


def validated_edits(at: Context, tree: Tree, make: Make) -> ValidatedEdits:
    """The edits that ``make`` makes of the tree, and what they would mean. Raises ``ApiError``."""
    try:
        edits = make(tree)
    except TargetMissing as exc:
        raise missing(exc) from exc
    except MalformedDocument as exc:
        raise InvalidDocument(exc.problems) from exc
    return validate(tree, edits, rules(at), at.snapshot().inputs.catalog)


async def commit(request: web.Request, validated: ValidatedEdits) -> None:
    """Write the edits and report them. Raises ``ApiError``."""
    if validated.problems:
        raise InvalidDocument(validated.problems)
    if not validated.edits:
        return
    for edit in validated.edits:
        if edit.value is not None and len(edit.value) > MAX_DOCUMENT:
            mend = "give the service's backends keys of their own; nothing was written"
            expected = f"at most {MAX_DOCUMENT} bytes, not {len(edit.value)}"
            raise ApiError(413, "the document is too large for the store", edit.key, expected, mend)
    try:
        await context(request).store.commit(validated.edits, validated.before)
    except SourceError as exc:
        raise lost(exc, validated.edits[0].key) from exc
    await report(request, validated.before, validated.edits)


class LostRace(ApiError):
    """Somebody else wrote between what a write was made from and its commit. Nothing was written."""

    def __init__(self, exc: Conflict, key: str) -> None:
        mend = "read it again and decide anew; nothing was written"
        super().__init__(409, f"lost a race: {exc}", key, "what was read is still what is stored", mend)


def lost(exc: SourceError, key: str) -> ApiError:
    """The answer to a write that failed: whether anything was written."""
    if isinstance(exc, Conflict):
        return LostRace(exc, key)
    what, expected = f"the catalog's store did not take the write: {exc}", "an answer"
    mend = "read it again before you repeat it: if only the answer was lost, it was written"
    return ApiError(503, what, key, expected, mend)


async def report(request: web.Request, before: Tree, edits: Sequence[Edit]) -> None:
    """Emit one event for each key that was written: by whom, and its value before and after."""
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
        text = json.dumps(read_json(value.decode()), separators=(",", ":"), ensure_ascii=False)
    except ValueError:
        text = " ".join(value.decode(errors="replace").split())
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text)} characters)"


def rules(at: Context) -> Rules:
    node, inputs = at.settings.node, at.snapshot().inputs
    certificates = frozenset(inputs.certificates) if inputs.policy.http else None
    return Rules(node.vip_ranges, node.fwmark_ranges, at.check_types, certificates)


def missing(exc: TargetMissing) -> ApiError:
    return ApiError(404, str(exc), "path", "an object of the catalog", exc.fix)
