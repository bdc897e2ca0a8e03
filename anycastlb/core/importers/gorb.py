"""GORB's words for ours: the options of its services and backends (kobolog/gorb and sky-uk/gorb) as our documents, and
back.

Pure: names must have been resolved (``names`` says which there are). Nothing is decided here that GORB's users would
not expect: its defaults are GORB's (``wrr``, ``nat``, a check each minute, one result turns a verdict), and what it
only promised is done (``persistent``, flags, numbers in ``args``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from anycastlb.core.fields import is_address, shown
from anycastlb.core.model import AnycastlbError, Backend, Check, Service

MISSING = "endpoint information is missing"
UNRESOLVED = "the host has no address in DNS here; send an address, or a name that this node can resolve"
PROTOCOL = "specified protocol is unknown"
FLAG = "specified flag is unknown"
FORWARDING = "specified forwarding method is unknown"
PULSE = "specified pulse type is unknown"
INTERVAL = "invalid interval format"
POSITIVE = "pulse interval must be positive"
FAMILIES = "incompatible address families"
EXISTS = "specified object already exists"
ABSENT = "unable to locate specified object"
KERNEL = "error while calling into IPVS"
FIXED = "unable to update virtual service [{}] due to host/port/protocol changing"

FLAGS = {
    "sh-fallback": "flag-1",
    "sh-port": "flag-2",
    "mh-fallback": "flag-1",
    "mh-port": "flag-2",
    "flag-1": "flag-1",
    "flag-2": "flag-2",
    "flag-3": "flag-3",
}
METHODS = {"nat": "nat", "dr": "dr", "tunnel": "tunnel", "ipip": "tunnel"}
UNITS = {"s": 1, "sec": 1, "seconds": 1, "m": 60, "min": 60, "minutes": 60, "h": 3600, "hours": 3600}
TIMEOUT = "5s"
"""Of every check: GORB has no other."""
PAUSE = "1m"
Options = Mapping[str, Any]


class GorbRefusal(AnycastlbError):
    """What GORB answers with status 400."""


# ---------------------------------------------------------------- from GORB


def names(options: Options) -> set[str]:
    """The hosts in a service's or backend's options that are no addresses."""
    options = _spelt(options)
    pulse = _spelt(given) if isinstance(given := options.get("pulse"), Mapping) else {}
    args = pulse.get("args")
    hosts = [options.get("host"), args.get("host") if isinstance(args, Mapping) else None]
    return {host for host in hosts if isinstance(host, str) and host and not is_address(host)}


def service(options: Options, addresses: Mapping[str, str]) -> dict[str, Any]:
    """The service document. ``addresses``: what each of ``names`` resolves to. Raises ``GorbRefusal``."""
    options = _spelt(options)
    protocol = _text(options, "protocol").lower() or "tcp"
    if protocol not in ("tcp", "udp"):
        raise GorbRefusal(PROTOCOL)
    document: dict[str, Any] = {
        "vip": _host(options, addresses),
        "port": _port(options),
        "protocol": protocol,
        "scheduler": _text(options, "method") or "wrr",
        "forward": "nat",
        "slow_start": "history",
    }
    if flags := _flags(options):
        document["scheduler_flags"] = flags
    persistent = options.get("persistent")
    if persistent is not None and not isinstance(persistent, bool):
        raise GorbRefusal(f"persistent: expected true or false, not {shown(persistent)}")
    if persistent:
        document["persistence"] = {}
    return document


def backend(options: Options, addresses: Mapping[str, str], family: int) -> dict[str, Any]:
    """The backend document under a service whose VIP is of this family. Raises ``GorbRefusal``."""
    options = _spelt(options)
    address = _host(options, addresses)
    method = _text(options, "method").lower() or "nat"
    if method not in METHODS:
        raise GorbRefusal(FORWARDING)
    if ip_address(address).version != family:
        raise GorbRefusal(FAMILIES)
    return {
        "address": address,
        "port": _port(options),
        "weight": _weight(options) or 100,
        "forward": METHODS[method],
        "check": _check(options.get("pulse"), addresses),
    }


def weight(options: Options) -> dict[str, Any]:
    """What a PATCH of a backend changes: its weight; without one it gets no new flows, as in GORB."""
    return {"weight": _weight(_spelt(options))}


def _check(pulse: Any, addresses: Mapping[str, str]) -> dict[str, Any]:
    if pulse is None:
        pulse = {}
    if not isinstance(pulse, Mapping):
        raise GorbRefusal(f"pulse: expected an object, not {shown(pulse)}")
    pulse = _spelt(pulse)
    kind = _text(pulse, "type").lower() or "tcp"
    if kind not in ("tcp", "http", "none"):
        raise GorbRefusal(PULSE)
    check = {"type": kind, "interval": _interval(pulse), "timeout": TIMEOUT, "rise": 1, "fall": 1}
    args = pulse.get("args")
    return check | (_request(args, addresses) if kind == "http" and isinstance(args, Mapping) else {})


def _request(args: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of an HTTP pulse. Its host is where GORB connects to, and the name it asks for."""
    given = {name: args[name] for name in ("method", "path", "port", "expect") if args.get(name) not in (None, "")}
    host = _text(args, "host")
    if not host:
        return given
    address = host if is_address(host) else addresses.get(host)
    if address is None:
        raise GorbRefusal(f"{UNRESOLVED}: {shown(host)}")
    return {**given, "address": address, **({} if address == host else {"host": host})}


