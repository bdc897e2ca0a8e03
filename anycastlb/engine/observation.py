"""Look at tables of the machine. A look that fails or omits a row is not news.

After a look the tables are known, and so they are after our own writes. So the kernel is looked at once in a while, and
whenever something may have changed that we have not written; a table that is not looked at is as it was last known.

The kernel lists its rows by their position, so that a row is skipped when another program deletes an earlier one
meanwhile, and nothing in the answer says so. Therefore the loss of a row is believed only when a second look, made at
once, does not show it either. A table that cannot be read keeps the rows it was last known to have, with the reason.
Nothing is decided here, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anycastlb.adapters.drivers import Driver
from anycastlb.core.delta import in_one_piece
from anycastlb.core.model import DriverError, Rows, State, Table

LISTED: tuple[Table, ...] = ("addresses", "services", "destinations")
"""The tables that the kernel lists row by row."""


@dataclass(frozen=True)
class Observation:
    """What was seen of the machine."""

    tables: Mapping[Table, Rows]
    """The tables that were read, or are known. One that nobody has seen yet is missing."""
    state: State
    """All tables as they are; those that could not be read, as they were last known."""
    errors: Mapping[Table, str]
    """Why a table could not be read."""
    blind: bool = False
    """The kernel is among them, so that nothing may be written that brings traffic here."""


async def observe(
    drivers: Sequence[Driver],
    known: State | None,
    skip: Container[Driver] = (),
    read_once: Callable[[Mapping[Table, str]], None] = lambda errors: None,
) -> Observation:
    """One look at all tables, except those of the drivers to ``skip``.

    ``known``: the machine as it was last known; None before the first look. ``read_once`` is called with the errors
    when every table was read for the first time, before the second look at those that have lost rows.
    """
    tables: dict[Table, Rows] = {}
    errors: dict[Table, str] = {}
    first: list[tuple[Driver, Mapping[Table, Rows]]] = []
    for driver in drivers:
        if known is not None and driver in skip:
            tables.update({table: known.rows(table) for table in driver.tables})
            continue
        try:
            first.append((driver, await driver.observe()))
        except DriverError as exc:
            errors.update(dict.fromkeys(driver.tables, str(exc)))
    read_once(errors)
    for driver, seen in first:
        try:
            tables.update(await _confirmed(driver, known, seen))
        except DriverError as exc:
            errors.update(dict.fromkeys(driver.tables, str(exc)))
    remembered = {table: known.rows(table) for table in errors} if known else {}
    if known is not None and all(rows is known.rows(table) for table, rows in tables.items()):
        return Observation(tables, known, errors)
    return Observation(tables, State(**remembered, **tables), errors)


def _kept(known: State | None, seen: Mapping[Table, Rows]) -> Mapping[Table, Rows]:
    """The tables that are there now: each as the same object as before, if it has the same rows in the same order."""
    if known is None:
        return seen
    return {table: before if _same(before := known.rows(table), rows) else rows for table, rows in seen.items()}


def _same(before: Rows, now: Rows) -> bool:
    return before is now or (list(before) == list(now) and list(before.values()) == list(now.values()))


async def _confirmed(driver: Driver, known: State | None, first: Mapping[Table, Rows]) -> Mapping[Table, Rows]:
    """A driver's tables, without those rows only that two looks have missed. Raises ``DriverError``.

    The first look of all is always taken twice: nobody knows yet what it may have missed.
    """
    first = _kept(known, first)
    listed = [table for table in driver.tables if table in LISTED]
    before: Mapping[Table, Rows] = first if known is None else {table: known.rows(table) for table in listed}
    if known is not None and not any(_lost(before[table], first[table]) for table in listed):
        return first
    if not listed:
        return first
    second = await driver.observe()
    return _kept(known, {**second, **{table: _united(before[table], first[table], second[table]) for table in listed}})


def _lost(before: Rows, now: Rows) -> set[Any]:
    if before is now:
        return set()
    return set(in_one_piece(before)).difference(in_one_piece(now))  # of two dicts: this hashes no key again


def _united(before: Rows, first: Rows, second: Rows) -> Rows:
    """The rows of the second look, and those that only the first look has shown. What was known keeps its order."""
    missed = _lost(first, second)
    if not missed:
        return second
    order: dict[Any, None] = dict.fromkeys((*before, *second, *first))
    return {key: second[key] if key in second else first[key] for key in order if key in second or key in missed}
