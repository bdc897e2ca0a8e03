"""The form of a route: its rules and matches in Gateway API's words down to their spelling. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from anycastlb.core.catalog.http.filter_schema import FilterDocument
from anycastlb.core.catalog.http.texts import (
    HeaderName,
    HeaderValue,
    Hostname,
    Method,
    Name,
    ParameterName,
    Timeout,
    path_text,
    pattern_text,
)
from anycastlb.core.fields import Document, Whole, one_or_many, shown

MAX_RULES = 64
"""Of one route."""
MAX_MATCHES = 256
"""Of all rules of a route together."""
MAX_PATTERNS = 64
"""Regular expressions in the document of a route. Each takes up to a millisecond to compile."""
MAX_SEGMENTS = 8
"""Of a prefix that is replaced."""


class PathMatchDocument(Document):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Field(max_length=1024)] = "/"

    @model_validator(mode="after")
    def _of_its_type(self) -> PathMatchDocument:
        (pattern_text if self.type == "RegularExpression" else path_text)(self.value)
        return self


class HeaderMatchDocument(Document):
    name: HeaderName
    type: Literal["Exact", "RegularExpression"] = "Exact"
    value: Annotated[HeaderValue, Field(max_length=250)]

    @model_validator(mode="after")
    def _of_its_type(self) -> HeaderMatchDocument:
        if self.type == "RegularExpression":
            pattern_text(self.value)
        return self


class QueryMatchDocument(Document):
    name: ParameterName
    type: Literal["Exact", "RegularExpression"] = "Exact"
    value: Annotated[str, Field(max_length=1024)]

    @model_validator(mode="after")
    def _of_its_type(self) -> QueryMatchDocument:
        if self.type == "RegularExpression":
            pattern_text(self.value)
        elif not re.fullmatch(r"[!-%'-:<-~]+", self.value):
            raise ValueError(f"a value as it is sent, without a space, & or ;, not {shown(self.value)}")
        return self


class MatchDocument(Document):
    path: PathMatchDocument = PathMatchDocument()
    method: Method | None = None
    headers: Annotated[tuple[HeaderMatchDocument, ...], Field(max_length=8)] = ()
    queryParams: Annotated[tuple[QueryMatchDocument, ...], Field(max_length=8)] = ()


class BackendRefDocument(Document):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    weight: Annotated[Whole, Field(ge=0, le=65535)] = 1


RetryReasons = Literal[
    "conn-failure", "empty-response", "junk-response", "response-timeout", "0rtt-rejected",
    "401", "403", "404", "408", "425", "500", "501", "502", "503", "504",
]  # fmt: skip
"""HAProxy's words for ``retry-on``."""


class RetryDocument(Document):
    attempts: Annotated[Whole, Field(ge=0, le=10)] = 2
    on: Annotated[
        tuple[
            Annotated[
                RetryReasons,
                BeforeValidator(
                    lambda one: str(one) if type(one) is int else one, json_schema_input_type=RetryReasons | int
                ),
            ],
            ...,
        ],
        Field(min_length=1),
    ] = ("conn-failure", "empty-response", "response-timeout", "500", "504")


class TimeoutsDocument(Document):
    request: Timeout | None = None


class CookieDocument(Document):
    cookie: ParameterName


class RuleDocument(Document):
    name: Name | None = None
    matches: Annotated[tuple[MatchDocument, ...], Field(min_length=1, max_length=16)] = (MatchDocument(),)
    filters: Annotated[tuple[FilterDocument, ...], Field(max_length=4)] = ()
    backendRefs: Annotated[tuple[BackendRefDocument, ...], Field(max_length=16)] = ()
    retry: RetryDocument = RetryDocument()
    timeouts: TimeoutsDocument = TimeoutsDocument()
    sticky: Literal["source"] | CookieDocument | None = None


class RouteDocument(Document):
    gateways: Annotated[
        tuple[str, ...],
        BeforeValidator(one_or_many, json_schema_input_type=list[str] | str),
        Field(min_length=1, max_length=16),
    ]
    hostnames: (
        Annotated[
            tuple[Hostname, ...],
            BeforeValidator(one_or_many, json_schema_input_type=list[Hostname] | Hostname),
            Field(min_length=1, max_length=1000),
        ]
        | None
    ) = None
    rules: Annotated[tuple[RuleDocument, ...], Field(min_length=1, max_length=MAX_RULES)] | None = None
    graph: dict[str, Any] | None = None
    critical: bool = False
