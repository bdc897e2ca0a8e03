"""The commands. Each asks the running node through its API or works on files; none changes the machine itself.

A command imports what it needs when it runs, so that it starts at once. An error is one line on standard error that
says what to do. The exit code is 0 if all is well, 1 after an error, and 2 if something differs or is unhealthy.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from anycastlb import __version__
from anycastlb.cli.commands import complete, drain, transfer
from anycastlb.cli.commands.completion import completion
from anycastlb.cli.commands.convert import convert
from anycastlb.cli.commands.doctor import doctor
from anycastlb.cli.commands.gateway import gateway
from anycastlb.cli.commands.route import route
from anycastlb.cli.commands.server import server
from anycastlb.cli.commands.service import listed, service
from anycastlb.cli.location import CONFIG, Location
from anycastlb.cli.options import DIFFERS, Commands, dump, line, node, output, print_errors


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anycastlb")
def main() -> None:
    """Consul KV to IPVS and anycast routes: run a node, and ask it what it does and why.

    Exit codes: 0 all is well, 1 an error, 2 something differs (plan) or is unhealthy (status, why).
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ● must not end a command


main.add_command(service)
main.add_command(server)
main.add_command(gateway)
main.add_command(route)
main.add_command(listed)  # meradm's `list`
main.add_command(transfer.export)
main.add_command(transfer.import_)
main.add_command(transfer.simulate)
main.add_command(completion)


@main.command()
@click.option("--config", default=CONFIG, show_default=True, metavar="FILE", help="Node settings.")
def run(config: str) -> None:
    """Run the node until it is stopped by a signal."""
    from anycastlb.adapters.system.certificates import unread_certificates

    with unread_certificates():
        from anycastlb import daemon
    from anycastlb.cli.settings_file import load

    raise SystemExit(daemon.main(load(config), config, lambda: load(config)))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option("--config", metavar="FILE", help="Node settings whose VIP ranges must hold the VIPs of the documents.")
@output
def validate(files: tuple[str, ...], config: str | None, form: str) -> None:
    """Check node settings, service documents or a whole catalog directory, and report every problem at once.

    The name of the file is the name of the service. VIPs must lie in the ranges of a node.toml that is given in the
    same call or with --config; without one, any address may be a VIP. A notice is about something that is allowed but
    may surprise you.
    """
    from dataclasses import asdict

    from anycastlb.cli.commands.validate import validate_files

    report = validate_files(files, config)
    if form != "table":
        problems, notices = ([asdict(one) for one in listed] for listed in (report.problems, report.notices))
        dump({"fine": list(report.fine), "notices": notices, "problems": problems}, form)
        raise SystemExit(1 if problems else 0)
    for fine in report.fine:
        click.echo(fine)
    for notice in report.notices:
        click.echo(f"notice: {line(str(notice))}")
    if report.problems:
        print_errors(map(str, report.problems))
        raise SystemExit(1)


@main.command()
@click.argument("kind", required=False, metavar="TYPE")
@click.option("--verbose", "-v", is_flag=True, help="Show every parameter of every type.")
@output
def checks(kind: str | None, verbose: bool, form: str) -> None:
    """List the types of health checks, or every parameter of one."""
    from anycastlb.cli import terminal
    from anycastlb.cli.commands.checks import describe_type, list_types

    if form != "table":
        return dump(describe_type(kind), form)
    terminal.show(list_types(kind, verbose, terminal.width()))


main.add_command(convert)
main.add_command(doctor)


@main.command()
@click.option("--watch", "-w", is_flag=True, help="Repeat until interrupted; on a terminal, in place.")
@click.option(
    "--interval",
    "-n",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch, the time between two updates.",
)
@output
@node
def status(location: Location, watch: bool, interval: float, form: str) -> None:
    """Show the whole node: catalog, BGP sessions, VIPs, services, backends, and what is wrong.

    Ends with 2 if something is down, withdrawn or quarantined.
    """
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render import exit_code
    from anycastlb.cli.render.status import status_lines

    if watch and form == "table":
        from anycastlb.cli.commands.events import watch_status

        with suppress(KeyboardInterrupt):
            watch_status(location, interval, status_lines)
        return
    view = ask(location, lambda lb: lb.status())
    if form != "table":
        dump(view, form)
    else:
        terminal.show(status_lines(view, terminal.width()))
    if any(exit_code.troubles(view)):
        raise SystemExit(DIFFERS)


