"""``[drain]``: how this node leaves the routes, when it is drained or stops."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from anycastlb.core.fields import Document, Duration, Whole

MAX_SECONDS = {"graceful": 600.0, "settle": 3600.0, "deadline": 86400.0}
"""Seconds."""


class DrainSettings(Document):
    graceful: Duration = 5.0
    """How long routes carry the community 65535:0 before they are withdrawn; 0: they are withdrawn at once."""
    med: Annotated[Whole, Field(ge=0, le=2**32 - 1)] | None = None
    """The MED they carry then; None: theirs."""
    prepend: Annotated[Whole, Field(ge=0, le=10)] = 0
    """How many times more the own AS is prepended then."""
    settle: Duration = 60.0
    """How long a drain waits for a stable table at most; 0: not at all."""
    deadline: Duration = 120.0
    """How long after the withdrawal a node waits until nothing comes any more, at most."""

    @field_validator("graceful", "settle", "deadline")
    @classmethod
    def _bounded(cls, value: float, info: ValidationInfo) -> float:
        most = MAX_SECONDS[info.field_name or ""]
        if value > most:
            raise ValueError(f'a duration from "0s" to "{most:g}s"')
        return value
