"""``anycastlb validate``: report every problem in node settings and documents at once, each with its line.

The files are read with the parsers that the daemon uses. No node is asked, and nothing is changed.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from anycastlb.adapters.checks import PARAMS, parameters, types
from anycastlb.adapters.sources.file import SUFFIXES, FileSource
from anycastlb.cli.commands.lone_routes import lone_routes, without_routes
from anycastlb.cli.files import FOLDERS, key_of
from anycastlb.cli.formats import MAX_BYTES
from anycastlb.cli.line_numbers import line_of
from anycastlb.cli.settings_file import load, parsed
from anycastlb.core.catalog import decode
from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.catalog.notices import service_notices
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.decision import flow_takeover
from anycastlb.core.model import Catalog, Entry, Problem, Service, SettingsError, SourceError, Tree
from anycastlb.settings import ChecksSettings, Settings

Given: TypeAlias = tuple[Tree, str, bool]
"""A tree, what is put before its keys in a message, and whether all that its routes refer to must be in it."""
SECTIONS = re.compile(r"^\s*\[\s*(node|catalog|consul|bgp|api|ipvs|checks|log)\s*\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What was checked, in the order given, and every problem of it."""

    fine: tuple[str, ...]
    """One line for each thing without a problem."""
    problems: tuple[Problem, ...]
    notices: tuple[Problem, ...] = ()
    """What is allowed, but will surprise its owner one day."""


def validate_files(names: Iterable[str], config: str | None = None) -> ValidationReport:
    """Check files and directories together. VIPs must lie in the ranges of the settings among them or of ``config``."""
    paths = [Path(name) for name in names]
    folders = [path for path in paths if path.is_dir()]
    texts, problems = _texts([path for path in paths if not path.is_dir()])
    fine: list[str] = []
    notices: list[Problem] = []
    nodes: list[Settings] = []
    for path in [path for path, text in texts.items() if _is_settings(path, text)]:
        try:
            nodes.append(parsed(texts.pop(path), str(path)))
            fine.append(f"{path}: fine, settings of node {nodes[-1].node.name}")
        except SettingsError as exc:
            problems += exc.problems
    if not nodes and config:
        nodes.append(load(config))
    ranges = tuple(network for one in nodes for network in one.node.vip_ranges) or ANYWHERE
    kinds = parameters(types(_allowed(nodes))) if nodes else PARAMS
    marks = tuple(mark for one in nodes for mark in one.node.fwmark_ranges) if nodes else ANY_MARK
    for tree, shown, whole in [*_trees(folders, problems), *_loose(texts, problems)]:
        result = parse_catalog(tree if whole else without_routes(tree), Catalog(), ranges, marks, kinds)
        if not whole:
            routes = lone_routes(tree, result)
            problems += [_placed(problem, tree, shown) for problem in routes.problems]
            notices += [_placed(notice, tree, shown) for notice in routes.notices]
        problems += [_placed(problem, tree, shown) for problem in result.problems]
        problems += [_placed(problem, tree, shown) for problem in _unsynced(result, nodes)]
        notices += [_placed(notice, tree, shown) for notice in (*_notices(result), *_flows(result, nodes))]
        if whole or not any(key.startswith("routes/") for key in tree.entries):
            notices += [_placed(notice, tree, shown) for notice in _idle_pools(result)]
        bad = {problem.key for problem in problems}
        for key, entry in tree.entries.items():
            if (at := shown + (entry.origin or key)) not in bad:
                fine.append(f"{at}: fine, {key}" if entry.origin else f"{at}: fine")
    return ValidationReport(tuple(fine), tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notices)))


def _notices(catalog: Catalog) -> Iterator[Problem]:
    for service in catalog.services:
        if service.backends_from is not None:
            continue  # the number of backends is known only after discovery
        key = f"services/{service.name}"
        for path, text in service_notices(service):
            yield Problem(catalog.good[key].origin or key, path, text)


def _idle_pools(catalog: Catalog) -> Iterator[Problem]:
    """Notices about pools that no route names, as one that lacks its VIP by mistake."""
    used = {name for route in catalog.routes for name in route.pools()}
    for pool in catalog.pools:
        if pool.name not in used:
            text = "missing: without one it is a pool of the HTTP tier, to which no route here sends requests"
            yield Problem(_document(catalog, pool), "vip", text)


def _flows(catalog: Catalog, nodes: list[Settings]) -> Iterator[Problem]:
    """Notices about flows that another node cannot take over, and about flows that the nodes' time-outs end."""
    sync = bool(nodes) and all(node.ipvs.sync_interface for node in nodes)
    timeouts = [node.ipvs.tcp_timeout for node in nodes if node.ipvs.tcp_timeout is not None]
    for service in catalog.services:
        for warning in (
            flow_takeover.warning(service, sync),
            flow_takeover.timeout_warning(service, min(timeouts, default=None)),
        ):
            if warning:
                yield Problem(_document(catalog, service), warning.object, warning.text)


