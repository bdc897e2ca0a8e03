"""The three settings of ``node.toml`` that the bridge needs, read with the standard library alone.

They are judged exactly as ``anycastlb.settings`` judges them, with the same words; every other key of the file is the
daemon's business. This process must survive everything else on the node, so it stays small and loads no pydantic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anycastlb.core.model import AnycastlbError, Network, Problem, SettingsError
from anycastlb.core.scalars import hold, network, shown
from anycastlb.core.toml import line_of, load

DEFAULTS: Mapping[str, Any] = {"bgp.socket": "/run/anycastlb/bgp.sock", "bgp.hold": "15s"}


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    vip_ranges: tuple[Network, ...]
    """Only host routes inside these may leave the node."""
    socket: str
    """Where the daemon listens."""
    hold: float
    """Seconds that the routes outlive a silent daemon which has not yet said how long."""


def read(path: str) -> BridgeSettings:
    """Raises ``SettingsError`` or ``OSError``."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as exc:
        raise OSError(f"{path}: expected UTF-8 text: {exc}") from exc


def parse(text: str, name: str) -> BridgeSettings:
    """Raises ``SettingsError`` with every problem in these settings, each with its line; ``name`` is the file's."""
    document = load(text, name)
    values: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for key, judge in JUDGES.items():
        try:
            values[key] = judge(_value(document, key))
        except _InvalidValue as exc:
            problems += exc.problems
        except ValueError as exc:
            problems.append((key, f"expected {exc}"))
    if problems:
        raise SettingsError(tuple(Problem(name, path, what, line_of(text, path)) for path, what in problems))
    return BridgeSettings(values["node.vip_ranges"], values["bgp.socket"], values["bgp.hold"])


class _InvalidValue(AnycastlbError):
    """Problems that say themselves where they are: each a dotted path and a sentence."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in problems))
        self.problems = problems


def _value(document: Mapping[str, Any], path: str) -> Any:
    table, _, key = path.partition(".")
    rows = document.get(table, {})
    if not isinstance(rows, dict):
        raise _InvalidValue((table, f"expected a table, not {shown(rows)}"))
    if key not in rows and path not in DEFAULTS:
        raise _InvalidValue((path, "missing; expected a value here"))
    return rows.get(key, DEFAULTS.get(path))


def _ranges(value: Any) -> tuple[Network, ...]:
    if not isinstance(value, list):
        raise ValueError(f'a list of networks such as ["192.0.2.0/24"], not {shown(value)}')
    if not value:
        raise ValueError('at least one network, such as ["192.0.2.0/24"]')
    networks, problems = [], []
    for number, item in enumerate(value):
        try:
            networks.append(network(item))
        except ValueError as exc:
            problems.append((f"node.vip_ranges.{number}", f"expected {exc}"))
    if problems:
        raise _InvalidValue(*problems)
    return tuple(networks)


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text in quotes, not {shown(value)}")
    return value


JUDGES: Mapping[str, Callable[[Any], Any]] = {"node.vip_ranges": _ranges, "bgp.socket": _path, "bgp.hold": hold}
