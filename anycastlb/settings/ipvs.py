"""``[ipvs]``: what the daemon sets up in the kernel: sysctls, time-outs and connection sync."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from anycastlb.core.fields import Document, Whole, duration, shown
from anycastlb.core.model import Address, SyncDaemon

TIMEOUTS = ("tcp_timeout", "tcpfin_timeout", "udp_timeout")
CACHED: Mapping[str, int] = {"tcp_timeout": 300, "tcpfin_timeout": 60}
"""Seconds for a time-out that is not set, while every flow would find its backend again without its entry. In all other
cases the kernel's values (900 and 120) stay. An entry takes 288 bytes, and a stray packet makes one too."""
SYNC_THRESHOLD, SYNC_REFRESH = "net/ipv4/vs/sync_threshold", "net/ipv4/vs/sync_refresh_period"


def _seconds(value: Any) -> int | None:
    if value == "auto":
        return None
    try:
        return _whole_seconds(value)
    except ValueError as exc:
        raise ValueError(f'"auto" or {exc}') from None


def _threshold(value: Any) -> str:
    match = re.fullmatch(r"\s*(\d{1,6})\s+(\d{1,6})\s*", value) if isinstance(value, str) else None
    if match:
        first, every = int(match[1]), int(match[2])
        if first < every or not every:
            return f"{first} {every}"
    raise ValueError(
        'two numbers such as "2 50": a connection is sent at its second packet, then at every fiftieth (0: at no '
        f"other), the first below the second; not {shown(value)}"
    )


def _group(value: Any) -> Address:
    try:
        address = ip_address(value.strip())
    except (AttributeError, ValueError):
        address = None
    if address is None or not address.is_multicast:
        raise ValueError(f'a multicast address such as "224.0.0.81", not {shown(value)}')
    return address


def _whole_seconds(value: Any) -> int:
    seconds = duration(value)
    if seconds != int(seconds) or not 1 <= seconds <= 86400:
        raise ValueError(f'a duration in whole seconds from "1s" to "1d", not {shown(value)}')
    return int(seconds)


Seconds = Annotated[int | None, BeforeValidator(_seconds)]


class IpvsSettings(Document):
    manage_sysctls: bool = True
    """Set the sysctls, time-outs and connection sync that let a node take over flows. If false, they are only
    checked."""
    tcp_timeout: Seconds = None
    """Seconds after which the entry of an idle TCP connection is forgotten; None (``"auto"``): see ``CACHED``."""
    tcpfin_timeout: Seconds = None
    """The same after a FIN."""
    udp_timeout: Seconds = None
    """The same for UDP; None: the kernel's value stays."""
    sync_interface: str | None = None
    """The interface on which connections are synchronised with the other nodes; None: no connection sync."""
    sync_id: Annotated[Whole, Field(ge=1, le=255)] = 1
    """Nodes with the same id share their connections. It is never 0, which would listen to every other cluster."""
    sync_threshold: Annotated[str | None, BeforeValidator(_threshold)] = None
    """The packet at which a connection is sent, and after how many packets it is sent again. None: "2 50", or "2 0"
    with sync_refresh."""
    sync_refresh: Annotated[int | None, BeforeValidator(_whole_seconds)] = None
    """Seconds after which a connection that carries packets is sent again; None: only their number counts."""
    sync_group: Annotated[Any, BeforeValidator(_group)] = IPv4Address("224.0.0.81")
    sync_port: Annotated[Whole, Field(ge=1, le=65535)] = 8848
    sync_ttl: Annotated[Whole, Field(ge=1, le=255)] = 1

    @field_validator("sync_interface")
    @classmethod
    def _interface(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s/]{1,15}", value):
            raise ValueError(f'the name of an interface such as "eth1", not {shown(value)}')
        return value

    @model_validator(mode="after")
    def _every_packet_or_every_second(self) -> IpvsSettings:
        if self.sync_refresh is not None and (self.sync_threshold or "2 0").split()[1] != "0":
            raise ValueError(
                f'with sync_refresh a sync_threshold whose second number is 0, such as "2 0", not '
                f'"{self.sync_threshold}": else a connection is sent again only when both are due; remove one of them'
            )
        return self

    @property
    def config(self) -> dict[str, int | SyncDaemon]:
        """The rows of the table ``config`` that this node must have."""
        rows: dict[str, int | SyncDaemon] = {
            name: seconds for name in TIMEOUTS if (seconds := getattr(self, name)) is not None
        }
        if self.sync_interface is not None:
            daemon = SyncDaemon(self.sync_interface, self.sync_id, self.sync_group, self.sync_port, self.sync_ttl)
            rows |= {"sync_master": daemon, "sync_backup": daemon}
        return rows

    @property
    def cached_config(self) -> dict[str, int]:
        """Further rows while connection entries are only a cache. Connection sync needs entries to last."""
        return (
            {}
            if self.sync_interface
            else {name: seconds for name, seconds in CACHED.items() if getattr(self, name) is None}
        )

    @property
    def sysctls(self) -> dict[str, str]:
        """The sysctls that this node must have besides those of every node."""
        if self.sync_interface is None:
            return {}
        threshold = self.sync_threshold or ("2 50" if self.sync_refresh is None else "2 0")
        return {SYNC_THRESHOLD: threshold, SYNC_REFRESH: str(self.sync_refresh or 0)}
