"""``anycastlb gateway``: list, show, add, edit, replace and delete the VIPs and ports that speak HTTP."""

from __future__ import annotations

from typing import Any

import click

from anycastlb.cli import ipvsadm_options, writing
from anycastlb.cli.commands import complete
from anycastlb.cli.commands.documents import Fields, add_commands, write_patch, write_whole
from anycastlb.cli.location import Location
from anycastlb.cli.options import Commands, dump, node, output

PROTOCOLS = ("http", "https")


@click.group(cls=Commands)
def gateway() -> None:
    """Gateways: virtual addresses and ports that speak HTTP, whose requests `route` sends to services."""


@gateway.command("list")
@output
@node
def listed(location: Location, form: str) -> None:
    """List gateways with their addresses, certificates and state."""
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render import http_tables

    async def read(lb: Any) -> tuple[Any, Any]:
        return await lb.gateways(), await lb.status() if form == "table" else {}

    documents, view = ask(location, read)
    if form != "table":
        return dump(documents, form)
    terminal.show(http_tables.gateways(documents, view))


add_commands(gateway, "gateway", complete.gateways)


def _fields(words: tuple[str, ...], given: Fields) -> Fields:
    """``https 192.0.2.10:443`` and the options as fields of a document, or of a patch of one."""
    fields: Fields = {}
    places = list(words)
    if places and places[0].lower() in PROTOCOLS:
        fields["protocol"] = places.pop(0).lower()
    endpoints = [ipvsadm_options.endpoint(text) for text in places]
    ports = {port for _, port in endpoints}
    if len(ports) > 1 or None in ports:
        raise click.UsageError("expected one port for all addresses, such as 192.0.2.10:443")
    if endpoints:
        vips = list(dict.fromkeys(address for address, _ in endpoints))
        fields |= {"vip": vips[0] if len(vips) == 1 else vips, "port": ports.pop()}
    if given["certificates"]:
        fields["tls"] = {"certificates": list(given["certificates"])}
    return ipvsadm_options.more(fields, given["assign"], given["unset"])


def _written(command: Any) -> Any:
    """The options of `add` and `edit`."""
    command = writing.writes(writing.fields(command))
    return click.option(
        "--certificate", "certificates", multiple=True, metavar="NAME",
        help="The name of a certificate's file on the nodes, without its ending. May be repeated.",
    )(command)  # fmt: skip


@gateway.command()
@click.argument("name", metavar="GATEWAY")
@click.argument("words", nargs=-1, required=True, metavar="http|https ADDRESS:PORT...")
@_written
def add(location: Location, name: str, words: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Add a gateway.

    \b
    anycastlb gateway add web https 192.0.2.10:443 '[2001:db8::10]:443' --certificate shop
    anycastlb gateway add plain http 192.0.2.10:80 --set limits.maxconn=5000
    """
    document = writing.document(_fields(words, given))
    if "protocol" not in document or "vip" not in document:
        raise click.UsageError("where? Expected PROTOCOL ADDRESS:PORT, such as https 192.0.2.10:443")
    write_whole(location, "gateway", name, document, dry_run, create=True)


@gateway.command()
@click.argument("name", metavar="GATEWAY", shell_complete=complete.gateways)
@click.argument("words", nargs=-1, metavar="[[http|https] ADDRESS:PORT...]")
@_written
def edit(location: Location, name: str, words: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Change only the given fields of a gateway.

    \b
    anycastlb gateway edit web --certificate shop --certificate default
    anycastlb gateway edit web --set tls.min_version=1.3 --unset limits
    """
    write_patch(location, "gateway", name, _fields(words, given), dry_run)
