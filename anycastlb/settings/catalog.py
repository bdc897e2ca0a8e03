"""``[catalog]`` and ``[consul]``: where the services come from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from anycastlb.core.fields import CountedShare, Document, Duration, shown
from anycastlb.core.model import Share


def _never(value: Any) -> Any:
    return None if value == "never" else value


class CatalogSettings(Document):
    source: Literal["consul", "file"] = "consul"
    path: str = "/etc/anycastlb/catalog"
    max_shrink: CountedShare = Share(percent=50.0)
    """A catalog that loses more VIPs than this at once is held back."""
    confirm: Annotated[Duration | None, BeforeValidator(_never)] = 300.0
    """A held catalog that persists this long is accepted. None (``"never"``): only ``anycastlb confirm`` accepts it."""


class ConsulSettings(Document):
    address: str = "http://127.0.0.1:8500"
    prefix: str = "anycastlb/"
    token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    namespace: str | None = None
    datacenter: str | None = None
    wait: Duration = 60.0
    """The maximum time that one blocking query waits for a change."""
    register_services: bool = False
    """Register every service with the agent for as long as this node serves it."""
    deregister_after: Annotated[Duration, Field(ge=60, le=7 * 86400)] = 600.0
    """The time after which Consul removes a critical registration, such as that of a dead node."""

    @field_validator("address")
    @classmethod
    def _url(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+/?", value):
            raise ValueError(f'a URL such as "http://127.0.0.1:8500", not {shown(value)}')
        return value.rstrip("/")

    @field_validator("prefix")
    @classmethod
    def _slash(cls, value: str) -> str:
        if not value.strip("/") or value.startswith("/"):
            raise ValueError(f'a key prefix such as "anycastlb/", not {shown(value)}')
        return value.rstrip("/") + "/"
