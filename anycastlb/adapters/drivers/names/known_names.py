"""The names of a DNS zone that are or were ours, in a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from anycastlb.adapters.system.atomic_file import write_atomic
from anycastlb.core.model import DriverError


class KnownNames:
    """``path``: the file; None: they are kept in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._names: set[str] | None = None

    async def recall(self) -> set[str]:
        if self._names is None:
            self._names = await asyncio.to_thread(_load, self._path) if self._path else set()
        return self._names

    async def remember(self, names: set[str]) -> None:
        """Keep these names before any of them is written to the zone: one may be forgotten late, never early."""
        if names != await self.recall():
            self._names = names
            if self._path:
                await asyncio.to_thread(_save, self._path, names)


def _load(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as exc:
        raise DriverError(
            f"{path}: {exc}; expected the names this node has published; delete it if it is broken"
        ) from exc


def _save(path: Path, names: set[str]) -> None:
    try:
        write_atomic(path, "".join(f"{name}\n" for name in sorted(names)).encode())
    except OSError as exc:
        raise DriverError(f"{path}: {exc}; expected a state_dir this node may write to") from exc
