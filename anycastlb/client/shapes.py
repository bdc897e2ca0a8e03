"""The types of what is sent and of what comes back. They are not enforced here: the node checks what it gets.

The large answers (``status``, ``vips``, ``nodes``, ...) are plain JSON: ``View``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypedDict

View: TypeAlias = dict[str, Any]
"""A JSON object as the API answers it."""
Mode: TypeAlias = Literal["merge", "replace"]
"""``replace`` deletes the documents that are not named."""


class Document(dict[str, Any]):
    """A document of the catalog with the ``etag`` of what was read, so that a write does not overwrite a newer one."""

    def __init__(self, fields: Mapping[str, Any], etag: str = "") -> None:
        super().__init__(fields)
        self.etag = etag


class CheckDocument(TypedDict, total=False):
    """The fields of every check. Each type has parameters of its own too (``anycastlb checks``)."""

    type: str
    interval: str
    timeout: str
    rise: int
    fall: int
    fast_interval: str
    down_interval: str
    via: Literal["direct", "forward"]
    address: str
    port: int


class BackendDocument(TypedDict, total=False):
    address: str
    port: int
    weight: int
    override: int | None
    drain: bool
    forward: Literal["tunnel", "dr", "nat", "gue", "gre"]
    tunnel_port: int
    check: Mapping[str, Any]
    max_connections: int
    min_connections: int
    fallback: bool
    max_fails: int
    """Of a pool, as ``fail_timeout``."""
    fail_timeout: str


class ServiceDocument(TypedDict, total=False):
    """Without ``vip`` it is a pool, to which routes send requests."""

    vip: str | list[str]
    port: int
    protocol: Literal["tcp", "udp", "sctp"]
    fwmark: int
    scheduler: str
    scheduler_flags: list[str]
    forward: Literal["tunnel", "dr", "nat", "gue", "gre"]
    tunnel_port: int
    persistence: Mapping[str, Any]
    one_packet: bool
    check: Mapping[str, Any]
    backends: Mapping[str, BackendDocument]
    backends_from: Mapping[str, Any]
    announce: Mapping[str, Any]
    max_failed: int | str
    slow_start: str
    drain: str
    balance: str
    """Of a pool, as ``max_fails`` and ``fail_timeout``."""
    max_fails: int
    fail_timeout: str


class GatewayDocument(TypedDict, total=False):
    vip: str | list[str]
    port: int
    protocol: Literal["http", "https"]
    tls: Mapping[str, Any]
    spread: Literal["mh", "none"]
    limits: Mapping[str, Any]
    forwarded_for: Literal["replace", "append"]
    announce: Mapping[str, Any]
    drain: str


class RouteDocument(TypedDict, total=False):
    """``rules`` in the words of Gateway API, or ``graph``: ELB's document of a domain as it stands."""

    gateways: str | list[str]
    hostnames: str | list[str]
    rules: list[Mapping[str, Any]]
    graph: Mapping[str, Any]
    critical: bool


class Written(TypedDict):
    """The answer to a write."""

    changed: bool
    document: Document


class Result(TypedDict, total=False):
    """The result for one of many objects."""

    status: int
    changed: bool
    error: dict[str, str]
    problems: list[dict[str, str]]


class Change(TypedDict):
    """One change of the machine. They are listed in the order in which they are made."""

    verb: Literal["create", "update", "delete", "move"]
    table: str
    object: str
    before: Any
    after: Any
    why: str
    refused: str


class Edit(TypedDict):
    """One document that would be written or deleted."""

    key: str
    verb: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Proposal(TypedDict):
    """What a proposed catalog would change, in the store and on the node that was asked."""

    edits: list[Edit]
    changes: list[Change]
    problems: list[dict[str, str]]


class Event(TypedDict):
    id: int
    at: str
    kind: str
    level: Literal["info", "warning", "error"]
    subject: str
    before: str
    after: str
    reason: str
