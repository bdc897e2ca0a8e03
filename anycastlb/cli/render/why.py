"""``anycastlb why``, ``plan`` and ``events``: the answers of the API as lines for a terminal.

Pure: a view in, lines out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anycastlb.cli.edits import difference
from anycastlb.cli.render.style import BAD, BOLD, DIM, GOOD, PLAIN, WARN, Line, count, sign, wrap

MAX_LINKS = 12
"""How many backends of one service are shown: the chain must fit a screen. Those that do not serve come first."""
LEVELS = {"info": PLAIN, "warning": WARN, "error": BAD}


def why_lines(view: dict[str, Any], columns: int) -> list[Line]:
    """The answer, then the chain from evidence to route, one link a line."""
    title: Line = [
        sign(view["ok"]),
        (f" {view['object']}", BOLD),
        ("  ", PLAIN),
        (view["answer"], GOOD if view["ok"] else BAD),
    ]
    lines = [*wrap(title, columns, 4), []]
    for link in view["chain"]:
        lines += _link(link, columns, 0)
    return lines


def _link(link: dict[str, Any], columns: int, depth: int) -> list[Line]:
    indent = "  " * depth
    line: Line = [(indent, PLAIN), sign(link["ok"]), (f" {link['what']:<8}", DIM)]
    line += [(part, BOLD) for part in [f" {link['object']}"] if link["object"]]
    if link["text"]:
        line.append((("  " if link["object"] else " ") + link["text"], BAD if link["ok"] is False else PLAIN))
    lines = wrap(line, columns, len(indent) + 11)
    links = link["links"]
    if link["what"] in ("service", "pool", "gateway"):
        links = sorted(links, key=lambda item: item["ok"] is True)[:MAX_LINKS]
    for item in links:
        lines += _link(item, columns, depth + 1)
    if len(links) < len(link["links"]):
        left = len(link["links"]) - len(links)
        more = "more route" if link["what"] == "gateway" else "more backend"
        lines.append([(f"{indent}    and {count(left, more)}", DIM)])
    return lines


def changes(view: dict[str, Any], columns: int, assumption: str = "") -> list[Line]:
    """The plan, numbered in the order in which it is carried out."""
    items = view["changes"]
    head = (
        f"{count(len(items), 'change')}, in this order" if items else "nothing to change: the node is as it should be"
    )
    lines = wrap([(head, BOLD)], columns, 2)
    if assumption:
        lines = [*wrap([(assumption, WARN)], columns, 2), *lines]
    digits = len(str(len(items)))
    for number, change in enumerate(items, 1):
        difference = _difference(change["before"], change["after"])
        line: Line = [
            (f"{number:>{digits}} ", DIM),
            (f"{change['verb']:<6} ", {"create": GOOD, "delete": BAD}.get(change["verb"], WARN)),
            (change["object"], BOLD),
            (f"  {difference}" if difference else "", PLAIN),
            (f"  ({change['why']})" if change["why"] else "", DIM),
            (_carried(change.get("flows")), WARN),
            (f"  REFUSED: {change['refused']}" if change["refused"] else "", BAD),
        ]
        lines += wrap(line, columns, digits + 8)
    return lines


def _carried(flows: Any) -> str:
    """How many flows go through what is taken away or changed, where that is known and any."""
    return f"  carries {count(flows, 'flow')} now" if isinstance(flows, int) and flows else ""


def proposal(view: Any, columns: int) -> list[Line]:
    """What a proposed catalog would change: the documents, then this node, then what is wrong with it."""
    lines = documents(view["edits"], columns) or [[("no document would change", BOLD)]]
    if view["changes"]:
        lines += [[], *changes(view, columns, "On this node:")]
    elif view["edits"]:
        lines += [[], [("on this node nothing would change", BOLD)]]
    lines += _outlook(view, columns)
    for problem in view["problems"]:
        path = f"{problem['path']}: " if problem["path"] else ""
        lines += wrap([("! ", BAD), (f"PROBLEM {problem['key']}: {path}{problem['expected']}", BAD)], columns, 2)
    return lines


def _outlook(view: Any, columns: int) -> list[Line]:
    """What the changes mean for flows, and what the answer takes for granted."""
    lines: list[Line] = []
    for move in view.get("moves", ()):
        text = f"{move['service']} {move['key']}: {move['share']:.1%} of its flows would go to another backend"
        lines += wrap([("~ ", WARN), (text, WARN)], columns, 2)
    if assumed := view.get("assumed_up"):
        text = f"not checked yet, taken for up: {', '.join(assumed[:10])}" + ("…" if len(assumed) > 10 else "")
        lines += wrap([("  ", PLAIN), (text, DIM)], columns, 2)
    if view.get("held"):
        lines += wrap([("! ", BAD), (view["held"], BAD)], columns, 2)
    return lines


def documents(edits: Sequence[Any], columns: int) -> list[Line]:
    """One line for each document that is written or deleted."""
    lines: list[Line] = []
    for edit in edits:
        fields = difference(edit["before"], edit["after"]) if edit["after"] is not None else ""
        line: Line = [
            (f"{edit['verb']:<6} ", {"create": GOOD, "delete": BAD}.get(edit["verb"], WARN)),
            (edit["key"], BOLD),
            (f"  {fields}" if fields else "", PLAIN),
        ]
        lines += wrap(line, columns, 7)
    return lines


def _difference(before: Any, after: Any) -> str:
    """What an update changes, field by field; what a create sets; nothing for a delete."""
    if after is None:
        return ""
    if not isinstance(after, dict):
        return f"{before} → {after}" if before is not None else str(after)
    if before is None:
        plain = {"last_weight"} if after.get("last_weight") == after.get("weight") else set()
        shown = {name: value for name, value in after.items() if name not in plain and (value or name == "weight")}
        return ", ".join(f"{name} {_shown(value)}" for name, value in shown.items())
    return ", ".join(
        f"{name} {_shown(before[name])} → {_shown(value)}" for name, value in after.items() if before[name] != value
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def events(view: dict[str, Any]) -> list[Line]:
    """One event a line, oldest first; not wrapped, so that grep sees whole events."""
    return [_event(item) for item in view["events"]]


def _event(item: dict[str, Any]) -> Line:
    style = LEVELS.get(item["level"], PLAIN)
    moved = " → ".join(part for part in (item["before"], item["after"]) if part)
    text = "".join(f"  {part}" for part in (moved, item["reason"]) if part)
    return [
        (f"{item['at']}  ", DIM),
        (f"{item['level']:<7} {item['kind']:<19} ", style),
        (item["subject"], BOLD),
        (text, style),
    ]
