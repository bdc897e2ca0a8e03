"""What happened, as values.

Code that does something worth reporting emits an ``Event``; ``adapters.system.journal`` keeps it. ``KINDS`` lists every
kind of event, and docs/EVENTS.md explains each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning", "error"]

KINDS: Mapping[str, str] = {
    "api": "api",
    "bgp": "session",
    "catalog": "catalog",
    "check": "check",
    "confirm": "catalog",
    "cluster": "cluster",
    "daemon": "node",
    "denied": "request",
    "discovery": "discovery",
    "drain": "node",
    "failure": "change",
    "gate": "vip",
    "gateway": "gateway",
    "names": "registrar",
    "kept": "vip",
    "observe": "kernel",
    "passive": "backend",
    "peer": "node",
    "pool": "pool",
    "preflight": "finding",
    "route": "route",
    "settings": "file",
    "write": "document",
    **{
        f"{table}.{verb}": noun
        for table, noun in (
            ("addresses", "vip"),
            ("config", "setting"),
            ("consul_services", "registration"),
            ("destinations", "destination"),
            ("dns_records", "record"),
            ("http_certificates", "certificate"),
            ("http_engine", "haproxy"),
            ("http_servers", "server"),
            ("http_sites", "hostname"),
            ("ingress_marks", "mark"),
            ("routes", "vip"),
            ("services", "service"),
            ("sysctls", "sysctl"),
        )
        for verb in ("create", "delete", "update")
    },
}
"""Each kind of event, and what kind of object its subject is."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one object.

    ``kind`` is a stable word for scripts (``gate``, ``check``, ``failure``, ``catalog``, ``bgp``, ...); ``subject``
    the object's name; ``before`` and ``after`` its state in words, empty where there is none; ``by`` who asked for it,
    where somebody did; ``code`` the stable word of the reason, where the reason is a decision's or a refusal's.
    """

    kind: str
    subject: str
    reason: str = ""
    before: str = ""
    after: str = ""
    level: Level = "info"
    by: str = ""
    code: str = ""

    @property
    def object(self) -> str:
        """What kind of object the subject is: ``vip``, ``check``, ``destination``, ...; of an unknown kind, that."""
        return KINDS.get(self.kind, self.kind)
