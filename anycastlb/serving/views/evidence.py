"""What a check has found, newest first: its last results, then failures that are older than those.

Pure. Equal results in a row are shown as one *run*: ten times ``HTTP 200`` is one thing to read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from anycastlb.core.model import CheckState, Result


@dataclass(frozen=True, slots=True)
class Run:
    """Results with the same outcome and the same words, one after the other; newest first."""

    results: tuple[Result, ...]
    earlier: bool = False
    """Failures that were kept although the successes around them were forgotten."""

    @property
    def last(self) -> Result:
        return self.results[0]

    @property
    def first(self) -> Result:
        return self.results[-1]


def results(state: CheckState | None) -> tuple[list[Result], list[Result]]:
    """The last results, and the failures before them; both newest first."""
    if state is None:
        return [], []
    last = [state.last] if state.last and state.last not in state.recent else []
    recent = [*last, *reversed(state.recent)]
    oldest = min((result.at for result in recent), default=float("inf"))
    return recent, [result for result in reversed(state.failures) if result.at < oldest]


def runs(state: CheckState | None) -> list[Run]:
    """Everything that is known, newest first."""
    if state is not None and not state.failures and _alike(state.recent, state.last):  # as nearly all are
        return [Run(state.recent[::-1])]
    recent, earlier = results(state)
    return [*_grouped(recent, False), *_grouped(earlier, True)]


def _alike(recent: tuple[Result, ...], last: Result | None) -> bool:
    """Did all results say the same, the last of which is this one?"""
    if not recent or last is not recent[-1]:
        return False
    ok, detail = last.ok, last.detail
    return all(result.ok is ok and result.detail == detail for result in recent)


def _grouped(results: Iterable[Result], earlier: bool) -> list[Run]:
    return [Run(tuple(group), earlier) for _, group in groupby(results, key=lambda result: (result.ok, result.detail))]
