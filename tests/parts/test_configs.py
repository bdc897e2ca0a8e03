"""The examples an operator copies are accepted by ``anycastlb validate`` and leave no setting out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from anycastlb.settings import HttpSettings, Settings, parse
from tests.support.settings import model_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
HEADER = re.compile(r"(?:# )?\[(\w+)\]")
"""In a comment: the table turns something on by being there."""
KEY = re.compile(r"(?:# )?(\w+)\s*= ")


def keys(text: str) -> set[str]:
    """Every ``table.key`` set in the text, also those commented out."""
    found, table = set(), ""
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            table = header[1]
        elif key := KEY.match(line):
            found.add(f"{table}.{key[1]}")
    return found


def uncommented(text: str) -> str:
    """The settings with every default that is shown in a comment set; of two examples of one key, the last."""
    table: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            lines += [*table.values(), f"[{header[1]}]"]
            table = {}
        elif key := KEY.match(line):
            table[key[1]] = line.removeprefix("# ")
    return "\n".join([*lines, *table.values()])


def test_validate_accepts_every_example() -> None:
    files = [CONFIGS / "node.toml", *sorted((CONFIGS / "services").iterdir())]
    assert {file.suffix for file in files} >= {".json", ".toml", ".yaml"}
    done = subprocess.run(
        [sys.executable, "-m", "anycastlb", "validate", *map(str, files)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_example_settings_show_every_key_and_no_other() -> None:
    text = (CONFIGS / "node.toml").read_text()
    known = {f"{table}.{key}" for table, field in Settings.model_fields.items() for key in model_of(field).model_fields}
    assert keys(text) == known


def test_the_defaults_shown_are_the_defaults() -> None:
    text = (CONFIGS / "node.toml").read_text()
    alone = re.sub(r"^sync_refresh = .*$", "", uncommented(text), flags=re.M)  # it asks for another sync_threshold
    shown, usual = parse(alone, host="lb1"), parse(text, host="lb1")
    consul = {"token_file", "ca_file", "cert_file", "key_file", "namespace", "datacenter"}
    api = {"group", "read_token_file", "write_token_file", "tls_writers"}
    api |= {"tls_cert_file", "tls_key_file", "tls_client_ca_file"}
    dns = {"server", "zone", "subdomain", "tsig_key_file"}
    optional = {
        "consul": consul,
        "bgp": {"group"},
        "api": api,
        "checks": {"commands", "networks", "secrets"},
        "drain": {"med"},
        "ipvs": {"sync_interface", "sync_threshold"},
        "dns": dns,
    }
    unset = {"address", "ingress", "statsd"}
    assert shown.http is not None and usual.http is None
    assert shown.http.model_dump(exclude=unset) == HttpSettings().model_dump(exclude=unset)
    optional = {**optional, "http": True}
    assert shown.model_dump(exclude=optional) == usual.model_dump(exclude=optional)