def _unsynced(catalog: Catalog, nodes: list[Settings]) -> Iterator[Problem]:
    """Services that the kernel refuses while connection sync runs."""
    if not any(node.ipvs.sync_interface for node in nodes):
        return
    for service in catalog.services:
        if vip := flow_takeover.mixed_warning(service):
            expected = (
                f"expected IPv{vip.version} backends for VIP {vip}: with connection sync on ([ipvs] sync_interface), "
                "the kernel takes no backend of another address family"
            )
            yield Problem(_document(catalog, service), "backends", expected)


def _document(catalog: Catalog, service: Service) -> str:
    key = f"services/{service.name}"
    return catalog.good[key].origin or key


def _allowed(nodes: Iterable[Settings]) -> ChecksSettings:
    """The settings of a node that allows its checks whatever at least one of these nodes allows."""
    return ChecksSettings(commands=tuple(program for node in nodes for program in node.checks.commands))


def _texts(paths: list[Path]) -> tuple[dict[Path, str], list[Problem]]:
    texts, problems = {}, []
    for path in paths:
        try:
            if path.stat().st_size > MAX_BYTES:
                raise OSError(f"it has more than {MAX_BYTES} bytes")
            texts[path] = path.read_text()
        except UnicodeDecodeError:
            problems.append(Problem(str(path), "", "expected text in UTF-8"))
        except OSError as exc:
            problems.append(Problem(str(path), "", f"expected a file that can be read: {exc.strerror or exc}"))
    return texts, problems


def _is_settings(path: Path, text: str) -> bool:
    """Is it node settings, by its name or its tables? A TOML file with neither is a service document."""
    return path.name == "node.toml" or (path.suffix == ".toml" and bool(SECTIONS.search(text)))


def _trees(folders: list[Path], problems: list[Problem]) -> list[Given]:
    """Each directory is a catalog of its own. One that holds only documents is taken as its ``services``."""
    trees: list[Given] = []
    for folder in folders:
        if not any((folder / name).exists() for name in (*FOLDERS, "drain", *(f"defaults{end}" for end in SUFFIXES))):
            texts, unread = _texts(sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES))
            problems += unread
            services = {path: text for path, text in texts.items() if not _is_settings(path, text)}
            trees += _loose(services, problems)
            if not services:
                problems.append(
                    Problem(str(folder), "", "expected a catalog: a directory with services/<service>.json")
                )
            continue
        try:
            trees.append((asyncio.run(FileSource(folder).read(None)), f"{folder}/", True))
        except SourceError as exc:
            problems.append(Problem(str(folder), "", str(exc)))
    return trees


def _loose(texts: Mapping[Path, str], problems: list[Problem]) -> list[Given]:
    """Documents that were given one by one. Those of one directory are one catalog, each named by its file, and so are
    those of ``services``, ``gateways`` and ``routes`` side by side; a dump, as ``anycastlb export`` and ``convert``
    write it, is a catalog by itself."""
    trees: dict[Path, dict[str, Entry]] = {}
    dumps: list[Given] = []
    for path, text in texts.items():
        if path.suffix == ".json" and (documents := _dump(text)) is not None:
            dumped = {key: Entry(json.dumps(document).encode()) for key, document in documents.items()}
            dumps.append((Tree(dumped), f"{path}: ", not _by_elb(documents)))
            continue
        if path.suffix not in SUFFIXES:
            problems.append(
                Problem(str(path), "", f"expected a file that ends in {', '.join(SUFFIXES)}, or a directory")
            )
            continue
        entry = Entry(text.encode(), format=SUFFIXES[path.suffix], origin=str(path))
        key = _key(path, entry)
        entries = trees.setdefault(path.parent.parent if path.parent.name in FOLDERS else path.parent, {})
        if key in entries:
            problems.append(
                Problem(str(path), "", f"expected one document for {key}; {entries[key].origin} is another")
            )
            continue
        entries[key] = entry
    return [*dumps, *((Tree(entries), "", False) for entries in trees.values())]


def _key(path: Path, entry: Entry) -> str:
    try:
        return key_of(path, decode.document(str(path), entry))
    except decode.MalformedDocument:
        return key_of(path, {})


def _by_elb(documents: Mapping[str, Any]) -> bool:
    """Does it come from ELB, which has routes and no gateways?"""
    return any(key.startswith("routes/") for key in documents) and not any(
        key.startswith("gateways/") for key in documents
    )


def _dump(text: str) -> dict[str, Any] | None:
    """The documents of a dump, by key; None for any other text."""
    try:
        document = read_json(text, MAX_BULK)
    except ValueError:
        return None
    documents = document.get("catalog") if isinstance(document, dict) and len(document) == 1 else None
    return documents if isinstance(documents, dict) else None


def _placed(problem: Problem, tree: Tree, shown: str) -> Problem:
    """The problem with the full name of its file, and its line."""
    entry = next((entry for key, entry in tree.entries.items() if problem.key in (entry.origin, key)), None)
    line = problem.line
    if entry and entry.origin and not line:
        line = line_of(entry.value.decode(errors="replace"), entry.format, problem.path, problem.expected)
    return replace(problem, key=shown + problem.key, line=line)
