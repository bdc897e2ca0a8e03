"""Read files into documents of the catalog by key (``services/web``). No node is asked.

Our own forms are read here: a dump, one document, or a directory of documents. ``formats`` reads the configuration of
other programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from anycastlb.cli.options import print_errors

Documents = dict[str, Any]
FROM = ("auto", "anycastlb", "ipvsadm", "keepalived", "elb", "kglb", "gorb")
"""The programs that may have written a file; ``auto`` recognises them by the text."""
FOLDERS = ("services", "gateways", "routes")
"""Those of a catalog directory that hold documents."""


def gather_files(files: Iterable[str], kind: str, gateway: str = "web") -> Documents:
    """The documents of all the files. What could not be carried over is printed on standard error. ``gateway``: the
    name of the one that ELB's routes are for.

    Raises ``click.ClickException``, and ``SettingsError`` with every problem of our own documents.
    """
    catalog: Documents = {}
    for path in files:
        documents, lost = read(path, kind, gateway)
        print_errors(f"not carried over: {text}" for text in lost)
        if twice := sorted(set(catalog) & set(documents)):
            raise click.ClickException(f"{path}: {twice[0]} stands in another of the files too")
        catalog |= documents
    return catalog


def read(path: str, kind: str, gateway: str = "web") -> tuple[Documents, list[str]]:
    """The documents in a file (``-``: standard input), and one line for each thing that could not be carried over."""
    from anycastlb.adapters.sources.file import SUFFIXES
    from anycastlb.cli import formats

    if kind == "anycastlb" or (kind == "auto" and Path(path).is_dir()):
        return own(path), []
    if kind == "auto" and Path(path).suffix in SUFFIXES:
        foreign = formats.foreign(_text(path))
        if foreign is None:
            return own(path), []
        kind = foreign
    include = formats.beside(path)
    return formats.read(formats.load(path), kind, include, gateway)  # type: ignore[arg-type,unused-ignore]


def key_of(path: str | Path, document: Mapping[str, Any]) -> str:
    """The key of a document that is a file by itself: of its folder or its fields, and the name of the file."""
    name, folder = Path(path).stem, Path(path).parent.name
    if name == "defaults":
        return name
    if folder in FOLDERS:
        return f"{folder}/{name}"
    if "gateways" in document:
        return f"routes/{name}"
    return f"{'gateways' if document.get('protocol') in ('http', 'https') else 'services'}/{name}"


def read_document(path: str) -> Documents:
    """The one document in a file. Raises ``click.ClickException`` or ``SettingsError``."""
    return _decoded(path, _text(path))


def own(path: str) -> Documents:
    """Our own forms: a dump as ``export`` writes it, one document named by its file, or a directory of them."""
    if path != "-" and Path(path).is_dir():
        return _directory(Path(path))
    text = _text(path)
    document = _decoded(path, text)
    if isinstance(document.get("catalog"), dict):
        return dict(document["catalog"])
    key = key_of(path, document)
    if path == "-" or not (key == "defaults" or {"vip", "backends", "check", "balance", "gateways"} & set(document)):
        expected = "expected a dump that `anycastlb export` wrote, or the document of a service, gateway or route"
        raise click.ClickException(f"{path}: {expected}")
    return {key: document}


def _text(path: str) -> str:
    import sys

    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"{path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from None


def _decoded(path: str, text: str) -> dict[str, Any]:
    """The object in a text: JSON, YAML or TOML by the file's name. Standard input may be JSON or YAML."""
    from anycastlb.adapters.sources.file import SUFFIXES
    from anycastlb.core.catalog import bounds, decode
    from anycastlb.core.model import Entry, SettingsError

    form = SUFFIXES.get(Path(path).suffix, "yaml")
    if len(text) > bounds.MAX_BYTES and form == "json":
        try:
            dump = bounds.read_json(text, bounds.MAX_BULK)  # a dump may be larger than any one document
        except ValueError as exc:
            raise click.ClickException(f"{path}: expected JSON: {exc}") from None
        if isinstance(dump, dict):
            return dump
    try:
        return decode.document(path, Entry(text.encode(), format=form, origin=path))
    except decode.MalformedDocument as exc:
        raise SettingsError(exc.problems) from None


def _directory(folder: Path) -> Documents:
    """A catalog directory as the file source reads it. One that holds only documents is taken as its ``services``."""
    import asyncio

    from anycastlb.adapters.sources.file import SUFFIXES, FileSource
    from anycastlb.core.catalog import decode
    from anycastlb.core.model import Problem, SettingsError, SourceError

    if not any((folder / kind).is_dir() for kind in FOLDERS):
        files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name != "node.toml")
        if not files:
            raise click.ClickException(f"{folder}: expected a directory with services/<service>.json")
        return {key: document for path in files for key, document in own(str(path)).items()}
    try:
        tree = asyncio.run(FileSource(folder).read(None))
    except SourceError as exc:
        raise click.ClickException(str(exc)) from None
    documents: Documents = {}
    problems: list[Problem] = []
    for key, entry in tree.entries.items():
        parts = key.split("/")
        try:
            if parts[2:3] == ["backends"]:
                documents[key] = decode.backend_document(key, parts[-1], entry)
            elif parts[0] != "drain":  # a dump does not say which nodes are drained
                documents[key] = decode.document(key, entry)
        except decode.MalformedDocument as exc:
            problems += exc.problems
    if problems:
        raise SettingsError(tuple(problems))
    return documents
