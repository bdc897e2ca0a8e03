"""Turn the text of ``node.toml`` into frozen settings, or into a list of every problem, each with its line. Pure.

The caller passes the text and the host's name. Each table of the file has a module of its own.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from anycastlb.core.fields import Document, is_address, problems
from anycastlb.core.model import Address, Naming, SettingsError
from anycastlb.core.toml import line_of, load
from anycastlb.settings.api import ApiSettings
from anycastlb.settings.bgp import BgpSettings
from anycastlb.settings.catalog import CatalogSettings, ConsulSettings
from anycastlb.settings.checks import ChecksSettings
from anycastlb.settings.cluster import ClusterSettings
from anycastlb.settings.dns import DnsSettings
from anycastlb.settings.drain import DrainSettings
from anycastlb.settings.http import HttpSettings
from anycastlb.settings.ipvs import IpvsSettings
from anycastlb.settings.node import LogSettings, NodeSettings

__all__ = [
    "ApiSettings",
    "BgpSettings",
    "CatalogSettings",
    "ChecksSettings",
    "ClusterSettings",
    "ConsulSettings",
    "DnsSettings",
    "DrainSettings",
    "HttpSettings",
    "IpvsSettings",
    "LogSettings",
    "NodeSettings",
    "Settings",
    "line_of",
    "parse",
]


LOOPBACK = ("127.0.0.1", "::1")


class Settings(Document):
    node: NodeSettings
    catalog: CatalogSettings = CatalogSettings()
    consul: ConsulSettings = ConsulSettings()
    bgp: BgpSettings = BgpSettings()
    api: Annotated[ApiSettings, Field(validate_default=True)] = ApiSettings()
    ipvs: IpvsSettings = IpvsSettings()
    checks: Annotated[ChecksSettings, Field(validate_default=True)] = ChecksSettings()
    cluster: ClusterSettings = ClusterSettings()
    drain: DrainSettings = DrainSettings()
    dns: Annotated[DnsSettings, Field(validate_default=True)] = DnsSettings()
    http: HttpSettings | None = None
    """None: this node serves no gateways."""
    log: LogSettings = LogSettings()

    @field_validator("api")
    @classmethod
    def _listeners_are_safe(cls, value: ApiSettings, info: ValidationInfo) -> ApiSettings:
        node = info.data.get("node")
        ranges = node.vip_ranges if isinstance(node, NodeSettings) else ()
        if faults := value.faults(ranges):  # so each fault keeps its own path, and with it its line
            raise ValidationError.from_exception_data(
                "api",
                [
                    {"type": "value_error", "loc": at, "input": given, "ctx": {"error": ValueError(expected)}}
                    for at, given, expected in faults
                ],
            )
        return value

    @field_validator("checks")
    @classmethod
    def _marks_do_not_overlap(cls, value: ChecksSettings, info: ValidationInfo) -> ChecksSettings:
        node = info.data.get("node")
        low, high = value.marks
        for first, last in node.fwmark_ranges if isinstance(node, NodeSettings) else ():
            if first <= high and low <= last:
                raise ValueError(
                    f"marks for probes outside of node.fwmark_ranges, and {low}-{high} overlaps {first}-{last}; "
                    'set marks to a range that nothing else on this node uses, such as "65536-69631"'
                )
        return value

    @field_validator("http")
    @classmethod
    def _gateways_have_marks_of_their_own(cls, value: HttpSettings | None, info: ValidationInfo) -> HttpSettings | None:
        if value is None or value.address is None:
            return value
        node, checks = info.data.get("node"), info.data.get("checks")
        low, high = value.marks
        taken = [*node.fwmark_ranges] if isinstance(node, NodeSettings) else []
        taken += [checks.marks] if isinstance(checks, ChecksSettings) else []
        for first, last in taken:
            if first <= high and low <= last:
                raise ValueError(
                    f"marks for gateways outside of node.fwmark_ranges and checks.marks, and {low}-{high} overlaps "
                    f"{first}-{last}; set marks to a range that nothing else on this node uses, such as "
                    '"1095565312-1095566335"'
                )
        return value

    @property
    def closed(self) -> tuple[tuple[Address, int], ...]:
        """Where the node's API and its Consul listen, which no check may use. Nothing is looked up in DNS for it."""
        consul = urlsplit(self.consul.address)
        hosts = LOOPBACK if consul.hostname == "localhost" else (consul.hostname or "",)
        port = consul.port or (443 if consul.scheme == "https" else 80)
        listeners = [*self.api.listen, *((host, port) for host in hosts if is_address(host))]
        return tuple((ip_address(host), port) for host, port in listeners)

    @property
    def naming(self) -> Naming:
        """The names that this node publishes."""
        return Naming(self.dns.policy, self.consul.register_services)


def parse(text: str, name: str = "node.toml", host: str = "localhost") -> Settings:
    """Settings from the text of ``node.toml``; ``host`` is the default node name.

    Raises ``SettingsError`` with every problem, each with its line.
    """
    document = load(text, name)
    node = document.setdefault("node", {})
    if isinstance(node, dict):
        node.setdefault("name", host)
    try:
        return Settings.model_validate(document)
    except ValidationError as exc:
        raise SettingsError(problems(exc, name, lambda path: line_of(text, path))) from exc
