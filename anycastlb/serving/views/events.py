"""Events of the journal as JSON-ready dicts. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from anycastlb.adapters.cluster import status_document
from anycastlb.adapters.system.journal import EventRecord
from anycastlb.serving.views.vips import View


def event_views(records: Iterable[EventRecord], after: int = 0) -> View:
    """Journal entries above ``after``, oldest first; ``last`` is what to ask for next."""
    views = [
        {
            "id": record.id,
            "at": moment(record.at_wall),
            "kind": record.event.kind,
            "object": record.event.object,
            "level": record.event.level,
            "subject": record.event.subject,
            "before": record.event.before,
            "after": record.event.after,
            "reason": record.event.reason,
            "code": record.event.code,
            "by": record.event.by,
        }
        for record in records
    ]
    return {"events": [item for item in views if int(str(item["id"])) > after], "last": views[-1]["id"] if views else 0}


def moment(at_wall: float) -> str | None:
    """Wall-clock seconds as RFC 3339 in UTC with milliseconds; None for "never"."""
    if not at_wall or not math.isfinite(at_wall):
        return None
    return status_document.moment(at_wall)
