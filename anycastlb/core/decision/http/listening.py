"""What the gates of a gateway's VIPs go by. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from anycastlb.core.model import Condition, GatewayVerdict


@dataclass(frozen=True, slots=True)
class Listening:
    verdict: GatewayVerdict
    port: int
    """Where HAProxy listens, on each of its VIPs."""
    unsettled: float
    """As in ``ServiceVerdict``, of all of its pools, as all that follows."""
    returning: float
    condition: Condition
