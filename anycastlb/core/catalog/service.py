"""The service and backend documents: one merged document to a ``Service``, or every problem in it.

Pure. Where documents come from, how they are merged and what is kept of a bad one is the business of ``build``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from anycastlb.core.catalog.check import (
    CheckTypes,
    DocumentPath,
    InvalidField,
    ReadCheck,
    merged_check,
    parse_check,
    strange_check,
)
from anycastlb.core.catalog.contradictions import Limits, clashes, contradictions
from anycastlb.core.catalog.discovery import parse_discover
from anycastlb.core.catalog.http.gateway_schema import GatewayAnnounceDocument
from anycastlb.core.catalog.http.pool import is_pool, parse_pool, passive_of, refuse_unreachable
from anycastlb.core.catalog.http.pool_schema import PoolBackendDocument, PoolDocument
from anycastlb.core.catalog.pool import about_backend
from anycastlb.core.catalog.scheduler import parse_virtual
from anycastlb.core.catalog.schema import AnnounceDocument, BackendDocument, ServiceDocument
from anycastlb.core.fields import Document, problems
from anycastlb.core.model import (
    Address,
    Announce,
    Backend,
    ConsulName,
    Damping,
    DnsName,
    Problem,
    Protocol,
    Route,
    Service,
)


def parse_service(
    key: str, name: str, document: Mapping[str, Any], limits: Limits, check_types: CheckTypes
) -> Service | tuple[Problem, ...]:
    """The service ``name`` from its whole, merged document (backends in canonical order), or all its problems."""
    try:
        parsed = _kind(document).model_validate(document)
    except ValidationError as exc:
        return problems(exc, key)
    pool = isinstance(parsed, PoolDocument)
    wrong = [] if pool else [Problem(key, path, expected) for path, expected in contradictions(parsed, limits)]
    protocol = _protocol(parsed)
    backends: list[Backend] = []
    read: dict[object, ReadCheck] = {}
    for backend_name, backend in parsed.backends.items():
        try:
            backends.append(_backend(key, backend_name, backend, parsed, protocol, check_types, read))
        except InvalidField as exc:
            wrong += exc.problems
    if not parsed.backends and parsed.check:
        wrong += strange_check(key, parsed.check, check_types)  # before the first backend registers, and fails by it
    wrong += [Problem(key, path, expected) for path, expected in clashes(backends)]
    if wrong:
        return tuple(dict.fromkeys(wrong))
    return (
        parse_pool(name, parsed, backends)
        if isinstance(parsed, PoolDocument)
        else (_service(name, protocol, parsed, backends))
    )


def _kind(document: Mapping[str, Any]) -> type[ServiceDocument]:
    return PoolDocument if is_pool(document) else ServiceDocument


def parse_own(document: Mapping[str, Any]) -> ServiceDocument | None:
    """The fields of a service without its backends; None if something is wrong with them."""
    try:
        return _kind(document).model_validate({**document, "backends": {}})
    except ValidationError:
        return None


def backend_problems(
    key: str,
    name: str,
    document: Mapping[str, Any],
    service: ServiceDocument | None,
    check_types: CheckTypes,
    read: dict[object, ReadCheck],
) -> tuple[Problem, ...]:
    """What is wrong with one backend of a service, by itself; of a service that cannot be read, only its fields.

    The paths are those in the backend's document. ``read``: checks of the service that were read before.
    """
    try:
        kind = BackendDocument if service is not None and service.vip else PoolBackendDocument
        backend = kind.model_validate(document)
    except ValidationError as exc:
        return problems(exc, key)
    if service is None:
        return ()
    # A backend's own check is read by itself: its document may be gone before the next one is read.
    known = read if backend.check is None else {}
    try:
        _backend(key, name, backend, service, _protocol(service), check_types, known)
    except InvalidField as exc:
        return about_backend(exc.problems, name)
    return ()


def _protocol(parsed: ServiceDocument) -> Protocol:
    return "fwmark" if parsed.fwmark else parsed.protocol or "tcp"


def _service(name: str, protocol: Protocol, parsed: ServiceDocument, backends: Sequence[Backend]) -> Service:
    announce = parsed.announce
    return Service(
        name=name,
        vips=tuple(dict.fromkeys(parsed.vip)),
        protocol=protocol,
        port=parsed.fwmark or parsed.port or 0,
        virtual=parse_virtual(protocol, parsed, backends),
        backends=tuple(backends),
        announce=Announce(
            min_backends=announce.min_backends,
            reopen=announce.reopen,
            when=announce.when,
            fail=announce.fail,
            fallback=announce.fallback,
            last=announce.last,
            damping=Damping(**announce.damping.model_dump()) if announce.damping else None,
            hold_up=announce.hold_up,
            hold_down=announce.hold_down,
            route=parse_path_attributes(announce),
        ),
        drain=parsed.drain,
        slow_start=0.0 if parsed.slow_start == "history" else parsed.slow_start,
        slow_start_by_history=parsed.slow_start == "history",
        max_failed=parsed.max_failed,
        backends_from=parse_discover(parsed.backends_from),
        dns=_filled(DnsName, parsed.dns),
        consul=_filled(ConsulName, parsed.consul),
    )


def parse_path_attributes(announce: AnnounceDocument | GatewayAnnounceDocument) -> Route:
    return Route(
        communities=tuple(sorted(set(announce.communities))),
        large_communities=tuple(sorted(set(announce.large_communities))),
        med=announce.med,
        local_preference=announce.local_preference,
        as_path_prepend=announce.as_path_prepend,
    )


Named = TypeVar("Named", DnsName, ConsulName)


def _filled(kind: type[Named], document: Document | None) -> Named | None:
    return None if document is None else kind(**document.model_dump(exclude_none=True))


def _backend(
    key: str,
    name: str,
    backend: BackendDocument,
    service: ServiceDocument,
    protocol: Protocol,
    check_types: CheckTypes,
    read: dict[object, ReadCheck],
) -> Backend:
    path = f"backends.{name}"
    port = backend.port if backend.port is not None else (service.port or 0)
    forward = backend.forward or service.forward
    if backend.min_connections > backend.max_connections:
        raise InvalidField([Problem(key, f"{path}.min_connections", "expected at most max_connections")])
    document = merged_check(service.check, backend.check)
    document.setdefault("type", "tcp" if protocol in ("tcp", "fwmark") and port else "none")
    where = DocumentPath(key, f"{path}.check" if backend.check is not None else "check", check_types, read)
    through = document.get("via") == "forward"
    passive = None
    if isinstance(service, PoolDocument):
        refuse_unreachable(key, path, port, through)
        passive = passive_of(service, backend)
    if not port and not through:
        _check_without_port(where, path, document, backend.address)
    return Backend(
        name=name,
        address=backend.address,
        port=0 if protocol == "fwmark" and backend.port is None else port,
        # Through IPVS the probe goes to the VIP and the service's port.
        check=parse_check(
            where,
            document,
            backend.address,
            (service.port or port) if through else port,
            through,
        ),
        weight=backend.weight,
        drain=backend.drain,
        forward=forward,
        tunnel_port=(backend.tunnel_port or service.tunnel_port) if forward == "gue" else 0,
        upper=backend.max_connections,
        lower=backend.min_connections,
        through=through,
        fallback=backend.fallback,
        override=backend.override,
        passive=passive,
    )


def _check_without_port(where: DocumentPath, path: str, document: Mapping[str, Any], address: Address) -> None:
    """Can a backend without a port be checked? Raises ``InvalidField`` about the backend if only that is wrong.

    The check may be the service's, and the service and its other backends must not fall with this one.
    """
    try:
        parse_check(where, document, address, 0, through=False)
    except InvalidField:
        parse_check(where, document, address, 1, through=False)  # raises what is wrong with the check itself
        expected = "expected a port other than 0, which the check needs; or give the check its own port"
        raise InvalidField([Problem(where.key, f"{path}.port", expected)]) from None
