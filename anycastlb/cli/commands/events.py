"""``anycastlb events`` and ``status --watch``: commands that go on until they are interrupted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import click

from anycastlb.cli import terminal
from anycastlb.cli.ask import ask
from anycastlb.cli.location import Location
from anycastlb.cli.options import dumped, line
from anycastlb.cli.render import style, why
from anycastlb.client import NoAnswer, Unavailable, Unreachable


def show_events(location: Location, after: int, last: int | None, follow: bool, form: str) -> None:
    """Print the events above ``after``, at most the ``last`` of them; with ``follow``, also all that come."""
    print_ = _printer(form)

    async def read(lb: Any) -> None:
        kept = [event async for event in lb.events(after=after)]
        shown = kept if last is None else kept[len(kept) - min(last, len(kept)) :]
        print_(shown)
        if follow:
            newest = max((event["id"] for event in kept), default=after)
            async for event in lb.events(after=newest, follow=True, lost=_lost):
                print_([event])

    ask(location, read)


def _printer(form: str) -> Callable[[list[Any]], None]:
    def show(events: list[Any]) -> None:
        for event in events:
            if form == "json":
                sys.stdout.write(json.dumps(event) + "\n")
            elif form == "yaml":
                sys.stdout.write("---\n" + dumped(event, "yaml"))
        if form == "table":
            terminal.show(why.events({"events": events}))
        sys.stdout.flush()

    return show


def _lost(exc: Exception) -> None:
    click.echo(f"Waiting: {line(str(exc))}", err=True)


def watch_status(location: Location, every: float, render: Callable[[dict[str, Any], int], list[style.Line]]) -> None:
    """Show the status again and again: in place on a terminal, else one below the other."""

    async def repeat(lb: Any, show: Callable[[list[style.Line]], None]) -> None:
        view = await lb.status()  # the first request must succeed
        while True:
            show(render(view, terminal.width()))
            await asyncio.sleep(every)
            try:
                view = await lb.status()
            except (Unreachable, NoAnswer, Unavailable) as exc:
                show([*render(view, terminal.width()), [], [(f"! {exc}", style.BAD)]])

    if not terminal.coloured():
        return ask(location, lambda lb: repeat(lb, _below))
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        ask(location, lambda lb: repeat(lb, lambda lines: live.update(terminal.text(lines), refresh=True)))


def _below(lines: list[style.Line]) -> None:
    terminal.show([*lines, []])
    sys.stdout.flush()
