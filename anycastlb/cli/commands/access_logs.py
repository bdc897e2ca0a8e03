"""``anycastlb simulate --log``: which requests of access logs would go elsewhere. Nothing is asked here but files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import click

from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import terminal
from anycastlb.cli.options import dump
from anycastlb.cli.render.style import BOLD, DIM, WARN, Line, count
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.http.access_log import read_line
from anycastlb.core.http.request import Request
from anycastlb.core.http.simulate import Simulation, simulate
from anycastlb.core.model import Catalog, Entry, HttpRoute, Tree

Documents = Mapping[str, Any]


def show_moved(
    stored: Documents,
    kept: Documents,
    proposed: Documents,
    gateway: str | None,
    logs: tuple[str, ...],
    host: str,
    form: str,
) -> None:
    """Print it. ``kept``: the documents that are stored and stay unless ``proposed`` has others; None deletes one."""
    merged = {key: document for key, document in {**kept, **proposed}.items() if document is not None}
    before, after = _routes(stored), _routes(merged)
    lines = _Lines(logs, host)
    found = simulate(before, after, gateway or _only_gateway((*before, *after)), lines.requests())
    if form != "table":
        return dump({**_view(found), "unread": lines.unread, "without_host": lines.without_host}, form)
    if lines.without_host and not found.requests:
        raise click.ClickException("the log does not say the host of its requests: give it with --host")
    terminal.show([*_table(found), *_left_out(lines)])


def _routes(documents: Documents) -> tuple[HttpRoute, ...]:
    entries = {key: Entry(json.dumps(document).encode()) for key, document in documents.items()}
    return parse_catalog(Tree(entries), Catalog(), ANYWHERE, ANY_MARK, PARAMS).routes


def _only_gateway(routes: Iterable[HttpRoute]) -> str:
    """The gateway of all routes. Raises ``click.ClickException`` if there are several, or none."""
    names = sorted({name for route in routes for name in route.gateways})
    if len(names) == 1:
        return names[0]
    if not names:
        raise click.ClickException("there is no route, neither in the catalog nor in these files")
    raise click.ClickException(f"which gateway did these requests come to? Give --gateway: {', '.join(names)}")


class _Lines:
    """The lines of access logs, one by one, and how many could not be used."""

    def __init__(self, logs: tuple[str, ...], host: str) -> None:
        self._logs, self._host = logs, host
        self.unread = 0
        self.without_host = 0

    def requests(self) -> Iterator[Request]:
        for log in self._logs:
            try:
                with _opened(log) as file:
                    yield from self._of(file)
            except (OSError, EOFError) as exc:
                raise click.ClickException(f"{log} cannot be read: {getattr(exc, 'strerror', None) or exc}") from None

    def _of(self, file: IO[Any]) -> Iterator[Request]:
        for line in file:
            if not line.strip():
                continue
            request = read_line(line, self._host)
            if request is None:
                self.unread += 1
            elif not request.host:
                self.without_host += 1
            else:
                yield request


def _opened(log: str) -> IO[Any]:
    if log.endswith(".gz"):
        return gzip.open(log, "rt", errors="replace")
    return click.open_file(log, errors="replace")


def _view(found: Simulation) -> dict[str, Any]:
    return {
        "requests": found.requests,
        "moved": round(found.moved, 4),
        "by_rule": [
            {
                "before": one.before,
                "after": one.after,
                "requests": round(one.requests, 4),
                "example": _example(one.example),
            }
            for one in found.by_rule
        ],
    }


def _table(found: Simulation) -> list[Line]:
    share = found.moved / found.requests if found.requests else 0.0
    lines: list[Line] = [[(f"{share:.1%} of {count(found.requests, 'request')} would go elsewhere", BOLD)]]
    for one in found.by_rule:
        what = f"within {one.after}" if one.before == one.after else f"{one.before} → {one.after}"
        lines.append(
            [
                (f"{one.requests / found.requests:>6.1%}  ", WARN),
                (what, BOLD),
                (f"  such as {_example(one.example)}", DIM),
            ]
        )
    return lines


def _example(request: Request) -> str:
    return f"{request.method} {request.host}{request.path}" + (f"?{request.query}" if request.query else "")


def _left_out(lines: _Lines) -> list[Line]:
    texts = []
    if lines.unread:
        texts.append(f"{count(lines.unread, 'line')} left out: neither the combined log nor JSON")
    if lines.without_host:
        texts.append(f"{count(lines.without_host, 'line')} left out: without a host; give it with --host")
    return [[(text, DIM)] for text in texts]
