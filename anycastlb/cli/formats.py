"""The formats that ``import`` and ``convert`` read: our own dump, ``ipvsadm -Sn``, ``keepalived.conf``, ELB's etcd, the
configuration of KgLb, and GORB's store.

The result is documents by key, each of which the catalog's own parser accepts, and notes on the rest.
"""

from __future__ import annotations

import glob
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import click

from anycastlb.adapters.checks import PARAMS
from anycastlb.adapters.sources.staging import MAX_DOCUMENT
from anycastlb.core.catalog.bounds import MAX_BULK, read_json
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.importers import Documents, UnreadableInput, elb, gorb_store, ipvsadm, keepalived, kglb
from anycastlb.core.importers.keepalived_text import Include
from anycastlb.core.model import EMPTY, Catalog, Entry, Tree

Format: TypeAlias = Literal["auto", "anycastlb", "ipvsadm", "keepalived", "elb", "kglb", "gorb"]
FORMATS: tuple[Format, ...] = get_args(Format)
FOREIGN: Mapping[Format, re.Pattern[str]] = {
    "elb": re.compile(r'\s*\{\s*"action"\s*:\s*"get"\s*,\s*"node"\s*:'),
    "kglb": re.compile(r'\s*\{\s*"balancers"\s*:\s*\['),
    "gorb": re.compile(r'\s*\[\s*\{\s*"key"\s*:'),
}
"""How the JSON of other programs begins: the answer of etcd's v2 API, KgLb's configuration, an export from Consul."""
LISTENER = {"vip": "192.0.2.1", "port": 80, "protocol": "http"}
"""Any gateway would do: it stands for the one that routes of ELB are meant for."""
MAX_BYTES = 64 * 1024 * 1024
MAX_ALTERNATIVES = 1000
"""Of the braces in one pattern of files."""
BRACES = re.compile(r"\{([^{},]*,[^{}]*)\}")


def read(
    text: str, format: Format = "auto", include: Include | None = None, gateway: str = "web"
) -> tuple[Documents, list[str]]:
    """The documents by key, and a line for everything that could not be carried over. Raises ``UnreadableInput``.

    Our own dump is returned as it is, since the node checks it when it is applied. ``include`` reads the files that a
    keepalived.conf includes. ``gateway``: the name of the one that ELB's routes are for.
    """
    kind = recognized(text) if format == "auto" else format
    if kind == "anycastlb":
        return _dump(text), []
    if kind in ("elb", "gorb"):
        documents, notes = gorb_store.convert(text) if kind == "gorb" else elb.convert(text, gateway)
        beside = EMPTY if kind == "gorb" else {f"gateways/{gateway}": LISTENER}
        return documents, [str(note) for note in notes] + _remove_refused(documents, beside)
    if kind == "ipvsadm":
        documents, notes = ipvsadm.convert(text, port_of)
    elif kind == "kglb":
        documents, notes = kglb.convert(text)
    else:
        documents, notes = keepalived.convert(text, include)
    divided = _divided(documents)
    lines = [str(note) for note in notes] + _remove_refused(divided)
    kept = {key: document for key, document in documents.items() if key in divided}
    return divided, [*lines, *_without_flows(kept), *_of_the_machine(kept)]


def recognized(text: str) -> Format:
    """The format of a text, by its first words. Raises ``UnreadableInput``."""
    if kind := foreign(text):
        return kind
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#!":
            continue
        if words[0][0] == "{":
            return "anycastlb"
        if re.fullmatch(r"(.*/)?ipvsadm|-[AaCEe]|--(add|edit)-(service|server)|--clear|--set", words[0]):
            return "ipvsadm"
        break
    if re.search(
        r"^[^\S\n]*(virtual_server|virtual_server_group|vrrp_instance|global_defs|include)\b", text, re.MULTILINE
    ):
        return "keepalived"
    raise UnreadableInput(
        0,
        "expected a dump (`anycastlb export`), the output of `ipvsadm -Sn`, a keepalived.conf, ELB's etcd, KgLb's "
        "configuration or GORB's store; say which with --from",
    )


def foreign(text: str) -> Format | None:
    """The program that wrote a text of JSON, by its beginning; None: it may be ours."""
    return next((kind for kind, beginning in FOREIGN.items() if beginning.match(text)), None)


