"""``anycastlb drain`` and ``undrain``: a node leaves the routes and comes back, followed to the end where asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import click

from anycastlb.cli.commands import complete
from anycastlb.cli.location import Location
from anycastlb.cli.options import line, node

LOOK_INTERVAL = 0.5
"""Seconds between two looks."""
STAGES = {
    "": "has not heard of it yet",
    "waiting": "waiting for a stable table",
    "graceful": "announced as the last choice",
    "withdrawn": "withdrawn, still serving",
    "drained": "drained",
}
Judge = Callable[[dict[str, Any], list[dict[str, Any]]], tuple[bool, str]]
"""A node's view, and all nodes': is it over, and how far it is, in words."""


def _timeout(command: Any) -> Any:
    command = click.option(
        "--timeout", "patience", type=click.FloatRange(min=0), metavar="SECONDS",
        help="With --wait, give up after this long, with 1; what was written stays.",
    )(command)  # fmt: skip
    return click.option("--wait", is_flag=True, help="Follow it to the end.")(command)


@click.command()
@click.argument("name", required=False, metavar="[NODE]", shell_complete=complete.nodes)
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who will wonder.")
@click.option(
    "--deadline", default="", metavar="DURATION",
    help="How long after its withdrawal it waits at most until nothing comes any more; else its node.toml says it.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Even if too many are drained, or no other node announces.")
@_timeout
@node
def drain(
    where: Location, name: str | None, reason: str, deadline: str, force: bool, wait: bool, patience: float | None
) -> None:
    """Drain a node, this one unless named: it leaves the routes stage by stage, and goes on serving what still comes.

    It waits until no table changes, announces its routes as the last choice (65535:0), withdraws them, and is drained
    once nothing comes any more. With --wait the command ends then, with 0. Refused, with 1, if it would be one node
    too many or the last.
    """
    from anycastlb.cli.ask import ask

    async def act(lb: Any) -> None:
        known = name or (await lb.status())["node"]["name"]
        done = await lb.drain_node(known, reason, deadline=deadline, force=force)
        told = "drained: it leaves the routes" if done.get("changed", True) else "unchanged"
        click.echo(f"node {line(known)}: {told}")
        if wait:
            asked = (done.get("document") or {}).get("since", "")
            await _follow(lb, known, lambda view, nodes: _left(view, asked), patience)

    ask(where, act)


@click.command()
@click.argument("name", required=False, metavar="[NODE]", shell_complete=complete.nodes)
@_timeout
@node
def undrain(where: Location, name: str | None, wait: bool, patience: float | None) -> None:
    """Let a drained node announce again, this one unless named.

    With --wait the command ends, with 0, once it announces every VIP that it may, and all that other nodes announce.
    """
    from anycastlb.cli.ask import ask

    async def act(lb: Any) -> None:
        known = name or (await lb.status())["node"]["name"]
        done = await lb.undrain_node(known)
        told = "not drained any more" if done.get("changed", True) else "unchanged"
        click.echo(f"node {line(known)}: {told}")
        if wait:
            await _follow(lb, known, _returned, patience)

    ask(where, act)


# ---------------------------------------------------------------- following


async def _follow(lb: Any, name: str, judge: Judge, patience: float | None) -> None:
    """Look until it is over. Raises ``click.ClickException`` when it cannot come to its end."""
    import asyncio

    from anycastlb.client import NoAnswer, Unavailable, Unreachable

    show, began, said = _Progress(), time.monotonic(), "nothing is known of it yet"
    while True:
        try:
            nodes = await lb.nodes()
            view = next((view for view in nodes if view["name"] == name), None)
            over, said = judge(view, nodes) if view else (False, "no such node is known")
        except (Unreachable, NoAnswer, Unavailable) as exc:
            over, said = False, f"cannot ask: {exc}"
        show(f"node {line(name)}: {line(said)}")
        if over:
            return show.end()
        if patience is not None and time.monotonic() - began > patience:
            show.end()
            raise click.ClickException(f"node {line(name)}: not within {patience:g} s; it goes on: {line(said)}")
        await asyncio.sleep(LOOK_INTERVAL)


class _Progress:
    """One line that changes on a terminal; else a line for each new stage."""

    def __init__(self) -> None:
        self._live, self._last = sys.stderr.isatty(), ""

    def __call__(self, text: str) -> None:
        if self._live:
            click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        elif (stage := text.partition(" · ")[0]) != self._last:
            self._last = stage
            click.echo(text, err=True)

    def end(self) -> None:
        if self._live:
            click.echo("", err=True)


def _left(view: dict[str, Any], asked: str) -> tuple[bool, str]:
    """Is the node drained? ``asked``: which drain is meant, if that is known."""
    if not view["alive"]:
        return False, "gone: its status is not there; start it, or see what became of it"
    if view["error"]:
        return False, view["error"]
    drain = view.get("drain")
    if not drain or (asked and drain["asked"] != asked):
        return False, STAGES[""]
    told = STAGES.get(drain["stage"], drain["stage"])
    more = [drain["reason"]] if drain["stage"] == "waiting" else []
    more += [f"{drain['packets_per_second']:g} packets/s"] if drain["packets_per_second"] is not None else []
    more += [f"{drain['connections']} connections"] if drain["connections"] is not None else []
    if drain["stage"] == "drained":
        return True, " · ".join([told, drain["reason"]])
    more += [f"about {drain['eta_seconds']:.0f} s more"] if drain["eta_seconds"] is not None else []
    more += [f"until {drain['deadline']} at most"] if drain["deadline"] else []
    return False, " · ".join([told, *more])


def _returned(view: dict[str, Any], nodes: list[dict[str, Any]]) -> tuple[bool, str]:
    """Does the node announce again what it may, and what others announce?"""
    if not view["alive"]:
        return False, "gone: its status is not there; start it, or see what became of it"
    if view["error"]:
        return False, view["error"]
    if view["drained"] or view.get("drain"):
        return False, "drained still"
    others = [other for other in nodes if other["alive"] and other["name"] != view["name"]]
    common = {vip for other in others for vip, told in other["vips"].items() if told["announced"]}
    wanted = {vip for vip, told in view["vips"].items() if told["open"] or vip in common} | common
    missing = sorted(wanted - {vip for vip, told in view["vips"].items() if told["announced"]})
    announced = len(wanted) - len(missing)
    told = f"announces {announced} of {len(wanted)} VIPs"
    if missing:
        reason = view["vips"].get(missing[0], {}).get("reason", "")
        return False, f"{told} · {missing[0]}: {reason}" if reason else told
    if not wanted and view["vips"]:
        return False, f"{told}: none of its VIPs can be served"
    if not view["ready"]:
        return False, f"{told} · not ready: {'; '.join(view['missing'])}"
    return True, told
