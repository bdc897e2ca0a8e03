"""``anycastlb events`` and ``status --watch``: what goes on until it is interrupted."""

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


def show_events(where: Location, after: int, last: int | None, follow: bool, form: str) -> None:
    """Print events above ``after``, of those kept at most the ``last``; with ``follow`` for ever."""
    print_ = _printer(form)

    async def tell(lb: Any) -> None:
        kept = [event async for event in lb.events(after=after)]
        shown = kept if last is None else kept[len(kept) - min(last, len(kept)) :]
        print_(shown)
        if follow:
            newest = max((event["id"] for event in kept), default=after)
            async for event in lb.events(after=newest, follow=True, lost=_lost):
                print_([event])

    ask(where, tell)


def _printer(form: str) -> Callable[[list[Any]], None]:
    def show(found: list[Any]) -> None:
        for event in found:
            if form == "json":
                sys.stdout.write(json.dumps(event) + "\n")
            elif form == "yaml":
                sys.stdout.write("---\n" + dumped(event, "yaml"))
        if form == "table":
            terminal.show(why.events({"events": found}))
        sys.stdout.flush()

    return show


def _lost(exc: Exception) -> None:
    click.echo(f"Waiting: {line(str(exc))}", err=True)


def watch(where: Location, every: float, picture: Callable[[dict[str, Any], int], list[style.Line]]) -> None:
    """The picture again and again: in place on a terminal, else one below the other."""

    async def look(lb: Any, show: Callable[[list[style.Line]], None]) -> None:
        view = await lb.status()  # the first must succeed
        while True:
            show(picture(view, terminal.width()))
            await asyncio.sleep(every)
            try:
                view = await lb.status()
            except (Unreachable, NoAnswer, Unavailable) as exc:
                show([*picture(view, terminal.width()), [], [(f"! {exc}", style.BAD)]])

    if not terminal.coloured():
        return ask(where, lambda lb: look(lb, _below))
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(highlight=False), screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        ask(where, lambda lb: look(lb, lambda lines: live.update(terminal.text(lines), refresh=True)))


def _below(lines: list[style.Line]) -> None:
    terminal.show([*lines, []])
    sys.stdout.flush()
