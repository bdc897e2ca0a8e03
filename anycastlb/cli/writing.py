"""What commands that write have in common: their options, the plan for ``--dry-run``, and the line after a write."""

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
    command = click.option(
        "--dry-run", is_flag=True, help="Show what would change, also on this node, and write nothing."
    )(command)
    return node(command)


def asks(command: F) -> F:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(command)


def fields(command: F) -> F:
    """The options for fields of a document that have no option of their own."""
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
    click.option("--health-timeout", metavar="DURATION", help="The time-out of a probe."),
    click.option("--health-period", metavar="DURATION", help="The time from one probe to the next."),
    click.option("--health-endpoint", metavar="URL", help='As in meradm: http://:8080/health, or "" for no check.'),
    click.option("--check-tcp", is_flag=True, help="Check that a TCP connection can be made."),
    click.option("--check-http", metavar="PATH", help="Check with an HTTP request for this path."),
    click.option(
        "--check",
        "check_type",
        metavar="TYPE",
        help="Check of this type; its parameters follow as KEY=VALUE among the arguments (see `anycastlb checks`).",
    ),
)


def forwards(*letters: str) -> Callable[[F], F]:
    """The options for the forwarding method; ``letters`` are the names of the option that takes it as a word."""

    def with_options(command: F) -> F:
        for option in _FORWARD_OPTIONS:
            command = option(command)
        words = click.Choice([*FORWARD.split("|"), "ipip"], case_sensitive=False)
        text = f"How packets reach the backends: {FORWARD}."
        return click.option(*letters, "forward_method", type=words, metavar="METHOD", help=text)(command)

    return with_options


def checks(command: F) -> F:
    """The options for the health check, which ``ipvsadm_options.check`` turns into a document."""
    for option in _CHECK_OPTIONS:
        command = option(command)
    return command


def virtual(command: F) -> F:
    """The options of ipvsadm that identify a virtual service by its address instead of its name."""

    @functools.wraps(command)
    def call(*args: Any, **given: Any) -> Any:
        services = [
            (name, text) for name in ("tcp", "udp", "sctp", "fwmark") for text in (given.pop(f"{name}_service") or ())
        ]
        return command(*args, on=services, **given)

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


def print_line(text: str) -> None:
    click.echo(line(text))


def pairs(words: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Split arguments into those that name something and those that are ``key=value``."""
    import re

    settings = [word for word in words if re.match(r"[a-z_]+(\.[a-z0-9_-]+)*=", word) and not _names(word)]
    return [word for word in words if word not in settings], settings


def _names(word: str) -> bool:
    """Is it NAME=ADDRESS, and not a parameter of a check?"""
    from anycastlb.cli.ipvsadm_options import is_endpoint, several

    name, _, text = word.partition("=")
    return name != "address" and all(map(is_endpoint, several(text))) if text else False


async def show_plan(lb: Any, proposed: Catalog, mode: str = "merge") -> None:
    """Print what these documents would change, instead of writing them."""
    from anycastlb.cli import terminal
    from anycastlb.cli.render import why

    terminal.show(why.proposal(await lb.plan(proposed, mode), terminal.width()))


def document(patch: Fields) -> Fields:
    """A new document from a patch: a field that the patch resets is left out."""
    from anycastlb.cli.ipvsadm_options import merge

    return merge({}, patch)
