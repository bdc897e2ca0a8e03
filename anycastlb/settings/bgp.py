"""``[bgp]``: how routes reach ExaBGP, and when they run out."""

from __future__ import annotations

from pydantic import field_validator

from anycastlb.core.fields import Document, Duration


class BgpSettings(Document):
    socket: str = "/run/anycastlb/bgp.sock"
    hold: Duration = 15.0
    """How long routes outlive a silent daemon."""
    group: str | None = None
    """The group ExaBGP runs with, which may then connect to the socket; None: only the daemon's own user and root."""

    @field_validator("hold")
    @classmethod
    def _hold(cls, value: float) -> float:
        if not 1 <= value <= 600:
            raise ValueError('a duration from "1s" to "10m"')
        return value
