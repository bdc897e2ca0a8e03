"""The form of a gateway: every field of its document, with its default. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from anycastlb.core.catalog.http.texts import Name, Timeout
from anycastlb.core.catalog.schema import Drain, HostRouteDocument
from anycastlb.core.fields import Document, Ip, Whole, one_or_many

TlsVersion = Literal["1.2", "1.3"]


class TlsDocument(Document):
    certificates: Annotated[
        tuple[Name, ...],
        BeforeValidator(one_or_many, json_schema_input_type=list[Name] | Name),
        Field(min_length=1, max_length=1000),
    ]
    min_version: Annotated[
        TlsVersion,
        BeforeValidator(lambda one: str(one) if type(one) is float else one, json_schema_input_type=TlsVersion | float),
    ] = "1.2"
    """YAML and ``--set`` read what has no quotes as a number."""
    alpn: tuple[Literal["h2", "http/1.1"], ...] = ("h2", "http/1.1")
    strict_sni: bool = False


class LimitsDocument(Document):
    maxconn: Annotated[Whole, Field(ge=1, le=10_000_000)] = 20_000
    request_timeout: Timeout = 10.0
    idle_timeout: Timeout = 60.0
    header_bytes: Annotated[Whole, Field(ge=1024, le=65_536)] = 16_384


class GatewayAnnounceDocument(HostRouteDocument):
    when: Literal["any", "all", "critical"] = "any"


class GatewayDocument(Document):
    vip: Annotated[
        tuple[Ip, ...], BeforeValidator(one_or_many, json_schema_input_type=list[Ip] | Ip), Field(min_length=1)
    ]
    port: Annotated[Whole, Field(ge=1, le=65535)]
    protocol: Literal["http", "https"]
    tls: TlsDocument | None = None
    spread: Literal["mh", "none"] = "mh"
    limits: LimitsDocument = LimitsDocument()
    forwarded_for: Literal["replace", "append"] = "replace"
    announce: GatewayAnnounceDocument = GatewayAnnounceDocument()
    drain: Drain = 30.0
