"""The files that HAProxy starts with: they say what is wanted, so that a reload or a restart comes up with it.

They are also this driver's memory: after a restart of the daemon they say which entries the maps should have, and how
the static part of the configuration reads.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from anycastlb.adapters.drivers.haproxy.config import digest_of, without_servers
from anycastlb.adapters.drivers.haproxy.entries import Maps
from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.core.model import HttpServerKey

CANDIDATE = ".candidate"
"""A configuration that HAProxy has not checked yet ends in this."""
BEFORE = ".before"
"""The configuration before the one that is there: a daemon that starts amid a reload may find HAProxy with it."""
Identity: TypeAlias = tuple[int, int, int] | None


class Files:
    """Everything below ``Installation.directory``. What is there as it was written is not written again."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._written: dict[Path, tuple[str, Identity]] = {}

    # ------------------------------------------------------------ reading

    def maps(self) -> dict[str, dict[str, str]]:
        """The entries that the files have; none where one is missing."""
        return {name: self._entries(name) for name in MAPS}

    def sites(self) -> dict[str, str]:
        return self._entries("site")

    def _entries(self, name: str) -> dict[str, str]:
        lines = _read(self._installation.map(name)).splitlines()
        return {key: value for key, _, value in (line.partition(" ") for line in lines) if value}

    def listed(self, gateway: str) -> list[str]:
        """The certificates in the list of a gateway, of which the first is sent where none fits."""
        return [Path(line).stem for line in _read(self._installation.certificate_list(gateway)).splitlines()]

    def config(self) -> str:
        return _read(self._installation.config)

    def static(self) -> tuple[str, str]:
        """The digest and the text of the configuration without servers; both empty if there is none of ours."""
        return self._static(self.config())

    def static_before(self) -> tuple[str, str]:
        return self._static(_read(self._beside(BEFORE)))

    def _static(self, text: str) -> tuple[str, str]:
        said = re.search(r'^  description "(.*)"$', text, re.MULTILINE)
        return (digest_of(said[1], self._installation), without_servers(text)) if said else ("", "")

    def _beside(self, ending: str) -> Path:
        return self._installation.config.with_name(f"{self._installation.config.name}{ending}")

    def bounds(self) -> dict[HttpServerKey, int]:
        """The servers that have a bound on their connections, which HAProxy lists nowhere else cheaply."""
        section, bounds = "", {}
        for line in self.config().splitlines():
            if line.startswith("backend "):
                section = line.split()[1]
            elif found := re.match(r"  server (\S+) .* maxconn (\d+)", line):
                bounds[HttpServerKey(section, found[1])] = int(found[2])
        return bounds

    # ------------------------------------------------------------ writing; raises OSError

    def write_maps(self, maps: Maps, sites: Mapping[str, str]) -> None:
        """``site`` comes last: whatever it leads to is there then."""
        for name, entries in (*((name, maps.get(name, {})) for name in MAPS), ("site", sites)):
            self.write(self._installation.map(name), "".join(f"{key} {value}\n" for key, value in entries.items()))

    def write_candidate(self, text: str) -> Path:
        path = self._beside(CANDIDATE)
        self._written.pop(path, None)
        self.write(path, text)
        return path

    def write_config(self, text: str) -> None:
        """A new configuration takes the place of the one that is there, which is kept beside it."""
        old = self.config()
        if (digest := self._static(old)[0]) and digest != self._static(text)[0]:
            self.write(self._beside(BEFORE), old)
        self.write(self._installation.config, text)

    def write(self, path: Path, text: str) -> None:
        """Whole or not at all. HAProxy may read it as another user of the group."""
        if self._written.get(path) == (text, identity(path)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        with open(draft, "w", encoding="latin-1", opener=lambda name, flags: os.open(name, flags, 0o640)) as file:
            file.write(text)
        draft.replace(path)
        self._written[path] = text, identity(path)


def identity(path: Path) -> Identity:
    """Another one wherever somebody else has written."""
    with contextlib.suppress(OSError):
        stat = path.stat()
        return stat.st_ino, stat.st_mtime_ns, stat.st_size
    return None


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("latin-1")
    return ""
