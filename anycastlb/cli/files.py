"""Read files into documents of the catalog by key (``services/web``). No node is asked.

Our own forms are read here: a dump, one document, or a directory of documents. ``formats`` reads the configuration of
other programs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from anycastlb.cli.options import print_errors

Documents = dict[str, Any]
FROM = ("auto", "anycastlb", "ipvsadm", "keepalived")
"""The programs that may have written a file; ``auto`` recognises them by the text."""


def gather_files(files: Iterable[str], kind: str) -> Documents:
    """The documents of all the files. What could not be carried over is printed on standard error.

    Raises ``click.ClickException``, and ``SettingsError`` with every problem of our own documents.
    """
    catalog: Documents = {}
    for path in files:
        documents, lost = read(path, kind)
        print_errors(f"not carried over: {text}" for text in lost)
        if twice := sorted(set(catalog) & set(documents)):
            raise click.ClickException(f"{path}: {twice[0]} stands in another of the files too")
        catalog |= documents
    return catalog


def read(path: str, kind: str) -> tuple[Documents, list[str]]:
    """The documents in a file (``-``: standard input), and one line for each thing that could not be carried over."""
    from anycastlb.adapters.sources.file import SUFFIXES
    from anycastlb.cli import formats

    if kind == "anycastlb" or (kind == "auto" and (Path(path).is_dir() or Path(path).suffix in SUFFIXES)):
        return own(path), []
    return formats.read(formats.load(path), kind, formats.beside(path))  # type: ignore[arg-type,unused-ignore]


def own(path: str) -> Documents:
    """Our own forms: a dump as ``export`` writes it, one document named by its file, or a directory of them."""
    if path != "-" and Path(path).is_dir():
        return _directory(Path(path))
    text = _text(path)
    document = _decoded(path, text)
    if isinstance(document.get("catalog"), dict):
        return dict(document["catalog"])
    name = Path(path).stem
    if path == "-" or not ({"vip", "backends", "check"} & set(document) or name == "defaults"):
        raise click.ClickException(f"{path}: expected a dump that `anycastlb export` wrote, or a service document")
    return {"defaults" if name == "defaults" else f"services/{name}": document}


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

    if not (folder / "services").is_dir():
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
