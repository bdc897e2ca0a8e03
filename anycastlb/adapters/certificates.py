"""The certificates that this node has for its gateways: files in one directory."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from anycastlb.core.model import EMPTY

GONE = (FileNotFoundError, NotADirectoryError, PermissionError)
T = TypeVar("T")


def fingerprint(pem: str) -> str:
    """SHA-1 of the first certificate, in lower case. Raises ValueError."""
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    if found is None:
        raise ValueError("no certificate in it")
    return hashlib.sha1(ssl.PEM_cert_to_DER_cert(found[0]), usedforsecurity=False).hexdigest()


def not_after(pem: str) -> float:
    """When the first certificate ends, as seconds of the wall clock. Raises ValueError."""
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    if found is None:
        raise ValueError("no certificate in it")
    der = ssl.PEM_cert_to_DER_cert(found[0])
    (whole,) = _parts(der)
    fields = [part for part in _parts(_parts(whole[1])[0][1]) if part[0] != VERSION]
    kind, text = _parts(fields[3][1])[1]  # serial number, algorithm, issuer, validity
    form = "%y%m%d%H%M%SZ" if kind == UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


VERSION, UTC_TIME = 0xA0, 0x17
"""Tags of DER."""


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """The values in a piece of DER, each with its tag. Raises ValueError."""
    parts, place = [], 0
    while place < len(der):
        tag, length = der[place], int.from_bytes(der[place + 1 : place + 2], "big")
        place += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[place : place + size], "big")
            place += size
        if place + length > len(der):
            raise ValueError("the certificate is cut off")
        parts.append((tag, der[place : place + length]))
        place += length
    return parts


class CertificateFiles(Generic[T]):
    """``NAME.pem`` for each certificate of a directory, and what is read of it.

    What is gone, may not be read or is no certificate is not there. Any other error is no news: a process that can open
    nothing more knows what it knew.
    """

    def __init__(self, folder: Path, read: Callable[[str], T]) -> None:
        """``read``: what is made of the text of a file. Raises ValueError or IndexError if that is no certificate."""
        self._folder, self._parse = folder, read
        self._read: dict[Path, tuple[object, T | None]] = {}
        """By file: what tells this version of it from others, and what was read of it; None if it has none."""
        self.known: Mapping[str, T] = EMPTY
        """By name, as last looked at: the same object for as long as nothing has changed."""

    def look(self) -> Mapping[str, T]:
        """Look again. A file is read when it has changed."""
        read: dict[Path, tuple[object, T | None]] = {}
        for path in self._listed():
            try:
                read[path] = self._file(path)
            except GONE:
                continue
            except OSError:
                if path in self._read:
                    read[path] = self._read[path]
        self._read = read
        now = {path.stem: one for path, (_, one) in read.items() if one is not None}
        if now != self.known:
            self.known = now
        return self.known

    def _listed(self) -> Sequence[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == ".pem")
        except GONE:
            return ()
        except OSError:
            return tuple(self._read)

    def _file(self, path: Path) -> tuple[object, T | None]:
        """Raises OSError."""
        status = path.stat()
        version = status.st_mtime_ns, status.st_size, status.st_ino
        known = self._read.get(path)
        if known is not None and known[0] == version and os.access(path, os.R_OK):
            return known
        text = path.read_text("latin-1")
        try:
            return version, self._parse(text)
        except (ValueError, IndexError):
            return version, None
