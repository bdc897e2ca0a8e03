"""``[node]`` and ``[log]``: the name, the limits and the log of this node."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from anycastlb.core.fields import Document, Duration
from anycastlb.core.model import Network
from anycastlb.core.scalars import network
from anycastlb.settings.marks import MarkRange

NetworkText = Annotated[Any, BeforeValidator(network)]


class NodeSettings(Document):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")]
    """The name of the node; the host name unless given."""
    vip_ranges: tuple[NetworkText, ...]
    """Only addresses in these networks may be put on the loopback or announced."""
    fwmark_ranges: tuple[MarkRange, ...] = ()
    """The firewall marks whose IPVS services are ours, each as (low, high)."""
    state_dir: str = "/var/lib/anycastlb"
    resync: Duration = 5.0
    """The interval at which the kernel is compared, even if nothing seems to have changed."""

    @field_validator("vip_ranges")
    @classmethod
    def _some(cls, value: tuple[Network, ...]) -> tuple[Network, ...]:
        if not value:
            raise ValueError('at least one network, such as ["192.0.2.0/24"]')
        return value

    @field_validator("resync")
    @classmethod
    def _resync(cls, value: float) -> float:
        if not 0.1 <= value <= 60:
            raise ValueError('a duration from "100ms" to "1m"')
        return value


class LogSettings(Document):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["logfmt", "json"] = "logfmt"
