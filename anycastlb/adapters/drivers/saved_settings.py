"""Keep in ``state_dir`` what settings of the kernel were before we changed them, so that they can be restored.

A row is saved before it is changed, and removed when it is again what it was. So a crash at any moment, a handover and
a restart lose nothing, and never take our own value for the original. What was saved in another boot or another
network namespace says nothing about this one and is not used. Nothing is decided here (docs/decisions/0007).
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from anycastlb.adapters.drivers import Driver
from anycastlb.adapters.system.atomic_file import write_atomic
from anycastlb.core.model import Change, Failure, Rows, SyncDaemon, Table

NAME = "originals.json"
VERSION = 1
BOOT = Path("/proc/sys/kernel/random/boot_id")
SO_NETNS_COOKIE = 71
"""Socket option (Linux 5.14): a number no other network namespace of this boot has, had or will have."""
BAD = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
Record = dict[Table, dict[str, Any]]


def machine(boot: Path = BOOT) -> str:
    """This boot and the calling thread's network namespace; empty if they cannot be told."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            cookie = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
        return f"{boot.read_text(encoding='ascii').strip()} {cookie:x}"
    except (OSError, ValueError):
        return ""


class SavedSettings:
    """The record of one state directory. ``complain(what, remedy)`` hears why it cannot be read or kept.

    What cannot be kept on disk is remembered as long as the process lives.
    """

    def __init__(
        self, state_dir: str | Path, complain: Callable[[str, str], None] = lambda what, remedy: None, here: str = ""
    ) -> None:
        """Reads the record. ``here``: which machine this is (``machine()`` unless given)."""
        self.path = Path(state_dir) / NAME
        self._complain, self._complained = complain, ""
        self._here = here or machine()
        self.rows: Mapping[Table, Rows] = self._load()
        """By table and key; None for a row that did not exist."""

    def _load(self) -> Record:
        try:
            document = json.loads(self.path.read_bytes())
            if document["version"] != VERSION or document["machine"] != self._here or not self._here:
                return {}
            return {table: {key: _row(row) for key, row in rows.items()} for table, rows in document["rows"].items()}
        except FileNotFoundError:
            return {}
        except BAD as exc:
            remedy = "what is found now counts as the original; set sysctls by hand if that is wrong"
            self._complain(f"{self.path} cannot be used: {exc}", remedy)
            return {}

    def remember(self, changes: Iterable[Change]) -> None:
        """Note what is about to be changed, unless it is known already. A sysctl that was not seen has no original."""
        rows = self._copy()
        for change in changes:
            if change.table == "config" or change.old is not None:
                rows.setdefault(change.table, {}).setdefault(change.key, change.old)
        self._save(rows)

    def settle(self, seen: Iterable[tuple[Table, str, Any]]) -> None:
        """Strike out what is again as it was: of these rows, as (table, key, row)."""
        rows = self._copy()
        for table, key, row in seen:
            if key in rows.get(table, {}) and rows[table][key] == row:
                del rows[table][key]
        self._save({table: kept for table, kept in rows.items() if kept})

    def drop(self) -> None:
        """Strike out everything: nothing will be given back."""
        self._save({})

    def _copy(self) -> Record:
        return {table: dict(rows) for table, rows in self.rows.items()}

    def _save(self, rows: Record) -> None:
        if rows == self.rows:
            return
        self.rows = rows
        try:
            document = {"version": VERSION, "machine": self._here, "rows": rows}
            write_atomic(self.path, json.dumps(document, indent=1, default=_plain).encode())
        except OSError as exc:
            if str(exc) != self._complained:
                self._complained = str(exc)
                what = f"{self.path} cannot be written ({exc}): after a crash, settings would not be given back"
                self._complain(what, f"make {self.path.parent} writable for the daemon")


class Restorable:
    """A driver of settings whose originals are remembered."""

    def __init__(self, driver: Driver, originals: SavedSettings) -> None:
        self.tables = driver.tables
        self._driver, self._originals = driver, originals

    async def observe(self) -> Mapping[Table, Rows]:
        tables = await self._driver.observe()
        known = self._originals.rows
        self._originals.settle((table, key, tables[table].get(key)) for table in tables for key in known.get(table, ()))
        return tables

    async def apply(self, changes: Sequence[Change]) -> Sequence[Failure]:
        self._originals.remember(changes)
        failures = await self._driver.apply(changes)
        failed = {(failure.change.table, failure.change.key) for failure in failures}
        done = [change for change in changes if (change.table, change.key) not in failed]
        self._originals.settle((change.table, change.key, change.new) for change in done)
        return failures


def _row(row: Any) -> Any:
    return SyncDaemon(**{**row, "group": ip_address(row["group"])}) if isinstance(row, dict) else row


def _plain(row: Any) -> Any:
    return {**asdict(row), "group": str(row.group)}
