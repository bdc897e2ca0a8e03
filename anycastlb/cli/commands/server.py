"""``anycastlb server``: list, add, edit, delete, drain and undrain the backends of a service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click

from anycastlb.cli import edits, ipvsadm_options, writing
from anycastlb.cli.commands import complete
from anycastlb.cli.commands.service import named, print_table
from anycastlb.cli.location import Location
from anycastlb.cli.options import Commands, node, output

Fields = dict[str, Any]
WHO = "[SERVICE] BACKEND..."


@click.group(cls=Commands)
def server() -> None:
    """Backends. A backend is given by its name, or by its address and port. A call may name several."""


@server.command("list")
@click.argument("service", required=False, metavar="[SERVICE]", shell_complete=complete.services)
@output
@node
def listed(location: Location, service: str | None, form: str) -> None:
    """List backends with health and state."""
    from anycastlb.cli.render import tables

    print_table(location, service or "", form, tables.backends)


def _about(command: Any) -> Any:
    """The options of ipvsadm and meradm for a real server."""
    for option in (
        click.option("--fallback/--no-fallback", default=None, help="Use it only while no other backend is up."),
        click.option("-y", "--l-threshold", type=click.IntRange(0), metavar="N",
                     help="A full backend gets new connections again below this number."),
        click.option("-x", "--u-threshold", type=click.IntRange(0), metavar="N",
                     help="The backend gets no new connections above this number."),
        click.option("-w", "--weight", type=click.IntRange(0, 65535), metavar="N",
                     help="Share of new flows; 100 unless given, 0 for none."),
        click.option("-r", "--real-server", "real", multiple=True, metavar="ADDRESS[:PORT]",
                     help="The backend, as in ipvsadm. May be repeated."),
    ):  # fmt: skip
        command = option(command)
    return command


def _fields(given: Fields, settings: list[str]) -> Fields:
    fields: Fields = {}
    for option, name in (("weight", "weight"), ("u_threshold", "max_connections"), ("l_threshold", "min_connections"),
                         ("fallback", "fallback")):  # fmt: skip
        if given[option] is not None:
            fields[name] = given[option]
    fields |= ipvsadm_options.forward(given)
    if (check := ipvsadm_options.check(given, settings)) is not None:
        fields["check"] = check
    return ipvsadm_options.more(fields, given["assign"], given["unset"])


async def _which(lb: Any, words: list[str], on: list[tuple[str, str]]) -> tuple[str, list[str]]:
    """The service, and the words that name backends."""
    if on:
        if len(on) > 1:
            raise click.UsageError("one service at a time")
        return (await named(lb, on))[0], words
    if not words:
        raise click.UsageError("of which service? Expected SERVICE BACKEND...")
    return words[0], words[1:]


@server.command()
@click.argument(
    "words", nargs=-1, metavar="[SERVICE] [NAME=]ADDRESS[:PORT]... [KEY=VALUE...]", shell_complete=complete.services
)
@click.option("--name", metavar="NAME", help="The name of the backend; its address and port unless given.")
@_about
@writing.virtual
@writing.fwmark("--fwmark-service")
@writing.forwards("-f", "--forward-method", "--forward")
@writing.checks
@writing.fields
@writing.writes
def add(
    location: Location, words: tuple[str, ...], name: str | None, real: tuple[str, ...], on: list[tuple[str, str]],
    dry_run: bool, **given: Any,
) -> None:  # fmt: skip
    """Add backends to a service, each with a key of its own.

    \b
    anycastlb server add web 10.1.0.1:8080 -w 100 -f tunnel --check-http /health
    anycastlb server add web web1=10.1.0.1 web2=10.1.0.2
    anycastlb server add web 10.1.0.1-8:8080
    anycastlb server add -t 192.0.2.10:80 -r 10.1.0.1:80 -g -w 50

    Here `-f` is the forwarding method, as in meradm.
    """
    from anycastlb.cli.ask import ask
    from anycastlb.client import Conflict

    rest, settings = writing.pairs(words)
    patch = _fields(given, settings)

    async def write(lb: Any) -> None:
        service, places = await _which(lb, rest, on)
        wanted = _placed([*places, *real], name)
        documents = {called: writing.document({**at, **patch}) for called, at in wanted.items()}
        if dry_run:
            return await writing.show_plan(
                lb, {f"services/{service}/backends/{called}": fields for called, fields in documents.items()}
            )
        for called, fields in documents.items():
            try:
                done = await lb.put_backend(service, called, fields, create=True)
            except Conflict as exc:
                if exc.status != 412:
                    raise
                raise click.ClickException(
                    f"{service} has a backend {called} already: `anycastlb server edit {service} {called}` changes it"
                ) from exc
            writing.print_line(
                edits.write_summary(f"server {service}/{called}", None, done["document"], done["changed"])
            )

    ask(location, write)


def _placed(places: list[str], name: str | None) -> dict[str, Fields]:
    """Name -> address and port of every backend to add."""
    backends: dict[str, Fields] = {}
    for text in places:
        called, _, rest = text.rpartition("=")
        each = ipvsadm_options.several(rest)
        if called and len(each) > 1:
            raise click.UsageError(f"{text!r:.60}: one name for one address")
        for one in each:
            address, port = ipvsadm_options.endpoint(one)
            known = name or called or edits.backend_name(address, port)
            if known in backends:
                raise click.UsageError(f"two backends cannot both be called {known}")
            backends[known] = {"address": address, **({} if port is None else {"port": port})}
    if not backends:
        raise click.UsageError("which backend? Expected ADDRESS or ADDRESS:PORT")
    return backends


async def _each(
    lb: Any, words: list[str], on: list[tuple[str, str]], act: Callable[[str, str, Fields], Awaitable[None]]
) -> None:
    """Call ``act(service, backend, its document)`` for every backend that is named; for none if one does not exist."""
    service, places = await _which(lb, words, on)
    document = await lb.service(service)
    backends = document.get("backends") or {}
    names: dict[str, None] = {}
    for text in places:
        for one in ipvsadm_options.several(text):
            matching = edits.find_backends(backends, one, document.get("port"))
            if len(matching) != 1:
                wrong = f"{', '.join(matching)} are all at {one}" if matching else f"{service} has no backend {one}"
                raise click.ClickException(f"{wrong}: `anycastlb server list {service}` shows those it has")
            names[matching[0]] = None
    if not names:
        raise click.UsageError("which backend? Expected a name, or ADDRESS:PORT")
    for name in names:
        await act(service, name, backends[name] or {})


@server.command()
@click.argument("words", nargs=-1, metavar=f"{WHO} [KEY=VALUE...]", shell_complete=complete.servers)
@_about
@writing.virtual
@writing.fwmark("--fwmark-service")
@writing.forwards("-f", "--forward-method", "--forward")
@writing.checks
@writing.fields
@writing.writes
def edit(
    location: Location,
    words: tuple[str, ...],
    real: tuple[str, ...],
    on: list[tuple[str, str]],
    dry_run: bool,
    **given: Any,
) -> None:
    """Change only the given fields of backends. With `-w 0` a backend gets no new flows."""
    from anycastlb.cli.ask import ask

    rest, settings = writing.pairs(words)
    patch = _fields(given, settings)
    if not patch:
        raise click.UsageError("nothing to change was given")

    async def write(lb: Any) -> None:
        proposed: edits.Catalog = await lb.export() if dry_run else {}
        touched: edits.Catalog = {}

        async def one(service: str, name: str, before: Fields) -> None:
            own = dict(patch)
            if own.get("check"):
                own["check"] = ipvsadm_options.patch_of_check(before.get("check"), own["check"])
            if dry_run:
                touched.update(edits.patch_backend({**proposed, **touched}, service, name, own))
                return
            done = await lb.patch_backend(service, name, own)
            writing.print_line(
                edits.write_summary(f"server {service}/{name}", before, done["document"], done["changed"])
            )

        await _each(lb, [*rest, *real], on, one)
        if dry_run:
            await writing.show_plan(lb, touched)

    ask(location, write)


@server.command("del")
@click.argument("words", nargs=-1, metavar=WHO, shell_complete=complete.servers)
@click.option(
    "-r", "--real-server", "real", multiple=True, metavar="ADDRESS[:PORT]", help="The backend, as in ipvsadm."
)
@writing.virtual
@writing.fwmark("--fwmark-service")
@writing.writes
def delete(
    location: Location, words: tuple[str, ...], real: tuple[str, ...], on: list[tuple[str, str]], dry_run: bool
) -> None:
    """Delete backends. Each gets no new flows, and is removed when its connections have ended."""
    from anycastlb.cli.ask import ask

    async def write(lb: Any) -> None:
        proposed: edits.Catalog = await lb.export() if dry_run else {}
        touched: edits.Catalog = {}

        async def one(service: str, name: str, before: Fields) -> None:
            if dry_run:
                touched.update(edits.patch_backend({**proposed, **touched}, service, name, None))
                return
            await lb.delete_backend(service, name)
            writing.print_line(f"server {service}/{name}: deleted")

        await _each(lb, [*words, *real], on, one)
        if dry_run:
            await writing.show_plan(lb, touched)

    ask(location, write)


@server.command()
@click.argument("words", nargs=-1, metavar=WHO, shell_complete=complete.servers)
@writing.virtual
@writing.fwmark("--fwmark-service")
@writing.writes
def drain(location: Location, words: tuple[str, ...], on: list[tuple[str, str]], dry_run: bool) -> None:
    """Give backends no new flows; each leaves the kernel when its connections have ended."""
    _drain(location, words, on, dry_run, True)


@server.command()
@click.argument("words", nargs=-1, metavar=WHO, shell_complete=complete.servers)
@writing.virtual
@writing.fwmark("--fwmark-service")
@writing.writes
def undrain(location: Location, words: tuple[str, ...], on: list[tuple[str, str]], dry_run: bool) -> None:
    """Give backends new flows again."""
    _drain(location, words, on, dry_run, False)


def _drain(location: Location, words: tuple[str, ...], on: list[tuple[str, str]], dry_run: bool, wanted: bool) -> None:
    from anycastlb.cli.ask import ask

    async def write(lb: Any) -> None:
        proposed: edits.Catalog = await lb.export() if dry_run else {}
        touched: edits.Catalog = {}

        async def one(service: str, name: str, before: Fields) -> None:
            if dry_run:
                patch = {"drain": True if wanted else None}
                touched.update(edits.patch_backend({**proposed, **touched}, service, name, patch))
                return
            done = await (lb.drain_backend if wanted else lb.undrain_backend)(service, name)
            word = ("draining" if wanted else "takes new flows") if done["changed"] else "unchanged"
            writing.print_line(f"server {service}/{name}: {word}")

        await _each(lb, list(words), on, one)
        if dry_run:
            await writing.show_plan(lb, touched)

    ask(location, write)