@main.command()
@click.argument(
    "words",
    nargs=-1,
    required=True,
    metavar="VIP|SERVICE|SERVICE/BACKEND|[METHOD] URL",
    shell_complete=complete.objects,
)
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE", help="Of a request. May be repeated.")
@click.option("--source", default="", metavar="ADDRESS", help="The client of a request, where rules look at it.")
@output
@node
def why(location: Location, words: tuple[str, ...], headers: tuple[str, ...], source: str, form: str) -> None:
    """Explain one object, from its check results to its route. Ends with 2 if it is not as it should be.

    \b
    anycastlb why web/web1
    anycastlb why gateways/web
    anycastlb why GET https://shop.example/blog/1 -H 'user-agent: HTTPie/1'

    For a URL, explain which route, rule and pool a request for it meets, and what HAProxy itself says.
    """
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render.why import why_lines

    method, name = ("GET", words[0]) if len(words) == 1 else (words[0].upper(), words[-1])
    asks_url = "://" in name
    if len(words) > 2 or (not asks_url and (len(words) > 1 or headers or source)):
        raise click.UsageError("expected one object, or a URL with its method before it and -H and --source")
    pairs = [(given.partition(":")[0], given.partition(":")[2].strip()) for given in headers]
    view = ask(location, lambda lb: lb.why_request(name, method, pairs, source) if asks_url else lb.why(name))
    if form != "table":
        dump(view, form)
    else:
        terminal.show(why_lines(view, terminal.width()))
    if not view["ok"]:
        raise SystemExit(DIFFERS)


@main.command()
@click.argument("files", nargs=-1, metavar="[FILE|DIR...]", type=click.Path())
@transfer.proposes
@output
@node
def plan(location: Location, files: tuple[str, ...], kind: str, gateway: str | None, replace: bool, form: str) -> None:
    """Show what the node is about to change, in order, and why. If it is not running, show what it would change.

    With documents, a dump or a directory, show what those would change in the catalog and on this node. Nothing is
    written. Ends with 2 if something would change.
    """
    from anycastlb.cli import terminal
    from anycastlb.cli.ask import ask
    from anycastlb.cli.render.why import changes
    from anycastlb.client import Unreachable

    if files:
        return transfer.propose(location, files, kind, gateway, replace, form)
    assumption = ""
    try:
        view: Any = ask(location, lambda lb: lb.plan())
    except Unreachable:
        if location.given or not Path(location.config or CONFIG).exists():
            raise
        view = _dry_run(location.config or CONFIG)
        assumption = "The node is not running. What it would do if it were, with every backend up:"
        view["assumption"] = assumption
    if form != "table":
        dump(view, form)
    else:
        terminal.show(changes(view, terminal.width(), assumption))
    if view["changes"]:
        raise SystemExit(DIFFERS)


def _dry_run(config: str) -> dict[str, Any]:
    """The plan of a node that would start now. Nothing is written."""
    from anycastlb.cli.settings_file import load
    from anycastlb.engine.dry_run import dry_run
    from anycastlb.serving.views.changes import plan_view

    snapshot = dry_run(load(config))
    return plan_view(snapshot, snapshot.at)


@main.command()
@node
def confirm(location: Location) -> None:
    """Accept a catalog that is held back because it lost too many VIPs."""
    from anycastlb.cli.ask import ask

    ask(location, lambda lb: lb.confirm())
    click.echo("confirmed: the held catalog is let through")


main.add_command(drain.drain)
main.add_command(drain.undrain)


@main.command()
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="ID", help="Show only events above this id.")
@click.option("--last", "-n", type=click.IntRange(min=0), metavar="N", help="Show only the last N events.")
@click.option("--follow", "-f", is_flag=True, help="Show new events as they happen, until interrupted.")
@output
@node
def events(location: Location, after: int, last: int | None, follow: bool, form: str) -> None:
    """Show what happened, oldest first. With -o json, each line is one object."""
    from anycastlb.cli.commands.events import show_events

    with suppress(KeyboardInterrupt):
        show_events(location, after, last, follow, form)
