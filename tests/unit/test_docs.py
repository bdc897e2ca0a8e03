"""What the documents promise is there: links lead somewhere, commands exist, documents load."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import click
import pytest

from anycastlb.adapters.checks import PARAMS
from anycastlb.cli import main
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.importers import keepalived
from anycastlb.core.model import Catalog, Entry, Tree

ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("vagrant/*.md"),
        *ROOT.glob("configs/**/*.md"),
    )
)
BY_NAME = {str(path.relative_to(ROOT)): path for path in PAGES}
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
MIGRATION = [name for name in BY_NAME if name.startswith("docs/migration/")]


def blocks(name: str) -> list[tuple[str, str]]:
    """Every fenced block of a page: (what it is, its text)."""
    return [(kind.strip(), text) for kind, text in FENCE.findall(BY_NAME[name].read_text())]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", BY_NAME)
def test_links_lead_somewhere(name: str) -> None:
    page = BY_NAME[name]
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            lost.append(link)
    assert not lost


def commands(text: str) -> Iterator[list[str]]:
    """The calls of anycastlb in a block of shell, as words; what the shell itself makes of them is left out."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        plain = re.sub(r"^\s*(\S*\s)?\$ ", "", line.partition(" #")[0])
        for part in re.split(r"\||&&|\|\||;|\$\(|\)", plain):
            words = re.sub(r"\d?[<>]+\s*\S+", "", part).split()
            while words and words[0] in ("sudo", "do", "while", "until", "if", "!"):
                words.pop(0)
            if words[:1] == ["anycastlb"] and len(words) > 1 and not re.match(r"\d|…", words[1]):
                try:
                    yield shlex.split(" ".join(words[1:]))
                except ValueError:
                    yield words[1:]


def unknown(words: list[str]) -> str:
    """What of a call the commands do not have."""
    context = click.Context(main)
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return words[0]
        command, words = found, words[1:]
    known = {
        option for parameter in command.get_params(context) for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for word in words:
        option = word.partition("=")[0]
        if re.fullmatch(r"--[a-z][a-z-]+", option) and option not in known:
            return option
    return ""


@pytest.mark.parametrize("name", BY_NAME)
def test_commands_exist(name: str) -> None:
    calls = [
        words
        for kind, text in blocks(name)
        if kind in ("", "console", "sh", "bash", "shell")
        for words in commands(text)
    ]
    assert not [f"anycastlb {shlex.join(words)}: {what}" for words in calls if (what := unknown(words))]


def test_a_command_that_is_not_there_is_found() -> None:
    told = [unknown(words) for words in commands("lb1 $ anycastlb frobnicate\nanycastlb drain lb1 --nowhere | cat\n")]
    assert told == ["frobnicate", "--nowhere"]


@pytest.mark.parametrize("name", MIGRATION)
def test_documents_of_the_migration_pages_load(name: str) -> None:
    for kind, text in blocks(name):
        if kind.startswith("json services/"):
            key = kind.removeprefix("json ")
            found = parse_catalog(Tree({key: Entry(text.encode())}), Catalog(), ANYWHERE, (), PARAMS)
            assert not found.problems


def test_keepalived_becomes_what_its_page_shows() -> None:
    found = dict(blocks("docs/migration/keepalived.md"))
    documents, _ = keepalived.convert(found["keepalived"])
    assert documents == json.loads(found["json converted"])["catalog"]


def test_the_readmes_way_to_a_node_is_the_tested_one() -> None:
    tested = [text for kind, text in blocks("docs/INSTALL.md") if kind == "sh"]
    path = [text for kind, text in blocks("README.md") if kind == "sh"]
    assert len(path) >= 5 and not [text for text in path if text not in tested]
