"""``[dns]``: the zone in which this node publishes the names of its services."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from anycastlb.core.fields import LABELS, Document, Duration, Whole, is_address, shown
from anycastlb.core.model import DnsPolicy


def _relative(value: Any) -> Any:
    """Parse a domain name; the result has no dot at its end."""
    text = value.strip().rstrip(".").lower() if isinstance(value, str) else ""
    if not re.fullmatch(LABELS, text, re.IGNORECASE) or len(text) > 200:
        raise ValueError(f'a domain name such as "example.net", not {shown(value)}')
    return text


def _server(value: Any) -> Any:
    if not isinstance(value, str) or not is_address(value.strip()):
        raise ValueError(f'the IP address of the primary name server, such as "192.0.2.53", not {shown(value)}')
    return value.strip()


Domain = Annotated[str, BeforeValidator(_relative)]


class DnsSettings(Document):
    server: Annotated[str, BeforeValidator(_server)] | None = None
    """The primary name server of the zone; None: no names are published."""
    port: Annotated[Whole, Field(ge=1, le=65535)] = 53
    zone: Annotated[Domain | None, Field(validate_default=True)] = None
    subdomain: Domain | None = None
    """The names are in this subdomain of the zone; None: they are in the zone itself."""
    tsig_key_file: Annotated[str | None, Field(validate_default=True)] = None
    ttl: Annotated[Duration, Field(ge=1, le=86400)] = 30.0
    all: bool = False
    """Publish every service under its own name, and not only those whose document has ``dns``."""
    owner: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")] = "anycastlb"
    """Marks our names: equal on all nodes of a cluster, different for two clusters in one zone."""
    refresh: Annotated[Duration, Field(ge=1, le=3600)] = 30.0
    """The interval at which the records on the server are compared, even if nothing seems to have changed."""

    @field_validator("zone", "tsig_key_file")
    @classmethod
    def _needed(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("server") is not None:
            what = '"example.net"' if info.field_name == "zone" else '"/etc/anycastlb/dns.key"'
            raise ValueError(f"a value such as {what}, since dns.server is set")
        return value

    @property
    def domain(self) -> str:
        """The absolute domain below which the names are."""
        return ".".join(filter(None, (self.subdomain, self.zone))) + "."

    @property
    def policy(self) -> DnsPolicy | None:
        return DnsPolicy(self.domain, self.ttl, self.all) if self.server else None
