"""Notices about a service whose documents are good, but will surprise the one who wrote them."""

from __future__ import annotations

from anycastlb.core.model import Service
from anycastlb.core.model.catalog import most_failed


def service_notices(service: Service) -> list[tuple[str, str]]:
    """What is allowed in a service but will surprise its owner one day, with its place in the document."""
    found: list[tuple[str, str]] = []
    primaries = sum(not backend.fallback and backend.weight > 0 for backend in service.backends)
    least = service.announce.min_backends
    if service.max_failed is not None and primaries and most_failed(service.max_failed, primaries) < 1:
        text = f"a pool of {primaries} is too small for a floor of {service.max_failed}"
        found.append(("max_failed", f"{text}: no backend will ever be taken out on health"))
    if least.percent is None and least.weight is None and service.backends and least.count > primaries:
        found.append(("announce.min_backends", f"needs {least.count}, and there are {primaries}: never announced"))
    weight = sum(backend.weight for backend in service.backends if not backend.fallback)
    if least.weight is not None and service.backends and least.weight > weight:
        text = f"needs weight {least.weight}, and all have {weight}: never announced"
        found.append(("announce.min_backends", text))
    return found
