"""Scalars of the documents an operator writes: a text in TOML or JSON to a value, or a ``ValueError`` that says what
was expected.

It needs no pydantic, because the bridge reads its own three settings with it; ``fields`` builds pydantic's types on it.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

from anycastlb.core.model import Network

DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)")
MAX_SCALAR = 64
"""Characters of a number, a duration or a share: what is longer is none, and no expression looks at it."""
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(value: Any) -> float:
    """``"500ms"``, ``"2s"``, ``"1m30s"``, ``"5m"``, ``"14d"`` -> seconds. Raises ValueError."""
    if isinstance(value, (int, float)) and value == 0 and not isinstance(value, bool):
        return 0.0
    if not isinstance(value, str) or len(value) > MAX_SCALAR or not (text := value.strip()):
        raise ValueError(f'a duration such as "500ms", "2s" or "5m", not {shown(value)}')
    if text == "0":
        return 0.0
    total, end = 0.0, 0
    for part in DURATION.finditer(text):
        if part.start() != end:
            break
        total, end = total + float(part[1]) * UNITS[part[2]], part.end()
    if end != len(text):
        raise ValueError(f'a duration such as "500ms", "2s" or "5m", not {shown(value)}')
    return total


def network(value: Any) -> Network:
    """``"192.0.2.0/24"`` -> the network. Raises ValueError."""
    try:
        if not isinstance(value, str) or len(value) > MAX_SCALAR:
            raise ValueError
        return ip_network(value.strip())
    except ValueError:
        raise ValueError(f'a network such as "192.0.2.0/24" without host bits, not {shown(value)}') from None


def hold(value: Any) -> float:
    """``[bgp] hold`` -> seconds. Raises ValueError."""
    seconds = duration(value)
    if not 1 <= seconds <= 600:
        raise ValueError('a duration from "1s" to "10m"')
    return seconds


def shown(value: Any, limit: int = 60) -> str:
    """A value in a message, cut short: a megabyte of noise must not become a megabyte of log, nor the work of one."""
    if isinstance(value, (dict, list, tuple)):
        text = _beginning(value, limit)
        return text if len(text) <= limit else f"{text[:limit]}…"
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def _beginning(value: Any, limit: int) -> str:
    """As ``repr``, but it ends soon after the limit."""
    if isinstance(value, str):
        return repr(value[: limit + 1])
    if not isinstance(value, (dict, list, tuple)):
        return repr(value)
    opening, closing = "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else "()"
    text = opening
    for place, item in enumerate(value):
        text += ", " if place else ""
        text += _beginning(item, limit)
        text += f": {_beginning(value[item], limit)}" if isinstance(value, dict) else ""
        if len(text) > limit:
            return text
    return text + ("," if isinstance(value, tuple) and len(value) == 1 else "") + closing
