"""``[bgp]``: how routes reach ExaBGP, and how long they outlive the daemon."""

from __future__ import annotations

from pydantic import field_validator

from anycastlb.core.fields import Document, Duration


class BgpSettings(Document):
    socket: str = "/run/anycastlb/bgp.sock"
    hold: Duration = 15.0
    """The time after which the bridge withdraws the routes of a silent daemon."""
    group: str | None = None
    """The group of ExaBGP, which may then connect to the socket. None: only root and the daemon's own user may."""

    @field_validator("hold")
    @classmethod
    def _hold(cls, value: float) -> float:
        if not 1 <= value <= 600:
            raise ValueError('a duration from "1s" to "10m"')
        return value