def _interval(pulse: Mapping[str, Any]) -> str:
    text = _text(pulse, "interval") or PAUSE
    match = re.fullmatch(r"(-?\d{1,9})\s*([a-z]+)", text)
    if not match or match[2] not in UNITS:
        raise GorbRefusal(INTERVAL)
    if int(match[1]) <= 0:
        raise GorbRefusal(POSITIVE)
    return f"{int(match[1]) * UNITS[match[2]]}s"


def _flags(options: Options) -> list[str]:
    wanted = [flag for flag in _text(options, "flags").split("|") if flag]
    if not set(wanted) <= set(FLAGS):
        raise GorbRefusal(FLAG)
    return sorted({FLAGS[flag] for flag in wanted})


def _host(options: Options, addresses: Mapping[str, str]) -> str:
    host = _text(options, "host")
    resolved = host if is_address(host) else addresses.get(host)
    if not resolved:
        raise GorbRefusal(f"{UNRESOLVED}: {shown(host)}" if host else MISSING)
    return resolved


def _port(options: Options) -> int:
    port = _number(options, "port")
    if not 0 < port < 65536:
        raise GorbRefusal(MISSING)
    return port


def _weight(options: Options) -> int:
    return max(0, _number(options, "weight"))


def _number(options: Options, name: str) -> int:
    """0 where there is none, as in GORB. What is no number must not become one: 0 takes a backend out."""
    value = options.get(name)
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31:
        return value
    if (isinstance(value, float) and value.is_integer() and abs(value) < 2**31) or (
        isinstance(value, str) and re.fullmatch(r"\d{1,9}", value, re.ASCII)
    ):
        return int(value)
    raise GorbRefusal(f"{name}: expected a whole number, not {shown(value)}")


def _text(options: Mapping[str, Any], name: str) -> str:
    value = options.get(name)
    if value is not None and not isinstance(value, str):
        raise GorbRefusal(f"{name}: expected text in quotes, not {shown(value)}")
    return (value or "").strip()


def _spelt(options: Options) -> Options:
    """The options with their names in small letters: Go, and so GORB, makes no difference."""
    return {name.lower(): value for name, value in options.items()}


# ---------------------------------------------------------------- to GORB


def service_options(service: Service) -> dict[str, Any]:
    """A service as GORB answers it; of several VIPs the first."""
    return {
        "host": str(service.vips[0]),
        "port": service.port,
        "protocol": service.protocol,
        "method": service.virtual.scheduler,
        "flags": "|".join(sorted(service.virtual.flags)),
        "persistent": bool(service.virtual.persistence),
    }


def backend_options(service: Service, backend: Backend, weight: int) -> dict[str, Any]:
    """A backend as GORB answers it. ``weight``: the one in force."""
    return {
        "host": str(backend.address),
        "port": backend.port,
        "weight": weight,
        "method": backend.forward,
        "pulse": {"type": backend.check.type, "interval": f"{max(1, round(backend.check.interval))}s"}
        | _args(backend.check),
        "vsid": service.name,
    }


def _args(check: Check) -> dict[str, Any]:
    if check.type not in ("http", "https"):
        return {}
    params: Any = check.params
    asked = {"method": params.method, "path": params.path}
    return {"args": {**asked, "host": str(check.address), "port": check.port, "expect": str(params.expect)}}
