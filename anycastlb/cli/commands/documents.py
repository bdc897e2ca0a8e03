"""What ``gateway`` and ``route`` have in common: to show, replace, edit and delete one document."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click

from anycastlb.cli import edits, ipvsadm_options, writing
from anycastlb.cli.commands.complete import Complete
from anycastlb.cli.location import Location
from anycastlb.cli.options import confirm_or_stop, dumped, node, output

Fields = dict[str, Any]
Call = Callable[..., Any]


def add_commands(group: click.Group, noun: str, names: Complete) -> None:
    """Add ``show``, ``put`` and ``del``. ``names`` completes the name of a document."""

    @group.command()
    @click.argument("name", metavar=noun.upper(), shell_complete=names)
    @output
    @node
    def show(location: Location, name: str, form: str) -> None:
        from anycastlb.cli.ask import ask

        document = dict(ask(location, lambda lb: _call(lb, "", noun)(name)))
        click.echo(dumped(document, "yaml" if form == "table" else form), nl=False)

    @group.command()
    @click.argument("name", metavar=noun.upper(), shell_complete=names)
    @click.argument("file", metavar="FILE", type=click.Path())
    @writing.writes
    def put(location: Location, name: str, file: str, dry_run: bool) -> None:
        from anycastlb.cli.files import read_document

        write_whole(location, noun, name, read_document(file), dry_run, create=False)

    @group.command("del")
    @click.argument("wanted", nargs=-1, required=True, metavar=f"{noun.upper()}...", shell_complete=names)
    @writing.asks
    @writing.writes
    def delete(location: Location, wanted: tuple[str, ...], dry_run: bool, yes: bool) -> None:
        from anycastlb.cli.ask import ask

        async def write(lb: Any) -> None:
            if dry_run:
                return await writing.show_plan(lb, {f"{noun}s/{name}": None for name in wanted})
            for name in wanted:
                await _call(lb, "", noun)(name)  # fails before the question if there is none
                confirm_or_stop(f"delete the {noun} {name}?", yes)
                await _call(lb, "delete_", noun)(name)
                writing.print_line(f"{noun} {name}: deleted")

        ask(location, write)

    show.help = f"Show a {noun}'s document as it is stored."
    put.help = f"Write a {noun} whole, from a file in JSON, YAML or TOML; - is standard input."
    delete.help = f"Delete {noun}s."


def _call(lb: Any, verb: str, noun: str) -> Call:
    """The client's method for it: ``route``, ``put_route``."""
    method: Call = getattr(lb, verb + noun)
    return method


def write_whole(location: Location, noun: str, name: str, document: Fields, dry_run: bool, create: bool) -> None:
    """Write a document, or show what it would change. ``create``: only if there is none of that name."""
    from anycastlb.cli.ask import ask
    from anycastlb.client import Conflict, Missing

    async def write(lb: Any) -> None:
        if dry_run:
            return await writing.show_plan(lb, {f"{noun}s/{name}": document})
        before: Fields | None = None
        if not create:
            with suppress(Missing):
                before = dict(await _call(lb, "", noun)(name))
        try:
            done = await _call(lb, "put_", noun)(name, document, create=create)
        except Conflict as exc:
            if exc.status != 412:
                raise
            raise click.ClickException(
                f"there is a {noun} {name} already: `anycastlb {noun} edit {name}` changes it"
            ) from exc
        writing.print_line(edits.write_summary(f"{noun} {name}", before, done["document"], done["changed"]))

    ask(location, write)


def write_patch(location: Location, noun: str, name: str, patch: Fields, dry_run: bool) -> None:
    """Change some fields of a document, or show what that would change. Raises ``click.UsageError`` for no field."""
    from anycastlb.cli.ask import ask

    if not patch:
        raise click.UsageError("nothing to change was given")

    async def write(lb: Any) -> None:
        before = await _call(lb, "", noun)(name)
        if dry_run:
            return await writing.show_plan(lb, {f"{noun}s/{name}": ipvsadm_options.merge(before, patch)})
        done = await _call(lb, "patch_", noun)(name, patch)
        writing.print_line(edits.write_summary(f"{noun} {name}", before, done["document"], done["changed"]))

    ask(location, write)
