"""Make TLS contexts (cached until a file of theirs changes), read certificate dates, and explain TLS errors.

It reads the files that a check names, and the system's CAs; it makes no connection.
"""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from anycastlb.adapters.checks.probe.outcome import Down
from anycastlb.core.certificates import VERIFY_FLAGS

MAX_FILE = 4 * 1024 * 1024
"""A file of certificates is no larger."""
MAX_CONTEXTS = 256

Stamp: TypeAlias = tuple[int, int, int]


class UnusableTls(Down):
    """A file that the check names cannot be used; the text says which one, and why."""


class Contexts:
    """One context for each set of files; looked up by every probe, made only when the files are new."""

    def __init__(self) -> None:
        self._made: dict[tuple[bool, str, str, str], tuple[tuple[Stamp | None, ...], ssl.SSLContext]] = {}

    def get(self, verify: bool, ca_file: str = "", cert_file: str = "", key_file: str = "") -> ssl.SSLContext:
        """Raises ``UnusableTls``."""
        key = verify, ca_file, cert_file, key_file
        system = ssl.get_default_verify_paths().cafile if verify and not ca_file else None
        stamps = (*(_stamp(name) for name in (ca_file, cert_file, key_file)), _system_stamp(system))
        known = self._made.pop(key, None)
        if known is None or known[0] != stamps:
            known = stamps, _context(*key)
        self._made[key] = known  # the last is the one used last
        if len(self._made) > MAX_CONTEXTS:
            del self._made[next(iter(self._made))]
        return known[1]


def _stamp(name: str) -> Stamp | None:
    """What changes when the file does."""
    if not name:
        return None
    try:
        status = Path(name).stat()
    except (OSError, ValueError) as exc:
        raise UnusableTls(f"{name} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE:
        raise UnusableTls(f"{name} is not a file of certificates")
    return status.st_mtime_ns, status.st_size, status.st_ino


def _system_stamp(name: str | None) -> Stamp | None:
    with suppress(UnusableTls):
        return _stamp(name or "")
    return None


def _context(verify: bool, ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags = VERIFY_FLAGS
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_TICKET  # every probe is a handshake of its own, as a new client's is
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if verify and ca_file:
            context.load_verify_locations(ca_file)
        elif verify:
            context.load_default_certs()
    except OSError as exc:
        raise UnusableTls(f"{ca_file or 'the CAs of the system'}: no certificate that can be used") from exc
    if cert_file:
        try:
            context.load_cert_chain(cert_file, key_file or None, password=_no_password)
        except (OSError, ValueError) as exc:
            raise UnusableTls(f"{cert_file}: no certificate with its private key, unencrypted") from exc
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted")  # else OpenSSL asks on the terminal


def failure(error: OSError) -> str:
    """A failed handshake in an operator's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {(error.verify_message or 'unknown').rstrip('.')}"
    return f"TLS handshake failed: {openssl_text(error)}"


def openssl_text(error: OSError) -> str:
    """What OpenSSL says, without its line numbers."""
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return "connection closed"
    reason = getattr(error, "reason", None) or error.strerror or str(error) or type(error).__name__
    return str(reason).replace("_", " ").lower()


# ---------------------------------------------------------------- when a certificate ends


def expiry(certificate: bytes) -> datetime:
    """When a certificate (DER) expires. Raises ValueError.

    Read from the bytes, as Python tells the date only of a certificate that it has verified:
    Certificate { tbs { [0] version?, serial, algorithm, issuer, validity { from, until }, ... }, ... } (RFC 5280, 4.1).
    """
    outer = next(_fields(certificate))[1]
    parts = _fields(next(_fields(outer))[1])
    tag, _ = next(parts)
    for _ in range(3 if tag == 0xA0 else 2):  # serial (unless it was the first), algorithm, issuer
        next(parts)
    validity = _fields(next(parts)[1])
    next(validity)
    tag, until = next(validity)
    text = until.decode("ascii")
    if not re.fullmatch(r"(\d\d)?\d{12}Z", text) or tag not in (0x17, 0x18):
        raise ValueError("a date")
    if tag == 0x17:  # UTCTime: two digits of the year
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The DER values that follow each other: (tag, content)."""
    while len(data) >= 2:
        tag, size, start = data[0], data[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            break
        yield tag, data[start : start + size]
        data = data[start + size :]
    if data:
        raise ValueError("a DER value")


def age(until: datetime, now: datetime, floor: float) -> str:
    """Why a certificate that expires at ``until`` is below the floor (seconds it must have left); empty if not."""
    left = (until - now).total_seconds()
    if left >= floor:
        return ""
    when = f"in {_span(left)}" if left >= 0 else f"{_span(-left)} ago"
    return f"certificate {'expires' if left >= 0 else 'expired'} {until:%Y-%m-%d}, {when} (floor {_span(floor)})"


def _span(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'s' * (count != 1)}"
    return f"{int(seconds)} s"
