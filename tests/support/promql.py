"""The expressions that configs/ ships, and the names of metrics in one: enough of a PromQL lexer for that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
DASHBOARD = CONFIGS / "grafana/anycastlb.json"
RULES = CONFIGS / "prometheus/alerts.yml"
STRING = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
GROUPING = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"
WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


def names(expression: str) -> set[str]:
    """Metric names: identifiers that are no label, no function, no keyword and no part of a string or duration."""
    bare = re.sub(STRING, '""', expression)
    bare = re.sub(r"\{[^}]*\}", " ", bare)
    bare = re.sub(r"\[[^\]]*\]", " ", bare)
    bare = re.sub(GROUPING, " ", bare)
    found = re.finditer(r"(?<![\w.$])[a-zA-Z_:][\w:]*(?!\s*\()", bare)
    complete = (m[0] for m in found if not re.match(r"[\w:]", bare[m.end() : m.end() + 1]))
    return {word for word in complete if word.lower() not in WORDS}


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def rule_expressions() -> Iterator[tuple[str, str]]:
    """(alert, expression)."""
    for rule in rules():
        yield rule["alert"], rule["expr"]


def panels() -> Iterator[dict[str, Any]]:
    """Every panel of the dashboard, rows and what is folded in them too."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield panel
        yield from panel.get("panels", ())


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """(panel's title or variable's name, expression without Grafana's variables)."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], _plain(target["expr"])
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((.+),\s*\w+\)", variable["query"]["query"])
            assert inner, variable
            yield variable["name"], _plain(inner[1])


def _plain(expression: str) -> str:
    return re.sub(r"\$(\w+|\{\w+\})", "x", expression.replace("$__rate_interval", "5m").replace("$__range", "1h"))
