"""What commands have in common: the group with its aliases and errors, and the options that many commands take.

An error is one line on standard error; the exit code is 0 when all is fine, 1 for an error (of usage too), and 2 where
a command that looks for differences or for something unhealthy found any.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from anycastlb.cli.location import CONFIG, Location
from anycastlb.core.model import AnycastlbError, SettingsError

F = TypeVar("F", bound=Callable[..., Any])
DIFFERS = 2
"""The exit code if something differs or is unhealthy."""
ALIASES: Mapping[str, str] = {
    **dict.fromkeys(("delete", "remove", "rm"), "del"),
    **dict.fromkeys(("update", "set", "change"), "edit"),
    **dict.fromkeys(("ls",), "list"),
    **dict.fromkeys(("get",), "show"),
    **dict.fromkeys(("new", "create"), "add"),
    **dict.fromkeys(("services",), "service"),
    **dict.fromkeys(("gateways",), "gateway"),
    **dict.fromkeys(("routes",), "route"),
    **dict.fromkeys(("servers", "backend", "backends"), "server"),
}
FORMS = ("table", "json", "yaml")


class Commands(click.Group):
    """A group that handles our own errors as click handles its own, and accepts the command names of other tools."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, ALIASES.get(cmd_name, ""))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _, command, rest = super().resolve_command(ctx, args)
        return command.name if command else None, command, rest

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with_usage: click.Context = _plainly(lambda: super(Commands, self).make_context(*args, **more))
        return with_usage

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return _plainly(lambda: super(Commands, self).invoke(ctx))
        except SettingsError as exc:
            print_errors(map(str, exc.problems))
            ctx.exit(1)
        except AnycastlbError as exc:
            click.ClickException(line(str(exc))).show()
            print_errors(f"  {problem}" for problem in getattr(exc, "problems", ()))
            ctx.exit(1)


def _plainly(call: Callable[[], Any]) -> Any:
    """What ``call`` returns. An error of click becomes one line with exit code 1."""
    try:
        return call()
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        raise click.exceptions.Exit(1) from exc
    except click.UsageError as exc:
        path = exc.ctx.command_path if exc.ctx else "anycastlb"
        raise click.ClickException(line(f"{exc.format_message().rstrip('.')}: see `{path} --help`")) from exc
    except click.ClickException as exc:
        raise click.ClickException(line(exc.message)) from exc


def node(command: F) -> F:
    """The options of every command that asks the running node; the command gets them as ``location``."""

    @functools.wraps(command)
    def call(*args: Any, **given: Any) -> Any:
        options = {name: given.pop(name) for name in ("config", "api", "socket", "token_file", "ca", "cert", "key")}
        return command(*args, location=Location(**options), **given)

    for option in reversed(
        [
            click.option("--config", metavar="FILE", help=f"Node settings that name the API.  [{CONFIG}]"),
            click.option(
                "--api", metavar="URL", envvar="ANYCASTLB_API", help="The address of the API: ADDRESS:PORT, http(s)://…"
            ),
            click.option(
                "--socket", metavar="PATH", envvar="ANYCASTLB_SOCKET", help="The unix socket of the API instead."
            ),
            click.option(
                "--token-file", metavar="FILE", envvar="ANYCASTLB_TOKEN_FILE", help="The file with the API's token."
            ),
            click.option(
                "--ca", metavar="FILE", envvar="ANYCASTLB_CA", help="For https: the CA certificates to trust (PEM)."
            ),
            click.option(
                "--cert", metavar="FILE", envvar="ANYCASTLB_CERT", help="For https: the client certificate (PEM)."
            ),
            click.option("--key", metavar="FILE", envvar="ANYCASTLB_KEY", help="For https: its private key (PEM)."),
        ]
    ):
        call = option(call)
    return call  # type: ignore[return-value]


def output(command: F) -> F:
    """The options ``-o table|json|yaml`` and ``--json``; the command gets the choice as ``form``."""

    @functools.wraps(command)
    def call(*args: Any, **given: Any) -> Any:
        as_json = given.pop("as_json")
        return command(*args, form="json" if as_json else given.pop("output"), **_without(given, "output"))

    call = click.option("--json", "as_json", is_flag=True, help="The same as -o json.")(call)
    chosen = click.Choice(FORMS)
    return click.option(  # type: ignore[return-value]
        "-o", "--output", type=chosen, default="table", show_default=True, help="How to print the answer."
    )(call)


def _without(given: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != name}


def dump(view: Any, form: str) -> None:
    """Print an answer of the API on standard output, as JSON or YAML."""
    click.echo(dumped(view, form), nl=False)


def dumped(view: Any, form: str) -> str:
    if form == "yaml":
        import yaml

        text: str = yaml.safe_dump(view, sort_keys=False, allow_unicode=True, width=120)
        return text
    import json

    return json.dumps(view, indent=2) + "\n"


def print_errors(lines: Iterable[str]) -> None:
    """Print each as one line on standard error."""
    for text in lines:
        click.echo(("  " if text.startswith("  ") else "") + line(text), err=True)


def line(text: str) -> str:
    """The text as one line without control characters, whatever a peer or a library put into it."""
    from anycastlb.cli.render.style import clean

    return clean(" ".join(text.split()))


def confirm_or_stop(question: str, yes: bool) -> None:
    """Ask the user at a terminal before something that cannot be undone. Raises ``click.ClickException`` on a no."""
    import sys

    if not yes and sys.stdin.isatty() and not click.confirm(question, err=True):
        raise click.ClickException("nothing was changed")
