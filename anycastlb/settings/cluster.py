"""``[cluster]``: limits on what the nodes do at the same time. They must be equal on every node."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from anycastlb.core.fields import Count, CountedShare, Document, share, shown


def _budget(value: Any) -> Any:
    """Parse a share; ``0`` and ``"off"`` mean that there is no limit."""
    if value is None or value == "off":
        return None
    try:
        limit = share(value)
    except ValueError:
        raise ValueError(f'a number, a percentage up to "100%", or "off", not {shown(value)}') from None
    return limit if limit.count or limit.percent or limit.weight is not None else None


class ClusterSettings(Document):
    max_withdrawals: Annotated[CountedShare | None, BeforeValidator(_budget)] = None
    """How many of the cluster's VIPs failed checks may withdraw within a minute; the rest wait. None: no limit."""
    max_drained: Count = 1
    """How many nodes may be drained at the same time; 0: any number."""
