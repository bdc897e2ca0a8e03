"""The end of ``anycastlb status``: what drains, and what needs attention. Pure: a view in, lines out."""

from __future__ import annotations

from typing import Any

from anycastlb.cli.render import cluster
from anycastlb.cli.render.style import BAD, DIM, PLAIN, WARN, Line, count, wrap
from anycastlb.serving.views.format import span

MAX_ENTRIES = 10
"""How many entries of one kind stand at the bottom; the rest is counted."""


def draining(view: dict[str, Any], columns: int) -> list[Line]:
    items = [item for item in view["leaving"] if item["table"] != "addresses"]
    lines: list[Line] = []
    for item in items[:MAX_ENTRIES]:
        lines += wrap([("draining ", WARN), (f"{item['object']} for {span(item['for_seconds'])}", PLAIN)], columns, 9)
    if len(items) > MAX_ENTRIES:
        lines.append([(f"         and {len(items) - MAX_ENTRIES} more", DIM)])
    return lines


def alarms(view: dict[str, Any], columns: int) -> list[Line]:
    texts = [f"PROBLEM {_problem(problem)}" for problem in view["problems"][:MAX_ENTRIES]]
    texts += _rest(len(view["problems"]), "problem")
    texts += [f"FAILED {item['verb']} {item['object']}: {item['refused']}" for item in view["failures"][:MAX_ENTRIES]]
    texts += _rest(len(view["failures"]), "failed change")
    texts += cluster.alarms(view["cluster"])
    if held := view["catalog"]["held"]:
        texts.append(_held(held))
    return [line for text in texts for line in wrap([("! ", BAD), (text, BAD)], columns, 2)]


def _rest(number: int, noun: str) -> list[str]:
    return (
        [f"and {count(number - MAX_ENTRIES, f'more {noun}')} (anycastlb status --json)"] if number > MAX_ENTRIES else []
    )


def _problem(problem: dict[str, Any]) -> str:
    line = f":{problem['line']}" if problem["line"] else ""
    path = f"{problem['path']}: " if problem["path"] else ""
    return f"{problem['key']}{line}: {path}{problem['expected']}"


def _held(held: dict[str, Any]) -> str:
    lost = ", ".join(held["lost"][:MAX_ENTRIES]) + (
        f" and {len(held['lost']) - MAX_ENTRIES} more" if len(held["lost"]) > MAX_ENTRIES else ""
    )
    until, age = held["believed_in_seconds"], span(held["since_seconds"])
    otherwise = f"; if it persists it is believed in {span(until)}" if until is not None else ""
    return (
        f"HELD: the catalog lost {len(held['lost'])} of {count(held['of'], 'VIP')} at once {age} ago "
        f"and is not applied: {lost}. `anycastlb confirm` lets it through{otherwise}"
    )
