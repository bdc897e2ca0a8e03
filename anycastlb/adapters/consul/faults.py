"""What may go wrong with a request to Consul, in words."""

from __future__ import annotations

from anycastlb.core.model import SourceError

NOTHING = "nothing was written"
UNKNOWN = "it is not known whether the change was written: read the catalog again before you repeat it"


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
