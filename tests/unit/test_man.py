"""The manual pages are what the commands say of themselves now, and a formatter finds nothing wrong with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from anycastlb.cli import main
from anycastlb.settings import Settings

FOLDER = Path(__file__).parents[2] / "docs" / "man"
PAGES = ("anycastlb.1", "anycastlb-bridge.1", "node.toml.5")


def test_the_pages_are_those_that_would_be_written() -> None:
    argv = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), "make man writes them anew"


def test_every_command_and_every_setting_is_in_them() -> None:
    page = (FOLDER / "anycastlb.1").read_text()
    told = set(re.findall(r"^\.SS anycastlb (\S+)", page, re.MULTILINE))
    assert told == {name.replace("-", "\\-") for name, command in main.commands.items() if not command.hidden}
    page = (FOLDER / "node.toml.5").read_text()
    for table, field in Settings.model_fields.items():
        section = page.partition(f".SH [{table}]\n")[2].partition("\n.SH ")[0]
        (model,) = (kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None))
        for key in model.model_fields:
            assert re.search(rf"^\\fB{key} = .*\\fR\n[A-Z\"d]", section, re.MULTILINE), f"{table}.{key}"


@pytest.mark.parametrize("name", PAGES)
def test_a_formatter_warns_of_nothing(name: str, require: Callable[[str], str]) -> None:
    argv = [require("groff"), "-man", "-ww", "-Tutf8", str(FOLDER / name)]
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, env=env)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) > 20
