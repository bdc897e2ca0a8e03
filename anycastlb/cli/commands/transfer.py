"""``anycastlb export``, ``import``, ``plan FILE`` and ``simulate``: commands that read or write whole catalogs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from anycastlb.cli.files import FROM, gather_files
from anycastlb.cli.location import Location
from anycastlb.cli.options import DIFFERS, confirm_or_stop, dump, dumped, node, output, print_errors


@click.command()
@click.argument("file", required=False, metavar="[FILE]", type=click.Path(dir_okay=False))
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["json", "yaml"]),
    help="By the file's name unless given; else json.",
)
@node
def export(location: Location, file: str | None, form: str | None) -> None:
    """Write every document of the catalog to FILE, or to standard output. `import` reads it again."""
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render.style import count

    catalog = ask(location, lambda lb: lb.export())
    by_name = "yaml" if file and Path(file).suffix in (".yaml", ".yml") else "json"
    text = dumped({"catalog": catalog}, form or by_name)
    if file is None or file == "-":
        return click.echo(text, nl=False)
    _write(Path(file), text)
    services = sum(key.startswith("services/") and key.count("/") == 1 for key in catalog)
    click.echo(f"{file}: {count(len(catalog), 'document')}, {count(services, 'service')}")


def _write(path: Path, text: str) -> None:
    """Write the whole file or nothing, so that a full disk leaves no half dump under a good name."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text)
        beside.replace(path)
    except OSError as exc:
        beside.unlink(missing_ok=True)
        raise click.ClickException(f"{path} cannot be written: {exc.strerror}") from None


def proposes(command: Any) -> Any:
    command = click.option(
        "--gateway", metavar="NAME", help="The gateway that ELB's routes are for, and that requests of a --log came to."
    )(command)
    command = click.option("--replace", is_flag=True, help="Delete the documents that are not named.")(command)
    return click.option(
        "--from", "kind", type=click.Choice(FROM), default="auto", show_default=True,
        help="The program that wrote the file.",
    )(command)  # fmt: skip


@click.command("import")
@click.argument("files", nargs=-1, required=True, metavar="FILE|DIR...", type=click.Path())
@proposes
@click.option("--dry-run", is_flag=True, help="Show what would change, on this node too; write nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before --replace deletes something.")
@node
def import_(
    location: Location, files: tuple[str, ...], kind: str, gateway: str | None, replace: bool, dry_run: bool, yes: bool
) -> None:
    """Write documents to the catalog, from a dump, single files or a directory: all of them, or none.

    `-` is standard input. The documents are validated as a whole first. Without --replace, services that are not named
    stay.
    """
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render import style, why

    catalog, mode = gather_files(files, kind, gateway or "web"), "replace" if replace else "merge"

    async def write(lb: Any) -> None:
        if dry_run or replace:
            proposal = await lb.plan(catalog, mode)
            if dry_run:
                return terminal.show(why.proposal(proposal, terminal.width()))
            gone = [edit["key"] for edit in proposal["edits"] if edit["after"] is None]
            if gone:
                named = ", ".join(gone[:5]) + ("…" if len(gone) > 5 else "")
                confirm_or_stop(f"this deletes {style.count(len(gone), 'document')} ({named}); go on?", yes)
        done = await lb.import_(catalog, mode)
        edits = done.get("edits", [])
        terminal.show(why.documents(edits, terminal.width()))
        click.echo(f"imported: {style.count(len(edits), 'document')} changed of {len(catalog)}")

    ask(location, write)


def propose(
    location: Location, files: tuple[str, ...], kind: str, gateway: str | None, replace: bool, form: str
) -> None:
    """``plan FILE…``: print what documents would change. Exits with 2 if anything, with 1 if they have problems."""
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render import why

    catalog = gather_files(files, kind, gateway or "web")
    view: Any = ask(location, lambda lb: lb.plan(catalog, "replace" if replace else "merge"))
    if form != "table":
        dump(view, form)
    else:
        terminal.show(why.proposal(view, terminal.width()))
    if view.get("problems"):
        raise SystemExit(1)
    if view.get("edits") or view.get("changes"):
        raise SystemExit(DIFFERS)


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE|DIR...", type=click.Path())
@click.option("--log", "logs", multiple=True, metavar="FILE", help="An access log, also compressed. May be repeated.")
@click.option("--host", default="", metavar="NAME", help="With --log: the host, where the log does not say it.")
@proposes
@output
@node
def simulate(
    location: Location,
    files: tuple[str, ...],
    logs: tuple[str, ...],
    host: str,
    kind: str,
    gateway: str | None,
    replace: bool,
    form: str,
) -> None:
    """Show what share of flows would go to another backend if these documents were written. Nothing is written.

    With --log, show instead what share of the requests in access logs would go elsewhere, by the rules of routes: the
    combined log of nginx or Apache, with the host before it or with --host, or JSON with one object a line.

    The share comes from a model of the kernel's mh table, for each service whose table changes, after drained backends
    are gone. It concerns new flows, and flows that another node takes over; a node that stays keeps the flows it has.
    """
    from anycastlb.cli.ask import ask

    catalog = gather_files(files, kind, gateway or "web")

    async def read(lb: Any) -> tuple[Any, Any]:
        return await lb.plan(catalog, "replace" if replace else "merge"), await lb.export() if logs else {}

    view, stored = ask(location, read)
    if view.get("problems"):
        print_errors(f"{one['key']}: {one['path']}: {one['expected']}" for one in view["problems"])
        raise SystemExit(1)
    if logs:
        from anycastlb.cli.commands.access_logs import show_moved

        return show_moved(stored, {} if replace else stored, catalog, gateway, logs, host, form)
    if form != "table":
        return dump({"moves": view["moves"], "assumed_up": view["assumed_up"]}, form)
    for move in view["moves"]:
        click.echo(f"{move['share']:>6.1%}  {move['service']}  {move['key']}")
    if not view["moves"]:
        click.echo("no flow would go to another backend")
