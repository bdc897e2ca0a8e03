"""The address of the node's API and the credentials for it: from options, the environment, or ``[api]`` in node.toml.

Only the table ``[api]`` is read, so that a mistake elsewhere in node.toml does not hide a running node. It makes no
connection.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

CONFIG = "/etc/anycastlb/node.toml"
SOCKET = "/run/anycastlb/api.sock"
LISTEN = "127.0.0.1:4672"
_LOOPBACK = re.compile(r"127\.|localhost:|\[::1\]")
"""On these addresses the API uses plain HTTP; on all others TLS, if it has a certificate."""


@dataclass(frozen=True, slots=True)
class Location:
    """The options of the user; None for those that were not given."""

    config: str | None = None
    api: str | None = None
    socket: str | None = None
    token_file: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    timeout: float = 10.0

    @property
    def given(self) -> bool:
        """Did the user name an address or a socket, rather than leave it to the settings?"""
        return bool(self.api or self.socket)

    @property
    def url(self) -> str:
        """``http://…``, ``https://…`` or ``unix:///…``. Raises ``click.ClickException``."""
        if self.socket:
            return f"unix://{Path(self.socket).absolute()}"
        if self.api:
            return self.api if "://" in self.api else f"http://{self.api}"
        section = _section(self.config)
        path = section.get("socket", SOCKET)
        if isinstance(path, str) and path and os.access(path, os.W_OK):
            return f"unix://{path}"
        listen = section.get("listen", LISTEN)
        addresses = listen if isinstance(listen, list) else [listen]
        if not addresses or not all(isinstance(item, str) for item in addresses):
            at = self.config or CONFIG
            raise click.ClickException(f"{at}: [api] listen is no address and port: run `anycastlb validate {at}`")
        plain = next((item for item in addresses if _LOOPBACK.match(item.strip())), None)
        scheme = "https" if plain is None and section.get("tls_cert_file") else "http"
        return f"{scheme}://{_connect_address(plain or addresses[0])}"


def _section(config: str | None) -> dict[str, Any]:
    """The table ``[api]`` of the file."""
    path = Path(config or CONFIG)
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if config:
            raise click.ClickException(f"{path} does not exist: give --config FILE or --api ADDRESS:PORT") from None
        return {}
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"{path} cannot be read ({exc}): run `anycastlb validate {path}`") from None
    section = document.get("api", {})
    return section if isinstance(section, dict) else {"listen": None}


def _connect_address(listen: str) -> str:
    """The address to connect to, given the address that the API listens on. Every address means the loopback."""
    match = re.fullmatch(r"\s*(\[[^\]]*\]|[^:]*):(\d+)\s*", listen)
    if not match:
        return listen
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{everywhere.get(match[1], match[1])}:{match[2]}"
