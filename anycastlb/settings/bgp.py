"""``[bgp]``: how routes reach ExaBGP, and when they run out."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from anycastlb.core.fields import Document, DurationText
from anycastlb.core.scalars import hold

Hold = Annotated[float, BeforeValidator(hold, json_schema_input_type=DurationText)]


class BgpSettings(Document):
    socket: str = "/run/anycastlb/bgp.sock"
    hold: Hold = 15.0
    """How long routes outlive a silent daemon."""
    group: str | None = None
    """The group ExaBGP runs with, which may then connect to the socket; None: only the daemon's own user and root."""
