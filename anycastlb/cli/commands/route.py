"""``anycastlb route``: list, show, add, edit, replace and delete the rules by which requests go to services."""

from __future__ import annotations

from typing import Any

import click

from anycastlb.cli import edits, ipvsadm_options, writing
from anycastlb.cli.commands import complete
from anycastlb.cli.commands.documents import Fields, add_commands, write_patch, write_whole
from anycastlb.cli.location import Location
from anycastlb.cli.options import Commands, dump, node, output


@click.group(cls=Commands)
def route() -> None:
    """Routes: which requests for which hostnames of a gateway go to which service."""


@route.command("list")
@output
@node
def listed(location: Location, form: str) -> None:
    """List routes with their hostnames, gateways and services."""
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render import http_tables

    async def read(lb: Any) -> tuple[Any, Any]:
        return await lb.routes(), await lb.status() if form == "table" else {}

    documents, view = ask(location, read)
    if form != "table":
        return dump(documents, form)
    terminal.show(http_tables.routes(documents, view))


add_commands(route, "route", complete.routes)


@route.command()
@click.argument("name", metavar="ROUTE")
@click.argument("hostnames", nargs=-1, required=True, metavar="HOSTNAME...")
@click.option("--gateway", "gateways", multiple=True, required=True, metavar="GATEWAY", help="May be repeated.")
@click.option(
    "--path", "paths", multiple=True, metavar="PREFIX", help="Only requests for paths below this. May be repeated."
)
@click.option(
    "--to",
    "to",
    multiple=True,
    metavar="SERVICE[=WEIGHT]",
    help="Where requests go. With several, they are shared out by weight.",
)
@click.option(
    "--redirect",
    metavar="http|https",
    type=click.Choice(["http", "https"]),
    help="Instead of --to: redirect to the same address with this scheme.",
)
@writing.fields
@writing.writes
def add(
    location: Location,
    name: str,
    hostnames: tuple[str, ...],
    gateways: tuple[str, ...],
    paths: tuple[str, ...],
    to: tuple[str, ...],
    redirect: str | None,
    assign: tuple[str, ...],
    unset: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Add a route of one rule; `put` writes one of many.

    \b
    anycastlb route add shop shop.example '*.shop.example' --gateway web --to shop
    anycastlb route add blog blog.example --gateway web --to blog=90 --to blog-canary=10
    anycastlb route add plain '*' --gateway plain --redirect https
    """
    rule: Fields = {"matches": [{"path": {"value": path}} for path in paths]} if paths else {}
    if bool(to) == bool(redirect):
        raise click.UsageError("where to? Expected --to SERVICE, or --redirect https")
    if redirect:
        rule["filters"] = [{"type": "RequestRedirect", "requestRedirect": {"scheme": redirect, "statusCode": 301}}]
    else:
        rule["backendRefs"] = [{"name": pool, **weight} for pool, weight in map(_share, to)]
    fields: Fields = {"gateways": list(gateways), "hostnames": list(hostnames), "rules": [rule]}
    document = writing.document(ipvsadm_options.more(fields, assign, unset))
    write_whole(location, "route", name, document, dry_run, create=True)


def _share(text: str) -> tuple[str, Fields]:
    """``blog=90`` -> the name of the service, and its weight if there is one."""
    pool, _, weight = text.partition("=")
    if weight and not weight.isdecimal():
        raise click.UsageError(f"{text!r:.60}: expected SERVICE=WEIGHT, such as blog=90")
    return pool, {"weight": int(weight)} if weight else {}


@route.command()
@click.argument("name", metavar="ROUTE", shell_complete=complete.routes)
@writing.fields
@writing.writes
def edit(location: Location, name: str, assign: tuple[str, ...], unset: tuple[str, ...], dry_run: bool) -> None:
    """Change only the given fields of a route; `split` changes weights, `put` writes rules.

    \b
    anycastlb route edit shop --set 'hostnames=["shop.example","www.shop.example"]' --set critical=true
    """
    write_patch(location, "route", name, ipvsadm_options.more({}, assign, unset), dry_run)


@route.command()
@click.argument("name", metavar="ROUTE", shell_complete=complete.routes)
@click.argument("shares", nargs=-1, required=True, metavar="SERVICE=WEIGHT...")
@click.option("--rule", metavar="NAME", help="Only in this rule (rule-1 is the first if it has no name).")
@writing.writes
def split(location: Location, name: str, shares: tuple[str, ...], rule: str | None, dry_run: bool) -> None:
    """Set how rules share requests out between their services.

    \b
    anycastlb route split blog blog=90 blog-canary=10
    """
    from anycastlb.cli.ask import ask

    weights = {pool: weight for pool, weight in map(_share, shares) if weight}
    if len(weights) < len(shares):
        raise click.UsageError("expected SERVICE=WEIGHT, each once, such as blog=90")

    async def write(lb: Any) -> None:
        before = await lb.route(name)
        after = {**before, "rules": _weighed(before.get("rules") or [], weights, rule)}
        if dry_run:
            return await writing.show_plan(lb, {f"routes/{name}": after})
        done = await lb.put_route(name, after, if_match=before.etag)
        writing.print_line(edits.write_summary(f"route {name}", before, done["document"], done["changed"]))

    ask(location, write)


def _weighed(rules: list[Any], weights: dict[str, Fields], only: str | None) -> list[Any]:
    """The rules with other weights. Raises ``click.ClickException`` if a service is in none of them."""
    found: set[str] = set()
    weighed = []
    for place, rule in enumerate(rules, 1):
        refs = rule.get("backendRefs") or []
        if only in (None, rule.get("name") or f"rule-{place}"):
            found |= {ref["name"] for ref in refs}
            refs = [{**ref, **weights.get(ref["name"], {})} for ref in refs]
        weighed.append({**rule, "backendRefs": refs} if refs else rule)
    if lost := sorted(weights.keys() - found):
        where = f"the rule {only}" if only else "this route"
        raise click.ClickException(f"{where} has no {', '.join(lost)}: `anycastlb route show` shows what it has")
    return weighed
