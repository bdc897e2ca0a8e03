"""A service without ``vip``: a pool, to which routes send requests.

It has the fields of a service that speak of backends, and some that only HAProxy knows. The fields of IPVS and BGP say
nothing about it: they are errors in its document, and are left out where the defaults bring them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anycastlb.core.catalog.check import InvalidField
from anycastlb.core.catalog.discovery import parse_discover
from anycastlb.core.catalog.http.pool_schema import IPVS_FIELDS, PoolBackendDocument, PoolDocument
from anycastlb.core.catalog.schema import BackendDocument
from anycastlb.core.model import Backend, Balancing, Passive, Problem, Service, VirtualService

NO_IPVS = VirtualService("wrr")
"""What stands where a service has its row in IPVS. Under ``wrr`` a weight is as it is configured."""


def is_pool(document: Mapping[str, Any]) -> bool:
    """Is a merged service document one of a pool?"""
    return "vip" not in document


def defaults_under(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """The defaults, as far as they are about such a service."""
    if not is_pool({**defaults, **own}):
        return defaults
    return {name: value for name, value in defaults.items() if name not in IPVS_FIELDS}


def parse_pool(name: str, parsed: PoolDocument, backends: Sequence[Backend]) -> Service:
    return Service(
        name=name,
        vips=(),
        protocol="tcp",
        port=parsed.port or 0,
        virtual=NO_IPVS,
        backends=tuple(backends),
        drain=parsed.drain,
        slow_start=0.0 if parsed.slow_start == "history" else parsed.slow_start,
        slow_start_by_history=parsed.slow_start == "history",
        max_failed=parsed.max_failed,
        backends_from=parse_discover(parsed.backends_from),
        balancing=Balancing(parsed.balance, parsed.persistence.cookie if parsed.persistence else ""),
    )


def passive_of(pool: PoolDocument, backend: BackendDocument) -> Passive | None:
    """When requests of clients count against a backend: as it says itself, else as its pool does."""
    own = backend if isinstance(backend, PoolBackendDocument) else PoolBackendDocument(address=backend.address)
    fails = pool.max_fails if own.max_fails is None else own.max_fails
    timeout = pool.fail_timeout if own.fail_timeout is None else own.fail_timeout
    return Passive(fails, timeout) if fails else None


def refuse_unreachable(key: str, path: str, port: int, through: bool) -> None:
    """Raises ``InvalidField`` for a backend that HAProxy or its check could not reach."""
    if not port:
        raise InvalidField([Problem(key, f"{path}.port", "missing; expected a port above 0 here or in the pool")])
    if through:
        expected = 'expected no "via": "forward" in a pool, which IPVS does not know'
        raise InvalidField([Problem(key, f"{path}.check.via", expected)])
