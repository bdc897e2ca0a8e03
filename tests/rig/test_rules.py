"""promtool accepts everything configs/prometheus ships, and the alerts pass their own tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support import promql

SHIPPED = promql.CONFIGS / "prometheus"


def promtool(program: str, *words: str) -> None:
    checked = subprocess.run([program, *words], capture_output=True, text=True, timeout=300)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("kind", ["rules", "config"])
def test_they_are_valid(kind: str, require: Callable[[str], str]) -> None:
    file = {"rules": "alerts.yml", "config": "prometheus.yml"}[kind]
    promtool(require("promtool"), "check", kind, str(SHIPPED / file))


def test_every_alert_fires_when_it_should_and_only_then(require: Callable[[str], str]) -> None:
    files = sorted(str(path) for path in SHIPPED.glob("*.test.yml"))
    assert len(files) == 2
    promtool(require("promtool"), "test", "rules", *files)


def test_every_expression_of_the_dashboard_is_valid(require: Callable[[str], str], tmp_path: Path) -> None:
    expressions = [expression for _, expression in promql.dashboard_expressions()]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool(require("promtool"), "check", "rules", str(tmp_path / "panels.yml"))
