"""``anycastlb service``: list, show, add, edit and delete virtual services, with the options of ipvsadm and meradm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from anycastlb.cli import edits, ipvsadm_options, writing
from anycastlb.cli.commands import complete
from anycastlb.cli.location import Location
from anycastlb.cli.options import Commands, confirm_or_stop, dump, node, output

Fields = dict[str, Any]


@click.group(cls=Commands)
def service() -> None:
    """Virtual services. `-o` is the form of the output for `list` and `show`, and one-packet for `add` and `edit`."""


@service.command("list")
@click.argument("name", required=False, metavar="[SERVICE]", shell_complete=complete.services)
@output
@node
def listed(location: Location, name: str | None, form: str) -> None:
    """List services and their backends with health and state, as `ipvsadm -Ln` would."""
    from anycastlb.cli.render import tables

    print_table(location, name or "", form, tables.services)


def print_table(location: Location, name: str, form: str, rows: Callable[[Any, str], Any]) -> None:
    """Print the table of one service or of all; in another form than a table, its ``rows``."""
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render import tables

    view = ask(location, lambda lb: lb.status())
    known = tables.services(view, name) or any(one["key"].split("/")[1:2] == [name] for one in view["problems"])
    if name and not known:
        raise click.ClickException(f"there is no service {name!r:.60}: `anycastlb service list` shows those there are")
    if form != "table":
        return dump(rows(view, name), form)
    terminal.show(tables.listed(view, name))


@service.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete.services)
@output
@node
def show(location: Location, name: str, form: str) -> None:
    """Show a service's document as it is stored, and its state."""
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.options import dumped
    from anycastlb.cli.render import tables

    async def read(lb: Any) -> tuple[Fields, Fields]:
        return dict(await lb.service(name)), await lb.status() if form == "table" else {}

    document, view = ask(location, read)
    if form != "table":
        return dump(document, form)
    terminal.show(tables.listed(view, name))
    click.echo("\n" + dumped(document, "yaml"), nl=False)


def _scheduling(command: Any) -> Any:
    """The options of ipvsadm for a virtual service."""
    for option in (
        click.option("--min-backends", metavar="N|N%", help="Backends that must be up for the VIP to be announced."),
        click.option("--no-ops", is_flag=True, help="Keep the datagrams of one flow together."),
        click.option("-o", "--ops", is_flag=True, help="One packet: schedule every datagram for itself (UDP)."),
        click.option("-M", "--netmask", metavar="MASK", help="With -p: clients of one network count as one."),
        click.option("-p", "--persistent", is_flag=False, flag_value="300", metavar="[SECONDS]",
                     help="Clients stay on their backend; 300 s unless given. Put it last, or as -p600."),
        click.option("-b", "--scheduler-flags", metavar="FLAGS", help='Separated by commas; "" for none.'),
        click.option("-s", "--scheduler", metavar="NAME", help="The kernel's scheduler; mh unless given."),
    ):  # fmt: skip
        command = option(command)
    return command


def _fields(given: Fields, settings: list[str]) -> Fields:
    """The options as fields of a service document, or of a patch of one."""
    fields: Fields = {}
    if given["scheduler"] is not None:
        fields["scheduler"] = given["scheduler"]
    if given["scheduler_flags"] is not None:
        fields["scheduler_flags"] = [flag for flag in given["scheduler_flags"].replace(" ", "").split(",") if flag]
    fields |= ipvsadm_options.persistence(given["persistent"], given["netmask"])
    if given["ops"] and given["no_ops"]:
        raise click.UsageError("--ops or --no-ops, not both")
    if given["ops"] or given["no_ops"]:
        fields["one_packet"] = given["ops"]
    if given["min_backends"] is not None:
        fields["announce"] = {"min_backends": ipvsadm_options.value(given["min_backends"])}
    fields |= ipvsadm_options.forward(given)
    if (check := ipvsadm_options.check(given, settings)) is not None:
        fields["check"] = check
    return ipvsadm_options.more(fields, given["assign"], given["unset"])


def _address(words: list[str], on: list[tuple[str, str]]) -> Fields:
    """``tcp 192.0.2.10:80``, ``-t 192.0.2.10:80`` or ``-f 7 192.0.2.10`` -> vip, port, protocol, fwmark."""
    kinds = {name for name, _ in on}
    marks = [text for name, text in on if name == "fwmark"]
    places = [text for name, text in on if name != "fwmark"]
    if words and words[0].lower() in ipvsadm_options.PROTOCOLS:
        kinds.add(words[0].lower())
        words = words[1:]
    places += words
    if len(kinds) > 1 or len(marks) > 1:
        raise click.UsageError("one protocol or one firewall mark for one service")
    if not kinds or not places:
        raise click.UsageError("where? Expected PROTOCOL ADDRESS:PORT, such as tcp 192.0.2.10:80, or -f MARK ADDRESS")
    endpoints = [ipvsadm_options.endpoint(text) for text in places]
    ports = {port for _, port in endpoints}
    vips = list(dict.fromkeys(address for address, _ in endpoints))
    vip: str | list[str] = vips[0] if len(vips) == 1 else vips
    if marks:
        if ports != {None}:
            raise click.UsageError("a service by firewall mark has no port: give the address alone")
        return {"vip": vip, "fwmark": ipvsadm_options.value(marks[0])}
    if len(ports) > 1 or None in ports:
        raise click.UsageError("expected one port for all addresses, such as 192.0.2.10:80")
    return {"vip": vip, "port": ports.pop(), "protocol": kinds.pop()}


