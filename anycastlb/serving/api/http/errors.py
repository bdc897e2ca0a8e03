"""The one shape of every error the API answers: what is wrong, where, what was expected, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from anycastlb.core.model import AnycastlbError

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ApiError(AnycastlbError):
    """A request that cannot be answered: an HTTP status and the four things to say about it."""

    def __init__(
        self,
        status: int,
        what: str,
        where: str = "",
        expected: str = "",
        mend: str = "",
        headers: Mapping[str, str] = _NO_HEADERS,
        problems: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(what)
        self.status = status
        self.headers = headers
        self.problems = list(problems)
        self._told = {"what": what, "where": where, "expected": expected, "mend": mend}

    def view(self) -> dict[str, Any]:
        problems = {"problems": self.problems} if self.problems else {}
        return {"error": dict(self._told), **problems}
