"""Asking the running node: its API over HTTP, with the standard library only, because commands must start at once.

Every failure becomes one line that says what to do.
"""

from __future__ import annotations

import json
import re
import tomllib
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import click

CONFIG = "/etc/anycastlb/node.toml"
LISTEN = "127.0.0.1:4672"
TIMEOUT = 10.0


class Unreachable(click.ClickException):
    """Nothing answers where the node's API should be."""


class Client:
    """The API of one node at a base URL (``http://127.0.0.1:4672``). Raises ``click.ClickException``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._opener = build_opener(ProxyHandler({}))  # the node is here: no proxy of the environment is asked

    @property
    def place(self) -> str:
        return self.url.partition("://")[2]

    def get(self, path: str, **query: int) -> Any:
        pairs = "&".join(f"{name}={value}" for name, value in query.items())
        return self._ask("GET", path + (f"?{pairs}" if pairs else ""))

    def post(self, path: str) -> Any:
        return self._ask("POST", path)

    def _ask(self, method: str, path: str) -> Any:
        try:
            request = Request(
                self.url + quote(path, safe="/:?=&[]"), method=method, data=b"" if method == "POST" else None
            )
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return json.loads(response.read())
        except HTTPError as exc:
            with exc:
                raise click.ClickException(_refusal(exc.read(), f"{self.place} answered HTTP {exc.code}")) from None
        except OSError as exc:
            if "timed out" in str(exc):
                mend = "the node is stuck or overloaded (systemctl status anycastlb)"
                raise click.ClickException(f"no answer from {self.place} within {TIMEOUT:.0f} s: {mend}") from None
            raise Unreachable(
                f"cannot reach anycastlb at {self.place}: is `anycastlb run` running? (systemctl status anycastlb)"
            ) from None
        except (ValueError, HTTPException) as exc:
            told = str(exc) or type(exc).__name__
            raise click.ClickException(
                f"{self.place} does not answer as anycastlb does ({told}): check --api"
            ) from None


def _refusal(body: bytes, otherwise: str) -> str:
    """An error of the API in one line."""
    try:
        error = json.loads(body)["error"]
        what, mend = str(error["what"]), str(error["mend"])
        expected = str(error["expected"])
    except (ValueError, KeyError, TypeError):
        return f"{otherwise}: check --api"
    told = f"{what} (expected {expected})" if expected else what
    return f"{told}: {mend}" if mend else told


def connect(config: str | None, api: str | None) -> Client:
    """The client for ``--api``, else for the ``[api] listen`` of the node settings."""
    if api:
        return Client(api if "://" in api else f"http://{api}")
    return Client(f"http://{_dialled(_listen(config))}")


def _listen(config: str | None) -> str:
    """``[api] listen`` as it stands in the file. A fault elsewhere in node.toml must not hide a running node."""
    path = Path(config or CONFIG)
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if config:
            raise click.ClickException(f"{path} does not exist: give --config FILE or --api ADDRESS:PORT") from None
        return LISTEN
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"{path} cannot be read ({exc}): run `anycastlb validate {path}`") from None
    section = document.get("api", {})
    listen = section.get("listen", LISTEN) if isinstance(section, dict) else None
    if not isinstance(listen, str):
        raise click.ClickException(f"{path}: [api] listen is no address and port: run `anycastlb validate {path}`")
    return listen


def _dialled(listen: str) -> str:
    """Where to connect for a listening address: every address means the loopback."""
    found = re.fullmatch(r"\s*(\[[^\]]*\]|[^:]*):(\d+)\s*", listen)
    if not found:
        return listen
    everywhere = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{everywhere.get(found[1], found[1])}:{found[2]}"