def _written(command: Any) -> Any:
    """The options of `add` and `edit`."""
    for options in (
        writing.writes,
        writing.fields,
        writing.checks,
        writing.forwards("--forward-method", "--forward"),
        writing.fwmark("-f", "--fwmark-service"),
        writing.virtual,
        _scheduling,
    ):
        command = options(command)
    return command


@service.command()
@click.argument("name", metavar="SERVICE")
@click.argument("words", nargs=-1, metavar="[PROTOCOL] ADDRESS:PORT... [KEY=VALUE...]")
@click.option(
    "--pool",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Without an address: a pool for routes. Its backends have this port unless they say another.",
)
@_written
def add(
    location: Location,
    name: str,
    words: tuple[str, ...],
    pool: int | None,
    on: list[tuple[str, str]],
    dry_run: bool,
    **given: Any,
) -> None:
    """Add a service.

    \b
    anycastlb service add web tcp 192.0.2.10:80 -s mh -b mh-port,mh-fallback
    anycastlb service add web -t 192.0.2.10:80 -t '[2001:db8::10]:80' --check-http /health
    anycastlb service add all -f 100 192.0.2.11 -s wrr --check tcp port=443
    anycastlb service add blog --pool 80 --check-http /health --set balance=leastconn

    Here `-f` is the firewall mark; --forward, -g, -i or -m say how packets are forwarded. Add its backends with
    `anycastlb server add`.
    """
    from anycastlb.cli.ask import ask
    from anycastlb.client import Conflict

    places, settings = writing.pairs(words)
    if pool is not None and (places or on):
        raise click.UsageError("an address, or --pool PORT for a pool without one; not both")
    where = _address(places, on) if pool is None else {"port": pool}
    patch = ipvsadm_options.merge(where, _fields(given, settings), keep_null=True)
    document = writing.document(patch)

    async def write(lb: Any) -> None:
        if dry_run:
            return await writing.show_plan(lb, {f"services/{name}": document})
        try:
            done = await lb.put_service(name, document, create=True)
        except Conflict as exc:
            if exc.status != 412:
                raise
            raise click.ClickException(
                f"there is a service {name} already: `anycastlb service edit {name}` changes it"
            ) from exc
        writing.print_line(edits.write_summary(f"service {name}", None, done["document"], done["changed"]))

    ask(location, write)


@service.command()
@click.argument("name", metavar="SERVICE", shell_complete=complete.services)
@click.argument("words", nargs=-1, metavar="[[PROTOCOL] ADDRESS:PORT...] [KEY=VALUE...]")
@_written
def edit(
    location: Location, name: str, words: tuple[str, ...], on: list[tuple[str, str]], dry_run: bool, **given: Any
) -> None:
    """Change only the given fields of a service.

    \b
    anycastlb service edit web -s wlc
    anycastlb service edit web --set drain=2m --unset max_failed
    """
    from anycastlb.cli.ask import ask

    places, settings = writing.pairs(words)
    patch = ipvsadm_options.merge(
        _address(places, on) if places or on else {}, _fields(given, settings), keep_null=True
    )
    if not patch:
        raise click.UsageError("nothing to change was given")

    async def write(lb: Any) -> None:
        before = await lb.service(name)
        if patch.get("check"):
            patch["check"] = ipvsadm_options.patch_of_check(before.get("check"), patch["check"])
        if dry_run:
            return await writing.show_plan(lb, edits.patch_service(await lb.export(), name, patch))
        done = await lb.patch_service(name, patch)
        writing.print_line(edits.write_summary(f"service {name}", before, done["document"], done["changed"]))

    ask(location, write)


@service.command("del")
@click.argument("services", nargs=-1, metavar="[SERVICE...]", shell_complete=complete.services)
@writing.virtual
@writing.fwmark("-f", "--fwmark-service")
@writing.asks
@writing.writes
def delete(location: Location, services: tuple[str, ...], on: list[tuple[str, str]], dry_run: bool, yes: bool) -> None:
    """Delete services and their backends, by name or by virtual address. Their flows are drained first."""
    from anycastlb.cli.ask import ask

    async def write(lb: Any) -> None:
        wanted = [*services, *await named(lb, on)]
        if not wanted:
            raise click.UsageError("which service?")
        if dry_run:
            catalog = await lb.export()
            gone = [edits.delete_service(catalog, name) for name in wanted]
            return await writing.show_plan(lb, {key: None for part in gone for key in part})
        for name in wanted:
            await lb.service(name)  # fails before the question if there is no such service
            if live := _live(await lb.status(), name):
                confirm_or_stop(f"service {name} has {live} live backend{'s' if live > 1 else ''}; delete it?", yes)
            await lb.delete_service(name)
            writing.print_line(f"service {name}: deleted")

    ask(location, write)


async def named(lb: Any, on: list[tuple[str, str]]) -> list[str]:
    """The names of the services on these virtual addresses. Raises ``click.ClickException``."""
    names: list[str] = []
    documents = await lb.services() if on else {}
    for protocol, text in on:
        matching = edits.find_services(documents, protocol, text)
        if len(matching) != 1:
            raise click.ClickException(
                f"{len(matching) or 'no'} services on {protocol} {text}: `anycastlb service list` shows their names"
            )
        names += matching
    return names


def _live(view: Fields, name: str) -> int:
    """The number of its backends that get flows now."""
    from anycastlb.cli.render import tables

    services = tables.services(view, name)
    return len({one["backend"] for part in services for one in part["backends"] if one["up"] and one["weight"]})
