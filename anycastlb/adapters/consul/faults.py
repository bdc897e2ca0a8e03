"""What may go wrong with a request to Consul, in words."""

from __future__ import annotations

from anycastlb.core.model import SourceError

NOTHING = "nothing was written"
UNKNOWN = "it is not known whether the change was written: read the catalog again before you repeat it"

DENIED = "permission denied"
"""In what a transaction says, in small letters, of an operation that the ACLs refuse. The status is 409 then, as it is
when a condition does not hold, and the error has no code."""
LEADERLESS = "No cluster leader"
"""In an answer with the status 500, as of any fault of Consul's own, while its servers have no leader."""


class Forbidden(SourceError):
    """Consul's ACLs refuse this to our token."""


class Unconfirmed(SourceError):
    """A write was sent, and its answer is missing or cannot be understood. ``what``: why, without that conclusion."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}; {UNKNOWN}")
        self.what = what


def shortened(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[:limit] + "…"
