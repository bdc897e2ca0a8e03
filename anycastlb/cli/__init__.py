"""The commands. Each asks the running node through its API, or works on files; none touches the machine itself.

Start-up must feel instant, so a command imports what it needs when it runs. Errors are one line on standard error
that says what to do; the exit code is 0 only on success.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from anycastlb import __version__
from anycastlb.cli.convert import convert
from anycastlb.cli.doctor import doctor
from anycastlb.model import AnycastlbError, SettingsError

F = TypeVar("F", bound=Callable[..., Any])
CONFIG = "/etc/anycastlb/node.toml"


class Commands(click.Group):
    """A group in which our own errors end a command as click's do."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as exc:
            _tell(map(str, exc.problems))
            ctx.exit(1)
        except AnycastlbError as exc:
            raise click.ClickException(_line(str(exc))) from exc
        except click.ClickException as exc:
            if isinstance(exc, click.UsageError):
                raise
            raise click.ClickException(_line(exc.message)) from exc


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anycastlb")
def main() -> None:
    """Consul KV to IPVS and anycast routes: run a node, ask it what it does and why."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ● must not end a command


def _node(command: F) -> F:
    """The options of every command that asks the running node."""
    command = click.option("--api", metavar="ADDRESS:PORT", help="Where the node's API listens.")(command)
    return click.option("--config", metavar="FILE", help=f"Node settings that name the API.  [{CONFIG}]")(command)


@main.command()
@click.option("--config", default=CONFIG, show_default=True, metavar="FILE", help="Node settings.")
def run(config: str) -> None:
    """Run the node until it is told to stop."""
    from anycastlb import daemon
    from anycastlb.cli.judge import load

    raise SystemExit(daemon.main(load(config), config, lambda: load(config)))


@main.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--config", metavar="FILE", help="Node settings whose VIP ranges the documents must keep to.")
def validate(files: tuple[str, ...], config: str | None) -> None:
    """Check node settings, service documents or a whole catalog directory: every problem at once.

    A service document is named by its file. VIPs must lie in the ranges of a node.toml given in the same call or
    with --config; without one, any address may be a VIP. A notice is about what is allowed but may surprise you.
    """
    from anycastlb.cli.judge import judge

    report = judge(files, config)
    for line in report.fine:
        click.echo(line)
    for notice in report.notices:
        click.echo(f"notice: {_line(str(notice))}")
    if report.problems:
        _tell(map(str, report.problems))
        raise SystemExit(1)


@main.command()
@click.argument("kind", required=False, metavar="TYPE")
@click.option("--verbose", "-v", is_flag=True, help="Every parameter of every type.")
def checks(kind: str | None, verbose: bool) -> None:
    """List the types of health checks, or every parameter of one."""
    from anycastlb.cli import kinds, paint

    paint.show(kinds.listed(kind, verbose, paint.width()))


main.add_command(convert)
main.add_command(doctor)


@main.command()
@_node
@click.option("--json", "as_json", is_flag=True, help="The whole answer of the API.")
def status(config: str | None, api: str | None, as_json: bool) -> None:
    """Show the whole node: catalog, BGP sessions, VIPs, services, backends, and what is wrong."""
    from anycastlb.cli.client import connect

    view = connect(config, api).get("/v1/status")
    if as_json:
        return _echo_json(view)
    from anycastlb.cli import paint, picture

    paint.show(picture.picture(view, paint.width()))


@main.command()
@_node
@click.argument("name", metavar="VIP|SERVICE|SERVICE/BACKEND")
@click.option("--json", "as_json", is_flag=True, help="The whole answer of the API.")
def why(config: str | None, api: str | None, name: str, as_json: bool) -> None:
    """Explain one object: the chain from check results to route."""
    from anycastlb.cli.client import connect

    view = connect(config, api).get(f"/v1/why/{name}")
    if as_json:
        return _echo_json(view)
    from anycastlb.cli import chain, paint

    paint.show(chain.chain(view, paint.width()))


@main.command()
@_node
@click.option("--json", "as_json", is_flag=True, help="The whole answer of the API.")
def plan(config: str | None, api: str | None, as_json: bool) -> None:
    """Show what the node is about to change, in order, and why; what it would change, when it is not running."""
    from anycastlb.cli.client import Unreachable, connect

    assumption = ""
    try:
        view = connect(config, api).get("/v1/plan")
    except Unreachable:
        if api or not Path(config or CONFIG).exists():
            raise
        view = _dry_run(config or CONFIG)
        assumption = "The node is not running. What it would do if it were, with every backend up:"
        view["assumption"] = assumption
    if as_json:
        return _echo_json(view)
    from anycastlb.cli import chain, paint

    paint.show(chain.changes(view, paint.width(), assumption))


def _dry_run(config: str) -> dict[str, Any]:
    """The plan of a node that would start now; it writes nothing."""
    from anycastlb import daemon
    from anycastlb.api import views
    from anycastlb.cli.judge import load

    snapshot = daemon.dry_run(load(config))
    return views.plan(snapshot, snapshot.at)


@main.command()
@_node
def confirm(config: str | None, api: str | None) -> None:
    """Let a held catalog through."""
    from anycastlb.cli.client import connect

    connect(config, api).post("/v1/confirm")
    click.echo("confirmed: the held catalog is let through")


@main.command()
@_node
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="ID", help="Only events above this id.")
@click.option("--follow", "-f", is_flag=True, help="Go on as events happen, until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def events(config: str | None, api: str | None, after: int, follow: bool, as_json: bool) -> None:
    """Show what happened, oldest first."""
    from anycastlb.cli import follow as journal
    from anycastlb.cli.client import connect

    with suppress(KeyboardInterrupt):
        journal.tell(connect(config, api), after, follow, as_json)


def _echo_json(view: Any) -> None:
    import json

    click.echo(json.dumps(view, indent=2))


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(_line(line), err=True)


def _line(text: str) -> str:
    """An error is one line, whatever a peer or a library put into it."""
    from anycastlb.cli.paint import clean

    return clean(" ".join(text.split()))
