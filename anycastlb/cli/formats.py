"""The formats that ``import`` and ``convert`` read: our own dump, ``ipvsadm -Sn`` and ``keepalived.conf``.

The result is documents by key, each of which the catalog's own parser accepts, and notes on the rest.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.importers import Documents, UnreadableInput, ipvsadm, keepalived
from anycastlb.core.importers.keepalived_text import Include
from anycastlb.core.model import Catalog, Entry, Tree

Format: TypeAlias = Literal["auto", "anycastlb", "ipvsadm", "keepalived"]
FORMATS: tuple[Format, ...] = ("auto", "anycastlb", "ipvsadm", "keepalived")
MAX_BYTES = 64 * 1024 * 1024


def read(text: str, format: Format = "auto", include: Include | None = None) -> tuple[Documents, list[str]]:
    """The documents by key, and a line for everything that could not be carried over. Raises ``UnreadableInput``.

    Our own dump is returned as it is, since the node checks it when it is applied. ``include`` reads the files that a
    keepalived.conf includes.
    """
    kind = recognized(text) if format == "auto" else format
    if kind == "anycastlb":
        return _dump(text), []
    if kind == "ipvsadm":
        documents, notes = ipvsadm.convert(text, port_of)
    else:
        documents, notes = keepalived.convert(text, include)
    lines = [str(note) for note in notes] + _remove_refused(documents)
    return documents, lines + list(_without_flows(documents))


def recognized(text: str) -> Format:
    """The format of a text, by its first words. Raises ``UnreadableInput``."""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#!":
            continue
        if words[0][0] == "{":
            return "anycastlb"
        if re.fullmatch(r"(.*/)?ipvsadm|-[AaCEe]|--(add|edit)-(service|server)|--clear|--set", words[0]):
            return "ipvsadm"
        break
    if re.search(r"^\s*(virtual_server|virtual_server_group|vrrp_instance|global_defs|include)\b", text, re.MULTILINE):
        return "keepalived"
    raise UnreadableInput(
        0,
        "expected a dump (`anycastlb export`), the output of `ipvsadm -Sn` or a keepalived.conf; say which with --from",
    )


def load(path: str) -> str:
    """The text of a file, or of standard input for ``-``. Raises ``UnreadableInput``."""
    try:
        with click.open_file(path, "rb") as file:
            data: bytes = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OSError(f"it has more than {MAX_BYTES} bytes")
        return data.decode()
    except (OSError, ValueError) as exc:
        cause = getattr(exc, "strerror", None) or exc
        raise UnreadableInput(0, f"{path}: expected a text that can be read: {cause}") from exc


def beside(path: str) -> Include:
    """A function that reads what a keepalived.conf includes. Patterns are relative to its directory."""
    folder = Path(path).parent if path != "-" else Path()

    def include(pattern: str) -> Sequence[tuple[str, str]]:
        absolute = Path(pattern).is_absolute()
        root, inside = (Path("/"), pattern.lstrip("/")) if absolute else (folder, pattern)
        try:
            files = [file for file in sorted(root.glob(inside)) if file.is_file()]
        except (ValueError, NotImplementedError, OSError):
            files = []
        if not files:
            raise UnreadableInput(0, f"include {pattern:.200}: expected a file that can be read")
        return [(str(file), load(str(file))) for file in files]

    return include


def port_of(name: str, protocol: str) -> int | None:
    """A port by its name in this system's services file."""
    try:
        return socket.getservbyname(name, protocol)
    except (OSError, ValueError):
        return None


def _dump(text: str) -> Documents:
    try:
        dump = read_json(text, MAX_BULK)
    except ValueError as exc:
        raise UnreadableInput(getattr(exc, "lineno", 0), f"expected JSON: {exc}") from exc
    inner = dump.get("catalog", dump) if isinstance(dump, dict) else None
    if not isinstance(inner, dict) or not all(isinstance(value, dict) for value in inner.values()):
        raise UnreadableInput(0, 'expected documents by key, as {"catalog": {"services/web": {...}}}')
    return inner


def _remove_refused(documents: Documents) -> list[str]:
    """Remove the documents that the catalog's parser refuses, and return the reasons."""
    lines: list[str] = []
    while bad := _problems(documents):
        for key, reasons in bad.items():
            del documents[key]
            lines += [f"{key} is left out: {reason}" for reason in reasons]
    return lines


def _without_flows(documents: Documents) -> Iterator[str]:
    """A line for each backend that would get no flows: backends of the VIP's own family are preferred."""
    for key, document in documents.items():
        vips = document["vip"] if isinstance(document["vip"], list) else [document["vip"]]
        served = {":" in vip for vip in vips}
        families = {name: ":" in backend["address"] for name, backend in document["backends"].items()}
        if served & set(families.values()):
            for name in (name for name, family in families.items() if family not in served):
                yield f"{key}: {name} gets nothing: a VIP is served by the backends of its own family, if it has any"


def _problems(documents: Documents) -> dict[str, list[str]]:
    tree = Tree({key: Entry(json.dumps(value).encode(), origin=key) for key, value in documents.items()})
    reasons: dict[str, list[str]] = {}
    for problem in parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS).problems:
        key = next((key for key in documents if problem.key == key), None)
        if key is not None:
            reasons.setdefault(key, []).append(f"{problem.path}: {problem.expected}")
    return reasons


def dumped(documents: Documents) -> dict[str, Any]:
    """The shape of ``GET /v1/export``."""
    return {"catalog": documents}
