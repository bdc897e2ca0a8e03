"""What this node shows to Consul's agent: its token and its certificate, as they are on disk now."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from anycastlb.core.certificates import VERIFY_FLAGS
from anycastlb.core.model import SourceError
from anycastlb.settings import ConsulSettings

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]


class Credentials:
    """The files that ``[consul]`` names. Each method raises ``SourceError`` for one that cannot be used."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._encrypted = settings.address.split(":")[0] == "https"

    def headers(self) -> dict[str, str]:
        """Read at every request, so that a renewed token is used without a restart."""
        headers, settings = {}, self._settings
        if settings.token_file:
            try:
                headers["X-Consul-Token"] = Path(settings.token_file).read_text(encoding="ascii").strip()
            except (OSError, ValueError) as exc:
                raise SourceError(f"consul.token_file: {exc}; expected a file with one token in it") from exc
        if settings.namespace:
            headers["X-Consul-Namespace"] = settings.namespace
        return headers

    def stamp(self) -> Stamp:
        """What changes when a certificate is renewed on disk."""
        if not self._encrypted:
            return ()
        stamps = []
        for name in ("ca_file", "cert_file", "key_file"):
            if path := getattr(self._settings, name):
                try:
                    stat = Path(path).stat()
                except OSError as exc:
                    raise SourceError(f"consul.{name}: {exc}; expected a PEM file") from exc
                stamps.append((path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(stamps)

    def tls(self) -> ssl.SSLContext | None:
        """How the agent is verified, and what it is shown; None without TLS."""
        if not self._encrypted:
            return None
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
            context.verify_flags = VERIFY_FLAGS
            if settings.cert_file:
                context.load_cert_chain(settings.cert_file, settings.key_file)
        except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
            files = ", ".join(filter(None, (settings.ca_file, settings.cert_file, settings.key_file)))
            raise SourceError(f"consul: {exc}; expected PEM files that belong together: {files}") from exc
        return context
