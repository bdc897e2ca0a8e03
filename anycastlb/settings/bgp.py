"""``[bgp]``: how routes reach ExaBGP, and how long they outlive the daemon."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from anycastlb.core.fields import Document, DurationText
from anycastlb.core.scalars import hold

Hold = Annotated[float, BeforeValidator(hold, json_schema_input_type=DurationText)]


class BgpSettings(Document):
    socket: str = "/run/anycastlb/bgp.sock"
    hold: Hold = 15.0
    """The time after which the bridge withdraws the routes of a silent daemon."""
    group: str | None = None
    """The group of ExaBGP, which may then connect to the socket. None: only root and the daemon's own user may."""
