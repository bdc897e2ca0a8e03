"""The form of a pool: that of a service and its backends, without what only IPVS and BGP know. Pure."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from anycastlb.core.catalog.http.texts import ParameterName
from anycastlb.core.catalog.schema import BackendDocument, ServiceDocument
from anycastlb.core.fields import Document, Duration, Ip, Whole

IPVS_FIELDS = (
    "protocol", "fwmark", "scheduler", "scheduler_flags", "forward", "tunnel_port", "one_packet", "announce", "dns",
    "consul",
)  # fmt: skip
"""Fields of a service that say nothing about a pool."""
IPVS_BACKEND_FIELDS = ("forward", "tunnel_port", "min_connections")


class PoolPersistenceDocument(Document):
    cookie: ParameterName


def _no_ipvs(document: Any, fields: tuple[str, ...]) -> Any:
    """Raises ValueError for a field that says nothing about a pool."""
    if isinstance(document, dict) and (strange := [field for field in fields if field in document]):
        what = "a service without vip, which is a pool for routes"
        raise ValueError(f"no {' and no '.join(strange)} in {what}; or give it a vip")
    return document


class PoolBackendDocument(BackendDocument):
    max_fails: Annotated[Whole, Field(ge=0, le=1000)] | None = None
    fail_timeout: Annotated[Duration, Field(ge=1, le=3600)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_a_pool(cls, document: Any) -> Any:
        return _no_ipvs(document, IPVS_BACKEND_FIELDS)


class PoolDocument(ServiceDocument):
    vip: tuple[Ip, ...] = ()
    persistence: PoolPersistenceDocument | None = None  # type: ignore[assignment]
    backends: dict[str, PoolBackendDocument] = Field(default_factory=dict)  # type: ignore[assignment]
    balance: Annotated[str, Field(pattern=r"^(roundrobin|leastconn|random|source|uri|hdr\([A-Za-z0-9-]{1,64}\))$")] = (
        "roundrobin"
    )
    max_fails: Annotated[Whole, Field(ge=0, le=1000)] = 0
    fail_timeout: Annotated[Duration, Field(ge=1, le=3600)] = 10.0

    @model_validator(mode="before")
    @classmethod
    def _of_a_pool(cls, document: Any) -> Any:
        return _no_ipvs(document, IPVS_FIELDS)
