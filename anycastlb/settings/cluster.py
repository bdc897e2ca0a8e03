"""``[cluster]``: what the nodes do not do all at once. The same on every node."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from anycastlb.core.fields import Count, CountedShare, Document, share, shown


def _budget(value: Any) -> Any:
    """``0`` and ``"off"`` are no budget."""
    if value is None or value == "off":
        return None
    try:
        found = share(value)
    except ValueError:
        raise ValueError(f'a number, a percentage up to "100%", or "off", not {shown(value)}') from None
    return found if found.count or found.percent or found.weight is not None else None


class ClusterSettings(Document):
    max_withdrawals: Annotated[CountedShare | None, BeforeValidator(_budget)] = None
    """Of the cluster's VIPs, how many may be withdrawn by health within a minute; the rest wait. None: no bound."""
    max_drained: Count = 1
    """How many nodes may be drained at once; 0: any number."""
