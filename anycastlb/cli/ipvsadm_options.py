"""The options of ipvsadm and meradm as fields of our documents. Pure.

The node decides whether the fields make sense. What cannot be read at all raises ``click.UsageError``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import click

Fields = dict[str, Any]
PROTOCOLS = ("tcp", "udp", "sctp")
FORWARDS: Mapping[str, str] = {
    "tunnel": "tunnel",
    "ipip": "tunnel",
    "dr": "dr",
    "route": "dr",
    "gatewaying": "dr",
    "nat": "nat",
    "masq": "nat",
    "masquerading": "nat",
    "gue": "gue",
    "gre": "gre",
}
"""The name of a forwarding method in other tools -> its name here."""
EVERY_CHECK = frozenset(
    ("interval", "timeout", "rise", "fall", "fast_interval", "down_interval", "via", "address", "port", "type")
)
"""The fields that stay when a check becomes one of another type."""
_RANGE = re.compile(r"(\d+\.\d+\.\d+\.)(\d{1,3})-(\d{1,3})(:\d+)?")


def endpoint(text: str) -> tuple[str, int | None]:
    """``192.0.2.10:80``, ``[2001:db8::1]:80`` or an address alone -> address, port."""
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+):(\d{1,5})|(.+)", text.strip())
    host = (match[1] or match[3] or match[5]) if match else ""
    port = (match[2] or match[4]) if match else None
    try:
        address = str(ip_address(host))
    except ValueError:
        raise click.UsageError(f"{text!r:.60} is no address: expected 10.1.0.1:8080 or [2001:db8::1]:8080") from None
    if port and int(port) > 65535:
        raise click.UsageError(f"{text!r:.60}: expected a port up to 65535")
    return address, int(port) if port else None


def is_endpoint(text: str) -> bool:
    try:
        endpoint(text)
    except click.UsageError:
        return False
    return True


def written(address: str, port: int | None) -> str:
    """The text of an address and a port, which ``endpoint`` reads."""
    shown = f"[{address}]" if ":" in address and port is not None else address
    return shown if port is None else f"{shown}:{port}"


def several(text: str) -> list[str]:
    """``10.1.0.1-3:80`` -> three endpoints. Anything else is one."""
    match = _RANGE.fullmatch(text)
    if not match:
        return [text]
    first, last = int(match[2]), int(match[3])
    if not first <= last <= 255:
        raise click.UsageError(f"{text!r:.60} is no range: expected 10.1.0.1-3:8080")
    return [f"{match[1]}{number}{match[4] or ''}" for number in range(first, last + 1)]


def settings(words: Iterable[str]) -> Fields:
    """``path=/health expect=[200,204]`` -> fields. JSON values are read as JSON; ``a.b=1`` sets a nested field."""
    fields: Fields = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+(\.[^.=\s]+)*", name):
            raise click.UsageError(f"{word!r:.60}: expected field=value")
        place(fields, name, value(text))
    return fields


def value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def place(fields: Fields, name: str, content: Any) -> None:
    """Set ``a.b.c`` in nested fields."""
    *above, last = name.split(".")
    for part in above:
        below = fields.setdefault(part, {})
        if not isinstance(below, dict):
            raise click.UsageError(f"{name}: {part} has a value of its own already")
        fields = below
    fields[last] = content


def more(fields: Fields, assignments: Iterable[str], unset: Iterable[str]) -> Fields:
    """The fields with ``--set FIELD=VALUE`` and ``--unset FIELD`` applied to them."""
    merged = merge(fields, settings(assignments), keep_null=True)
    for name in unset:
        place(merged, name, None)
    return merged


def forward(given: Mapping[str, Any]) -> Fields:
    """``-f``, ``-g``, ``-i``, ``-m``, ``--tun-type``, ``--tun-port`` -> ``forward``, ``tunnel_port``."""
    methods = [
        *([FORWARDS[given["forward_method"].lower()]] if given["forward_method"] else []),
        *(["dr"] if given["gatewaying"] else []),
        *(["tunnel"] if given["ipip"] else []),
        *(["nat"] if given["masquerading"] else []),
    ]
    tunnel = given["tun_type"] and FORWARDS[given["tun_type"]]
    if tunnel and set(methods) <= {"tunnel", tunnel}:
        methods = [tunnel]
    if len(set(methods)) > 1 or (tunnel and methods != [tunnel]):
        raise click.UsageError("one way of forwarding, not several of -f, -g, -i, -m and --tun-type")
    port = {} if given["tun_port"] is None else {"tunnel_port": given["tun_port"]}
    return {**({"forward": methods[0]} if methods else {}), **port}


def check(given: Mapping[str, Any], words: Iterable[str]) -> Fields | None:
    """The ``check`` document of the options and of the ``key=value`` arguments; None if there is none of either."""
    fields: Fields = {}
    kinds = [given["check_type"]] if given["check_type"] else []
    if given["check_http"] is not None:
        kinds.append("http")
        fields["path"] = given["check_http"]
    if given["check_tcp"]:
        kinds.append("tcp")
    if (url := given["health_endpoint"]) is not None:
        document = _endpoint_check(url)
        kinds.append(document.pop("type"))
        fields |= document
    if len(kinds) > 1:
        raise click.UsageError("one check, not several of --check, --check-http, --check-tcp and --health-endpoint")
    for option, name in (("period", "interval"), ("timeout", "timeout"), ("up", "rise"), ("down", "fall")):
        if (setting := given[f"health_{option}"]) is not None:
            fields[name] = setting
    fields |= settings(words)
    return {**({"type": kinds[0]} if kinds else {}), **fields} if kinds or fields else None


def _endpoint_check(url: str) -> Fields:
    """The check of meradm's ``http://:8080/health``; an empty text means no check."""
    if not url:
        return {"type": "none"}
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https"):
        raise click.UsageError(f"--health-endpoint {url!r:.60}: expected a URL like http://:8080/health")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return {"type": parts.scheme, **({"port": port} if port else {}), "path": path}


def persistence(timeout: str | None, netmask: str | None) -> Fields:
    """``-p`` (seconds, as in ipvsadm, or a duration) and ``-M``."""
    inside: Fields = {}
    if timeout is not None:
        inside["timeout"] = f"{timeout}s" if timeout.isdigit() else timeout
    if netmask is not None:
        inside["netmask"] = int(netmask) if netmask.isdigit() else netmask
    return {"persistence": inside} if inside else {}


def merge(under: Mapping[str, Any], over: Mapping[str, Any], keep_null: bool = False) -> Fields:
    """Merge as RFC 7396 does: objects are merged, and None removes a field. With ``keep_null``, None stays."""
    merged = dict(under)
    for name, content in over.items():
        below = merged.get(name)
        if isinstance(content, Mapping):
            merged[name] = merge(below if isinstance(below, Mapping) else {}, content, keep_null)
        elif content is None and not keep_null:
            merged.pop(name, None)
        else:
            merged[name] = content
    return merged


def patch_of_check(before: Any, fields: Fields) -> Fields:
    """The patch that also resets what the check had for its former type."""
    known = before if isinstance(before, Mapping) else {}
    if fields.get("type") in (None, known.get("type", "tcp")):
        return fields
    return {**{name: None for name in known if name not in EVERY_CHECK}, **fields}
