"""Translate ordered changes to netlink requests, and the kernel's refusals to words. Pure.

Three changes cannot be expressed in one request each, and take several:

- a new service is filled under scheduler ``none`` and switched once, because ``mh`` rebuilds its whole table for
  every destination (175 us each);
- a destination's last non-zero weight is written by setting that weight before 0;
- a destination becomes the newest only by being deleted and added again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from anycastlb.adapters.drivers.ipvs import codec
from anycastlb.adapters.system.netlink import Request
from anycastlb.core.model import Change, Destination, DestinationKey, Failure, Reason, ServiceKey

EMPTY_SCHEDULER = "none"
"""The kernel's word for no scheduler: new connections are refused."""


@dataclass(slots=True)
class RequestBatch:
    """Requests in the order to send, each with the change it is for, and the changes that no request can express."""

    requests: list[Request] = field(default_factory=list)
    owners: list[Change] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, change: Change, *requests: Request) -> None:
        for request in requests:
            self.requests.append(request)
            self.owners.append(change)


def script(changes: Sequence[Change]) -> RequestBatch:
    """The requests that make these changes, in their order.

    New services are switched to their schedulers as soon as everything is built: before the first delete, else last.
    """
    out = RequestBatch()
    new: dict[ServiceKey, Change] = {}
    going = {change.key for change in changes if change.table == "services" and change.new is None}
    service: ServiceKey | None = None
    name = b""
    for change in changes:
        try:
            if change.table == "services":
                _service(out, change, new)
                continue
            key = change.key
            if key.service is not service:
                service, name = key.service, codec.service_name(key.service)
            if change.new is not None:
                out.add(change, *_destination(change, name))
            elif service not in going:  # deleting the service deletes it too, without a rebuild for each
                _switch(out, new)
                out.add(change, (codec.DEL_DESTINATION, name + codec.destination_name(key)))
        except codec.Inexpressible as exc:
            out.failures.append(Failure(change, Reason("inexpressible", str(exc), str(change.key))))
    _switch(out, new)
    return out


def _service(out: RequestBatch, change: Change, new: dict[ServiceKey, Change]) -> None:
    if change.new is None:
        _switch(out, new)
        out.add(change, (codec.DEL_SERVICE, codec.service_name(change.key)))
    elif change.old is not None:
        out.add(change, (codec.SET_SERVICE, codec.service(change.key, change.new)))
    else:
        codec.service(change.key, change.new)  # refuse what cannot be expressed before anything is created
        out.add(change, (codec.NEW_SERVICE, codec.service(change.key, change.new, EMPTY_SCHEDULER)))
        if change.new.scheduler != EMPTY_SCHEDULER:
            new[change.key] = change


def _switch(out: RequestBatch, new: dict[ServiceKey, Change]) -> None:
    for key, change in new.items():
        out.add(change, (codec.SET_SERVICE, codec.service(key, change.new)))
    new.clear()


def _destination(change: Change, name: bytes) -> Iterable[Request]:
    key: DestinationKey = change.key
    old: Destination | None = change.old
    new: Destination = change.new
    body = name + codec.destination(key, new, new.weight)
    nominal = None if new.weight else new.last_weight
    first = codec.SET_DESTINATION
    if old is None:
        first = codec.NEW_DESTINATION
    elif change.moved or (nominal == 0 and old.last_weight != 0):
        # No weight was ever set on a destination fresh from the kernel; there is no other way back to that.
        yield codec.DEL_DESTINATION, name + codec.destination_name(key)
        first = codec.NEW_DESTINATION
    elif nominal == old.last_weight:
        nominal = None
    if nominal:
        yield first, name + codec.destination(key, new, nominal)
        first = codec.SET_DESTINATION
    yield first, body


def refusal(change: Change, request: Request, number: int) -> Reason:
    """Why the kernel refused a request, with what to do about it."""
    command = request[0]
    if command in (codec.NEW_SERVICE, codec.SET_SERVICE, codec.DEL_SERVICE):
        known = _service_refusal(change, command, number)
    else:
        known = _destination_refusal(change, number)
    unknown = f"{change.key}: the kernel refused it: {os.strerror(number)} ({errno.errorcode.get(number, number)})"
    code, text = known or ("kernel_refused", unknown)
    return Reason(code, text, str(change.key))


def _service_refusal(change: Change, command: int, number: int) -> tuple[str, str] | None:
    if number == errno.ENOENT and change.new is not None:
        name = change.new.scheduler
        return "scheduler_missing", f'scheduler "{name}": the kernel has no such scheduler (modprobe ip_vs_{name})'
    if number == errno.EEXIST:
        return "exists", f"{change.key} exists already; somebody else created it since the last look"
    if number == errno.ESRCH:
        return "missing", f"{change.key} does not exist; somebody else deleted it since the last look"
    if number == errno.EINVAL and command == codec.SET_SERVICE:
        return "scheduler_refused", (
            f'scheduler "{change.new.scheduler}" refused {change.key}: too many destinations or weights it cannot hold '
            "(mh takes at most 4093 destinations)"
        )
    if number in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        options = "see its CONFIG_IP_VS_ options"
        return "family_missing", f"{change.key}: this kernel's IPVS lacks the protocol or address family ({options})"
    return None


def _destination_refusal(change: Change, number: int) -> tuple[str, str] | None:
    key: DestinationKey = change.key
    if number == errno.ESRCH:
        return "service_missing", f"{key}: its service does not exist"
    if number == errno.EEXIST:
        return "exists", f"{key} exists already; somebody else added it since the last look"
    if number == errno.ENOENT:
        return "missing", f"{key} does not exist; somebody else removed it since the last look"
    if number == errno.ERANGE:
        bounds = f"expected 0 to {2**31 - 1}, and lower not above upper"
        return "out_of_range", f"{key}: weight or thresholds out of range: {bounds}"
    if number == errno.EINVAL and change.new is not None:
        return _attributes_refusal(key, change.new)
    return None


def _attributes_refusal(key: DestinationKey, new: Destination) -> tuple[str, str]:
    other_family = key.address.version != key.service.address.version
    if other_family and new.forward != "tunnel":
        return "family_mismatch", (
            f"{key}: a destination of the other address family needs forward tunnel, not {new.forward}"
        )
    if other_family:
        return "sync_family", (
            f"{key}: the kernel refused it; while connection sync runs ([ipvs] sync_interface) it takes no "
            "destination of another address family than its VIP: turn sync off, or give the service a VIP of its "
            "backends' family"
        )
    return "attributes_refused", (
        f"{key}: the kernel refused its attributes (forward {new.forward}); "
        "is its address local or unreachable, or has mh 4093 destinations already?"
    )
