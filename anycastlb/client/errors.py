"""The errors of the client, as one small tree. The text of each is one line that says what to do.

ClientError
├── Unreachable      nothing answers at this address
├── NoAnswer         it did not answer in time
├── Strange          what answers is not anycastlb
└── Refused          the node refused it: status, what, where, expected, mend, problems
    ├── Denied       401, 403: no credentials, or not these rights
    ├── Missing      404: no such object
    ├── Conflict     409, 412: somebody else has changed it meanwhile, or there is nothing to do
    ├── Invalid      400, 413, 415, 422: the request is wrong; ``problems`` has every problem of a document
    └── Unavailable  429, 500 and above: the node cannot do it now
"""

from __future__ import annotations

from typing import Any

from anycastlb.core.model import AnycastlbError, Problem


class ClientError(AnycastlbError):
    """Root of every error of the client."""


class Unreachable(ClientError):
    """Nothing answers where the node's API should be."""


class NoAnswer(ClientError):
    """The node took the request and did not answer in time. A write may have been done."""


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
        text = f"{what} (expected {expected.removeprefix('expected ')})" if expected else what
        super().__init__(f"{text}: {mend}" if mend else text)
        self.status = status
        """The HTTP status."""
        self.what, self.where, self.expected, self.mend = what, where, expected, mend
        self.problems = problems
        """Every problem of the documents that were sent."""


class Denied(Refused):
    """There are no credentials, or unknown ones, or their rights are not enough."""


class Missing(Refused):
    """The object does not exist."""


class Conflict(Refused):
    """Somebody else was faster, the ETag does not match any more, or there is nothing to do."""


class Invalid(Refused):
    """The API does not accept what was sent."""


class Unavailable(Refused):
    """The node or its store cannot do it now."""


def refused(status: int, body: Any) -> Refused | None:
    """The error in an answer; None if it is not an error of this API."""
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


def _problem(item: Any) -> Problem:
    if not isinstance(item, dict):
        return Problem("", "", str(item))
    return Problem(str(item.get("key") or ""), str(item.get("path") or ""), str(item.get("expected") or ""))
