"""What can go wrong when a node is asked, as one small tree. The text of each is one line that says what to do.

ClientError
├── Unreachable      nothing answers there
├── NoAnswer         it did not answer in time
├── Strange          what answers is not anycastlb
└── Refused          the node said no: status, what, where, expected, mend, problems
    ├── Denied       401, 403: no credentials, or not these rights
    ├── Missing      404: no such object
    ├── Conflict     409, 412: somebody else has changed it meanwhile, or there is nothing to do
    ├── Invalid      400, 413, 415, 422: what was sent is not right; ``problems`` has every one of a document
    └── Unavailable  429, 500 and above: not now
"""

from __future__ import annotations

from typing import Any

from anycastlb.core.model import AnycastlbError, Problem


class ClientError(AnycastlbError):
    """Root of every error of the client."""


class Unreachable(ClientError):
    """Nothing answers where the node's API should be."""


class NoAnswer(ClientError):
    """The node took the request and did not answer in time; a write may have been done."""


class Strange(ClientError):
    """Something answers, but not as anycastlb does."""


class Refused(ClientError):
    """The node answered with an error."""

    def __init__(
        self,
        status: int,
        what: str,
        where: str = "",
        expected: str = "",
        mend: str = "",
        problems: tuple[Problem, ...] = (),
    ) -> None:
        told = f"{what} (expected {expected})" if expected else what
        super().__init__(f"{told}: {mend}" if mend else told)
        self.status = status
        """The HTTP status."""
        self.what, self.where, self.expected, self.mend = what, where, expected, mend
        self.problems = problems
        """Every problem of the documents that were sent."""


class Denied(Refused):
    """No or unknown credentials, or rights that do not reach so far."""


class Missing(Refused):
    """There is no such object."""


class Conflict(Refused):
    """A lost race, an ETag that does not match any more, or nothing to be done."""


class Invalid(Refused):
    """What was sent is not what the API takes."""


class Unavailable(Refused):
    """The node or its store cannot do it now."""


def refused(status: int, body: Any) -> Refused | None:
    """The error in an answer of the API; None if it is none of its errors."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not error.get("what"):
        return None
    what, where, expected, mend = (str(error.get(name) or "") for name in ("what", "where", "expected", "mend"))
    listed = body.get("problems")
    problems = tuple(map(_problem, listed)) if isinstance(listed, list) else ()
    return _kind(status)(status, what, where, expected, mend, problems)


def _kind(status: int) -> type[Refused]:
    if status in (401, 403):
        return Denied
    if status == 404:
        return Missing
    if status in (409, 412):
        return Conflict
    return Unavailable if status == 429 or status >= 500 else Invalid


def _problem(found: Any) -> Problem:
    if not isinstance(found, dict):
        return Problem("", "", str(found))
    return Problem(str(found.get("key") or ""), str(found.get("path") or ""), str(found.get("expected") or ""))
