"""``[drain]``: how this node leaves the routes when it is drained or stops."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from anycastlb.core.fields import Document, Duration, Whole

MAX_SECONDS = {"graceful": 600.0, "settle": 3600.0, "deadline": 86400.0}


class DrainSettings(Document):
    graceful: Duration = 5.0
    """The time for which routes carry the community 65535:0 before they are withdrawn; 0: none."""
    med: Annotated[Whole, Field(ge=0, le=2**32 - 1)] | None = None
    """The MED of the routes during that time; None: it does not change."""
    prepend: Annotated[Whole, Field(ge=0, le=10)] = 0
    """How many more times the own AS is prepended during that time."""
    settle: Duration = 60.0
    """The maximum time that a drain waits for a stable table; 0: it does not wait."""
    deadline: Duration = 120.0
    """The maximum time that a node waits for traffic to stop after the withdrawal."""

    @field_validator("graceful", "settle", "deadline")
    @classmethod
    def _bounded(cls, value: float, info: ValidationInfo) -> float:
        limit = MAX_SECONDS[info.field_name or ""]
        if value > limit:
            raise ValueError(f'a duration from "0s" to "{limit:g}s"')
        return value
