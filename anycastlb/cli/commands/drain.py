"""``anycastlb drain`` and ``undrain``: a node leaves the routes and comes back. ``--wait`` follows it to the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from anycastlb.cli.commands import complete
from anycastlb.cli.location import Location
from anycastlb.cli.options import line, node

LOOK_INTERVAL = 0.5
"""Seconds between two requests."""
STAGES = {
    "": "has not heard of it yet",
    "waiting": "waiting for a stable table",
    "graceful": "announced as the last choice",
    "withdrawn": "withdrawn, still serving",
    "drained": "drained",
}


class Standing(NamedTuple):
    """How far a node is: whether it has arrived, its stage, and what changes by itself within the stage."""

    over: bool
    stage: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " · ".join((self.stage, *self.details))


Judge = Callable[[dict[str, Any], list[dict[str, Any]]], Standing]
"""From the status of a node and of all nodes to how far it is."""


def _timeout(command: Any) -> Any:
    command = click.option(
        "--timeout", "timeout", type=click.FloatRange(min=0), metavar="SECONDS",
        help="With --wait, give up after this time and exit with 1. The drain goes on.",
    )(command)  # fmt: skip
    return click.option("--wait", is_flag=True, help="Wait until it is over, and show how far it is.")(command)


@click.command()
@click.argument("name", required=False, metavar="[NODE]", shell_complete=complete.nodes)
@click.option("--reason", default="", metavar="TEXT", help="The reason, which the status of the node shows.")
@click.option(
    "--deadline", default="", metavar="DURATION",
    help="Maximum wait for traffic to stop after withdrawal (default: `[drain] deadline` in node.toml).",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Drain even if too many are drained, or no other announces its VIPs.")
@_timeout
@node
def drain(
    location: Location, name: str | None, reason: str, deadline: str, force: bool, wait: bool, timeout: float | None
) -> None:
    """Drain a node, this one unless named: it leaves the routes stage by stage, and still serves what arrives.

    The node waits until no table changes, announces its routes as the last choice (65535:0), withdraws them, and is
    drained when no traffic comes any more. With --wait the command ends then, with 0. The drain is refused, with 1, if
    it would be one node too many, or if no other node announces the VIPs.
    """
    from anycastlb.cli.ask import ask

    async def act(lb: Any) -> None:
        known = name or (await lb.status())["node"]["name"]
        done = await lb.drain_node(known, reason, deadline=deadline, force=force)
        outcome = "drained: it leaves the routes" if done.get("changed", True) else "unchanged"
        click.echo(f"node {line(known)}: {outcome}")
        if wait:
            asked = (done.get("document") or {}).get("since", "")
            await _follow(lb, known, lambda view, nodes: _left(view, asked), timeout)

    ask(location, act)


@click.command()
@click.argument("name", required=False, metavar="[NODE]", shell_complete=complete.nodes)
@_timeout
@node
def undrain(location: Location, name: str | None, wait: bool, timeout: float | None) -> None:
    """Let a drained node announce its routes again, this node unless named.

    With --wait the command ends, with 0, when the node announces every VIP that it may and that other nodes announce.
    """
    from anycastlb.cli.ask import ask

    async def act(lb: Any) -> None:
        known = name or (await lb.status())["node"]["name"]
        done = await lb.undrain_node(known)
        outcome = "not drained any more" if done.get("changed", True) else "unchanged"
        click.echo(f"node {line(known)}: {outcome}")
        if wait:
            await _follow(lb, known, _returned, timeout)

    ask(location, act)


# ---------------------------------------------------------------- following


async def _follow(lb: Any, name: str, judge: Judge, timeout: float | None) -> None:
    """Ask again and again until it is over. Raises ``click.ClickException`` if that takes too long."""
    import asyncio

    from anycastlb.client import NoAnswer, Unavailable, Unreachable

    show, began, standing = _Progress(), time.monotonic(), Standing(False, "nothing is known of it yet")
    while True:
        try:
            nodes = await lb.nodes()
            view = next((view for view in nodes if view["name"] == name), None)
            standing = judge(view, nodes) if view else Standing(False, "no such node is known")
        except (Unreachable, NoAnswer, Unavailable) as exc:
            standing = Standing(False, f"cannot ask: {exc}")
        show(f"node {line(name)}: {line(str(standing))}", standing.stage)
        if standing.over:
            return show.end()
        if timeout is not None and time.monotonic() - began > timeout:
            show.end()
            raise click.ClickException(
                f"node {line(name)}: not within {timeout:g} s; it goes on: {line(str(standing))}"
            )
        await asyncio.sleep(LOOK_INTERVAL)


class _Progress:
    """Print one line that changes on a terminal; elsewhere a line for each new stage."""

    def __init__(self) -> None:
        self._live, self._last = sys.stderr.isatty(), ""

    def __call__(self, text: str, stage: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        elif stage != self._last:
            self._last = stage
            click.echo(text, err=True)

    def end(self) -> None:
        if self._live:
            click.echo("", err=True)


def _left(view: dict[str, Any], asked: str) -> Standing:
    """Is the node drained? ``asked`` says when the drain was requested, which identifies it, if that is known."""
    if not view["alive"]:
        return Standing(False, "gone: its status is not there; start it, or see what became of it")
    if view["error"]:
        return Standing(False, view["error"])
    drain = view.get("drain")
    if not drain or (asked and drain["asked"] != asked):
        return Standing(False, STAGES[""])
    stage = STAGES.get(drain["stage"], drain["stage"])
    more = [drain["reason"]] if drain["stage"] == "waiting" else []
    more += [f"{drain['packets_per_second']:g} packets/s"] if drain["packets_per_second"] is not None else []
    more += [f"{drain['connections']} connections"] if drain["connections"] is not None else []
    if drain["stage"] == "drained":
        return Standing(True, stage, (drain["reason"],))
    more += [f"about {drain['eta_seconds']:.0f} s more"] if drain["eta_seconds"] is not None else []
    more += [f"until {drain['deadline']} at most"] if drain["deadline"] else []
    return Standing(False, stage, tuple(more))


def _returned(view: dict[str, Any], nodes: list[dict[str, Any]]) -> Standing:
    """Does the node announce again every VIP that it may and that other nodes announce?"""
    if not view["alive"]:
        return Standing(False, "gone: its status is not there; start it, or see what became of it")
    if view["error"]:
        return Standing(False, view["error"])
    if view["drained"] or view.get("drain"):
        return Standing(False, "drained still")
    others = [other for other in nodes if other["alive"] and other["name"] != view["name"]]
    common = {vip for other in others for vip, state in other["vips"].items() if state["announced"]}
    wanted = {vip for vip, state in view["vips"].items() if state["open"] or vip in common} | common
    missing = sorted(wanted - {vip for vip, state in view["vips"].items() if state["announced"]})
    announced = len(wanted) - len(missing)
    progress = f"announces {announced} of {len(wanted)} VIPs"
    if missing:
        reason = view["vips"].get(missing[0], {}).get("reason", "")
        return Standing(False, progress, (f"{missing[0]}: {reason}",) if reason else ())
    if not wanted and view["vips"]:
        return Standing(False, f"{progress}: none of its VIPs can be served")
    if not view["ready"]:
        return Standing(False, progress, (f"not ready: {'; '.join(view['missing'])}",))
    return Standing(True, progress)
