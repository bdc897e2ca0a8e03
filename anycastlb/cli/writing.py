"""What every command that writes has in common: its options, the plan instead of the write, and one line after it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from anycastlb.cli.edits import Catalog
from anycastlb.cli.ipvsadm_options import Fields
from anycastlb.cli.options import line, node

F = TypeVar("F", bound=Callable[..., Any])
FORWARD = "route|tunnel|masq|dr|nat|gue|gre"


def writes(command: F) -> F:
    """``--dry-run`` and the options of ``node``."""
    command = click.option("--dry-run", is_flag=True, help="Show what would change, on this node too; write nothing.")(
        command
    )
    return node(command)


def asks(command: F) -> F:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def fields(command: F) -> F:
    """Options for whatever a document has beyond the letters."""
    command = click.option(
        "--unset", multiple=True, metavar="FIELD", help="Reset a field to its default. May be repeated."
    )(command)
    return click.option(
        "--set", "assign", multiple=True, metavar="FIELD=VALUE",
        help="Set any field of the document (announce.min_backends=2). May be repeated.",
    )(command)  # fmt: skip


_FORWARD_OPTIONS = (
    click.option("--tun-port", type=click.IntRange(1, 65535), metavar="PORT", help="UDP port of a gue tunnel."),
    click.option("--tun-type", type=click.Choice(["ipip", "gue", "gre"]), help="Kind of tunnel, with -i."),
    click.option("-m", "--masquerading", is_flag=True, help="Forward with nat."),
    click.option("-i", "--ipip", is_flag=True, help="Forward with tunnel."),
    click.option("-g", "--gatewaying", is_flag=True, help="Forward with dr."),
)
_CHECK_OPTIONS = (
    click.option("--health-down", type=click.IntRange(1), metavar="N", help="Failures in a row to go down."),
    click.option("--health-up", type=click.IntRange(1), metavar="N", help="Successes in a row to come up."),
    click.option("--health-timeout", metavar="DURATION", help="What a probe may take."),
    click.option("--health-period", metavar="DURATION", help="From one probe to the next."),
    click.option("--health-endpoint", metavar="URL", help='As in meradm: http://:8080/health, or "" for no check.'),
    click.option("--check-tcp", is_flag=True, help="Check that it can be connected to."),
    click.option("--check-http", metavar="PATH", help="Check with an HTTP request for this path."),
    click.option(
        "--check",
        "check_type",
        metavar="TYPE",
        help="Check of this type; its parameters follow as KEY=VALUE among the arguments (see `anycastlb checks`).",
    ),
)


def forwards(*letters: str) -> Callable[[F], F]:
    """How packets are forwarded; ``letters`` are the names of the option that says it in a word."""

    def with_options(command: F) -> F:
        for option in _FORWARD_OPTIONS:
            command = option(command)
        words = click.Choice([*FORWARD.split("|"), "ipip"], case_sensitive=False)
        said = f"How packets reach the backends: {FORWARD}."
        return click.option(*letters, "forward_method", type=words, metavar="METHOD", help=said)(command)

    return with_options


def checks(command: F) -> F:
    """The health check; the command gets it as options for ``letters.check``."""
    for option in _CHECK_OPTIONS:
        command = option(command)
    return command


def virtual(command: F) -> F:
    """ipvsadm's letters that name a virtual service instead of its name."""

    @functools.wraps(command)
    def call(*args: Any, **given: Any) -> Any:
        said = [
            (name, text) for name in ("tcp", "udp", "sctp", "fwmark") for text in (given.pop(f"{name}_service") or ())
        ]
        return command(*args, on=said, **given)

    for letters, name in (
        (("--sctp-service",), "sctp"),
        (("-u", "--udp-service"), "udp"),
        (("-t", "--tcp-service"), "tcp"),
    ):
        text = f"The {name.upper()} service, by its virtual address; for several VIPs, several times."
        call = click.option(*letters, f"{name}_service", multiple=True, metavar="ADDRESS:PORT", help=text)(call)
    return call  # type: ignore[return-value]


def fwmark(*letters: str) -> Callable[[F], F]:
    text = "The service, by its firewall mark."
    return click.option(*letters, "fwmark_service", multiple=True, metavar="MARK", help=text)


def say(text: str) -> None:
    click.echo(line(text))


def pairs(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Arguments -> those that name something, and those that are ``key=value``."""
    import re

    settings = [word for word in words if re.match(r"[a-z_]+(\.[a-z0-9_-]+)*=", word) and not _names(word)]
    return [word for word in words if word not in settings], settings


def _names(word: str) -> bool:
    """Is it NAME=ADDRESS, rather than a parameter of a check?"""
    from anycastlb.cli.ipvsadm_options import is_endpoint, several

    name, _, text = word.partition("=")
    return name != "address" and all(map(is_endpoint, several(text))) if text else False


async def show_plan(lb: Any, proposed: Catalog, mode: str = "merge") -> None:
    """What these documents would change, instead of writing them."""
    from anycastlb.cli import terminal
    from anycastlb.cli.render import why

    terminal.show(why.proposal(await lb.plan(proposed, mode), terminal.width()))


def document(patch: Fields) -> Fields:
    """A new document from a patch: what is reset is simply not there."""
    from anycastlb.cli.ipvsadm_options import merge

    return merge({}, patch)
