"""The one shape of every error the API answers: what is wrong, where, what was expected, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from anycastlb.core.model import AnycastlbError, Problem

MAX_PROBLEMS = 100
"""Problems in one answer: a bad field in the defaults is a problem of every service."""
FIX = "mend what is named and send it again; nothing was written (docs/CATALOG.md has every field)"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ApiError(AnycastlbError):
    """A request that cannot be answered: an HTTP status, and the four things to say about it."""

    def __init__(
        self,
        status: int,
        what: str,
        where: str = "",
        expected: str = "",
        fix: str = "",
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(what)
        self.status, self.headers = status, headers
        self._view = {"what": what, "where": where, "expected": expected, "mend": fix}

    def view(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": dict(self._view)}


class InvalidDocument(ApiError):
    """Documents that cannot be used: 422, with all their problems."""

    def __init__(self, problems: Sequence[Problem], fix: str = FIX) -> None:
        first = problems[0]
        where = f"{first.key}: {first.path}" if first.path else first.key
        what = "the document has a problem" if len(problems) == 1 else f"the document has {len(problems)} problems"
        super().__init__(422, what, where, first.expected, fix)
        self.problems = tuple(problems)

    def view(self) -> dict[str, Any]:
        return {**super().view(), "problems": problem_views(self.problems)}


def problem_views(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """Problems as the API answers them; the number of those left out is a last one."""
    known = list(problems)
    views = [{"key": problem.key, "path": problem.path, "expected": problem.expected} for problem in known]
    if len(views) > MAX_PROBLEMS:
        more = {"key": "", "path": "", "expected": f"and {len(views) - MAX_PROBLEMS} more problems"}
        return [*views[:MAX_PROBLEMS], more]
    return views