def load(path: str) -> str:
    """The text of a file, or of standard input for ``-``. Raises ``UnreadableInput``."""
    try:
        with click.open_file(path, "rb") as file:
            data: bytes = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OSError(f"it has more than {MAX_BYTES} bytes")
        return data.decode("utf-8-sig")  # editors of Windows begin a file with a mark
    except (OSError, ValueError) as exc:
        cause = getattr(exc, "strerror", None) or exc
        raise UnreadableInput(0, f"{path}: expected a text that can be read: {cause}") from exc


def beside(path: str) -> Include:
    """A function that reads what a keepalived.conf includes. Patterns are those of glob(3), with braces, and relative
    to the directory of the file that has them."""

    def include(pattern: str, name: str) -> Sequence[tuple[str, str]]:
        folder = Path(name or path).parent if name or path != "-" else Path()
        try:
            # pathlib would also find files that begin with a dot, such as an editor's
            found = [sorted(glob.glob(one, root_dir=folder)) for one in _alternatives(pattern)]  # noqa: PTH207
            names = [name for some in found for name in some]
        except (ValueError, OSError):
            names = []
        files = [folder / name for name in names if (folder / name).is_file()]
        if not files:
            raise UnreadableInput(0, f"include {pattern:.200}: expected a file that can be read")
        return [(str(file), load(str(file))) for file in files]

    return include


def _alternatives(pattern: str) -> list[str]:
    """``a{b,c}`` -> ``ab``, ``ac``. Raises ValueError for too many."""
    done, waiting = list[str](), [pattern]
    while waiting:
        one = waiting.pop(0)
        if match := BRACES.search(one):
            waiting[:0] = [one[: match.start()] + word + one[match.end() :] for word in match[1].split(",")]
        else:
            done.append(one)
        if len(done) + len(waiting) > MAX_ALTERNATIVES:
            raise ValueError(f"more than {MAX_ALTERNATIVES} alternatives")
    return done


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


def _remove_refused(documents: Documents, beside: Mapping[str, Any] = EMPTY) -> list[str]:
    """Remove the documents that the catalog's parser refuses, and return the reasons. ``beside``: others that they
    refer to."""
    lines: list[str] = []
    while bad := _problems(documents, beside):
        for key in [key for key in documents if key in bad or key.partition("/backends/")[0] in bad]:
            del documents[key]
        lines += [f"{key} is left out: {reason}" for key, reasons in bad.items() for reason in reasons]
    return lines


def _divided(documents: Documents) -> Documents:
    """With a key for each backend of a service that cannot stand in one document."""
    refused = _problems(documents, EMPTY)
    made: Documents = {}
    for key, document in documents.items():
        if key in refused or len(json.dumps(document).encode()) > MAX_DOCUMENT:
            made[key] = {name: value for name, value in document.items() if name != "backends"}
            made |= {f"{key}/backends/{name}": backend for name, backend in document["backends"].items()}
        else:
            made[key] = document
    return made


def _without_flows(documents: Documents) -> Iterator[str]:
    """A line for each backend that would get no flows: backends of the VIP's own family are preferred."""
    for key, document in documents.items():
        vips = document["vip"] if isinstance(document["vip"], list) else [document["vip"]]
        served = {":" in vip for vip in vips}
        families = {name: ":" in backend["address"] for name, backend in document["backends"].items()}
        if served & set(families.values()):
            for name in (name for name, family in families.items() if family not in served):
                yield f"{key}: {name} gets nothing: a VIP is served by the backends of its own family, if it has any"


def _of_the_machine(documents: Documents) -> Iterator[str]:
    """A line for each backend that was the balancer itself: it and its check are another machine's on every node."""
    for key, document in documents.items():
        vips = set(document["vip"] if isinstance(document["vip"], list) else [document["vip"]])
        for name, backend in document["backends"].items():
            if backend["address"] in vips or ip_address(backend["address"]).is_loopback:
                yield f"{key}: {name} is the balancer itself, so on each node another machine: is it served there?"


def _problems(documents: Documents, beside: Mapping[str, Any]) -> dict[str, list[str]]:
    whole = {**beside, **documents}
    tree = Tree({key: Entry(json.dumps(value).encode(), origin=key) for key, value in whole.items()})
    reasons: dict[str, list[str]] = {}
    for problem in parse_catalog(tree, Catalog(), ANYWHERE, ANY_MARK, PARAMS).problems:
        if problem.key in documents:
            reasons.setdefault(problem.key, []).append(f"{problem.path}: {problem.expected}")
    return reasons


def dumped(documents: Documents) -> dict[str, Any]:
    """The shape of ``GET /v1/export``."""
    return {"catalog": documents}
