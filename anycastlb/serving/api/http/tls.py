"""TLS of the API's listeners: the certificate from its files, read again when they change, and names in a client's.

A new certificate that cannot be used is an event, and the old one stays.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from anycastlb.adapters.system.file_watch import FileWatch
from anycastlb.adapters.system.journal import Journal
from anycastlb.core.certificates import VERIFY_FLAGS
from anycastlb.core.events import Event
from anycastlb.core.model import AnycastlbError
from anycastlb.settings import ApiSettings


class Tls:
    """The TLS context for new connections: ``context`` is the latest that could be read."""

    def __init__(self, settings: ApiSettings, journal: Journal, every: float = 1.0) -> None:
        self._settings, self._journal = settings, journal
        names = (settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
        self._watched = FileWatch([name for name in names if name], every)
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ``AnycastlbError`` until one could be read for the first time."""
        if self._context is None:
            self._watched.changed()
            self._context = load(self._settings)
        elif self._watched.changed():
            try:
                self._context = load(self._settings)
                self._journal.emit(Event("api", "tls", reason="the certificate was read again", after="up"))
            except AnycastlbError as exc:
                self._journal.emit(Event("api", "tls", reason=f"{exc}; the old one stays", level="error"))
        return self._context

    def reread(self) -> None:
        self._watched.forget()


def load(settings: ApiSettings) -> ssl.SSLContext:
    """A server's context. Raises ``AnycastlbError`` naming the file and what is wrong with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.verify_flags = VERIFY_FLAGS
    context.set_alpn_protocols(["http/1.1"])
    if settings.tls_cert_file is None:
        raise AnycastlbError("TLS needs a certificate: set [api] tls_cert_file in node.toml")
    try:  # without a password function, a key that has one would be asked for on the terminal
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password=lambda: b"")
    except (OSError, ValueError) as exc:
        files = " with ".join(filter(None, (settings.tls_cert_file, settings.tls_key_file)))
        raise AnycastlbError(f"the API's certificate {files} cannot be used: {_tls_text(exc)}") from exc
    if settings.tls_client_ca_file is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca_file)
        except (OSError, ValueError) as exc:
            problem = f"{settings.tls_client_ca_file} cannot be used: {_tls_text(exc)}"
            raise AnycastlbError(f"the API's authority of clients {problem}") from exc
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def names(certificate: Mapping[str, Any]) -> list[str]:
    """The common name, then every alternative name, of a verified certificate as ``getpeercert`` gives it."""
    common_names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return [*common_names, *(str(value) for _, value in certificate.get("subjectAltName", ()))]


def _tls_text(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc)
