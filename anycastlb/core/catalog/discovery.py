"""The discovery that a service document asks for, and the backend documents of the instances that were discovered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from anycastlb.core.catalog.schema import DiscoverDocument
from anycastlb.core.model import ConsulInstances, Discover, DnsInstances, Instance

Instances = Mapping[Discover, tuple[Instance, ...]]
"""The instances of each discovery, in canonical order; a discovery that has not answered yet is missing."""


def discover(document: Any) -> Discover | None:
    """What a raw ``backends_from`` asks for; None if it asks for nothing or is bad (``parse_service`` reports it)."""
    try:
        return parse_discover(DiscoverDocument.model_validate(document))
    except ValidationError:
        return None


def parse_discover(document: DiscoverDocument | None) -> Discover | None:
    """What a parsed ``backends_from`` asks for."""
    if document is None:
        return None
    if document.consul is not None:
        return ConsulInstances(**document.consul.model_dump())
    return DnsInstances(**document.dns.model_dump()) if document.dns else None


def instance_document(instance: Instance) -> dict[str, Any]:
    """The backend document of a discovered instance."""
    document: dict[str, Any] = {"address": str(instance.address)}
    document |= {"port": instance.port} if instance.port is not None else {}
    document |= {"weight": instance.weight} if instance.weight is not None else {}
    return document | ({"fallback": True} if instance.fallback else {})
