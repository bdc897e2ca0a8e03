"""What is read from the catalog's source: raw documents, and how the source is doing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from anycastlb.core.model.base import EMPTY, Address


@dataclass(frozen=True, slots=True)
class Entry:
    """One raw key of the catalog tree."""

    value: bytes
    created: int = 0
    """Consul's CreateIndex: the cluster-wide order of age; 0 where the source has none."""
    format: Literal["json", "toml", "yaml"] = "json"
    origin: str = ""
    """What to call the document in a problem, if not by its key (a file's path)."""
    error: str = ""
    """Why the document cannot be used although its key exists (an unreadable file)."""
    version: str = field(default="", compare=False)
    """What a store calls this state of the key; a write may be made to depend on it. Empty where nobody may write."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One key to be written or deleted."""

    key: str
    """Relative to the store's root: ``services/web``."""
    value: bytes | None
    """None = delete."""
    expects: str | None = None
    """The ``Entry.version`` the key must still have; empty = it must not exist; None = whatever it has."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One consistent read of the whole catalog: keys relative to the prefix (``services/web``), nothing parsed."""

    entries: Mapping[str, Entry] = field(default_factory=lambda: EMPTY)
    index: int = 0
    """Consul's index of the read; for other sources a number that differs from read to read."""


@dataclass(frozen=True, slots=True)
class Shrink:
    """A catalog that was read but is held back, because it lost too many VIPs at once."""

    lost: tuple[Address, ...]
    of: int
    """How many VIPs the catalog in force has."""
    since: float
    until: float | None
    """When it is believed if it persists; None = only when confirmed."""


@dataclass(frozen=True, slots=True)
class Feed:
    """How the catalog source is doing."""

    connected: bool = False
    since: float = 0.0
    """When ``connected`` last changed."""
    error: str = ""
    """Why it is not connected."""
    loaded: bool = False
    """A catalog is in force; while False, the catalog's being empty says nothing and nothing may be torn down."""
    cached: bool = False
    """The catalog in force was read from ``state_dir``, not from the source."""
    held: Shrink | None = None
