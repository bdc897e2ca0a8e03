"""``[checks]``: what checks may use of this node."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from anycastlb.core.fields import Document, one_or_many, shown
from anycastlb.core.model import MARKS
from anycastlb.settings.marks import MarkRange


def _programs(value: Any) -> Any:
    """Patterns of absolute paths; a ``*`` stands for part of one name, never for a ``/``."""
    patterns = one_or_many(value)
    for pattern in patterns:
        parts = pattern.split("/") if isinstance(pattern, str) else []
        if len(parts) < 2 or parts[0] or not all(parts[1:]) or {".", ".."} & set(parts):
            raise ValueError(
                "absolute paths of programs, in which * stands for any part of a name, "
                f'such as "/usr/local/lib/anycastlb/checks/*", not {shown(pattern)}'
            )
    return tuple(patterns)


class ChecksSettings(Document):
    commands: Annotated[tuple[str, ...], BeforeValidator(_programs)] = ()
    """The programs that ``command`` checks may run on this node; none unless given."""
    marks: MarkRange = MARKS
    """Firewall marks for the probes of ``"via": "forward"``, as (low, high), one a backend; every IPVS service with
    such a mark is ours."""
