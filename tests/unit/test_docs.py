"""The documents keep up with the code: their links, commands, examples, numbers, folders and paths are real."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from ipaddress import ip_network
from pathlib import Path

import click
import pytest

from anycastlb import settings
from anycastlb.adapters import gate_memory
from anycastlb.adapters.checks import PARAMS, syslog, tcp, udp
from anycastlb.adapters.checks.probe import web
from anycastlb.adapters.cluster import instance
from anycastlb.adapters.drivers import saved_settings
from anycastlb.adapters.drivers.addresses import MARK
from anycastlb.adapters.sources import cache, consul
from anycastlb.adapters.system.journal import Journal
from anycastlb.cli import main
from anycastlb.core.catalog import edit
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.importers import keepalived, kglb
from anycastlb.core.model import Catalog, Entry, Tree
from anycastlb.serving import history
from anycastlb.serving.api.http import connection, handshakes, limits, listener

ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
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
    slugs: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slugs.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return slugs


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
            catalog = parse_catalog(Tree({key: Entry(text.encode())}), Catalog(), ANYWHERE, (), PARAMS)
            assert not catalog.problems


def test_keepalived_becomes_what_its_page_shows() -> None:
    found = dict(blocks("docs/migration/keepalived.md"))
    documents, _ = keepalived.convert(found["keepalived"])
    assert documents == json.loads(found["json converted"])["catalog"]


def test_kglb_becomes_what_its_page_shows() -> None:
    found = dict(blocks("docs/migration/kglb.md"))
    documents, _ = kglb.convert(found["json kglb"])
    assert documents == json.loads(found["json converted"])["catalog"]


def test_the_readmes_way_to_a_node_is_the_tested_one() -> None:
    tested = [text for kind, text in blocks("docs/INSTALL.md") if kind == "sh"]
    path = [text for kind, text in blocks("README.md") if kind == "sh"]
    assert len(path) >= 5 and not [text for text in path if text not in tested]


KIB, MIB = 1024, 1024 * 1024
DEFAULTS = settings.parse('[node]\nvip_ranges = ["192.0.2.0/24"]')
NODE_UNIT = (ROOT / "configs/systemd/anycastlb.service").read_text()
NUMBERS = [
    ("SECURITY", f"| a body | {limits.ORDINARY.size // KIB} KiB in {limits.ORDINARY.seconds:g} s; bulk calls, "
                 f"import and plan {limits.BULK.size // MIB} MiB in {limits.BULK.seconds:g} s"),
    ("SECURITY", f"| bulk requests in progress | {limits.BULK_AT_ONCE} |"),
    ("SECURITY", f"; {listener.ACCEPT_RATE:g} new ones a second"),
    ("SECURITY", f"{handshakes.FASTEST:g} with ECDSA; twice that at once; {handshakes.MAX_WAITING} wait, "
                 f"{handshakes.MAX_WAITING_OF_ONE} of them of one peer"),
    ("SECURITY", f"| {connection.MAX_LINE / KIB:.0f} KiB line, {connection.MAX_FIELD / KIB:.0f} KiB a header, "
                 f"{connection.MAX_FIELDS} headers"),
    ("API", f"samples taken every {history.PAUSE:g} s, {history.SLOTS} of them"),
    ("API", f"there was no room ({history.MAX_ROWS:,} are kept)"),
    ("EVENTS", f"keeps the last {signature(Journal).parameters['routine'].default} of level `info`"),
    ("EVENTS", f"last {signature(Journal).parameters['failures'].default} warnings and errors"),
    ("CATALOG", f"What must come back within the first {tcp.MAX_BYTES // KIB} KiB"),
    ("CATALOG", f"What the first {web.MAX_BODY // KIB} KiB of the body must contain"),
    ("CATALOG", f"and digits; at most {udp.MAX_BYTES} bytes"),
    ("CATALOG", f"The port is {syslog.PORT} where neither"),
    ("CATALOG", f"(`[catalog] max_shrink`, {DEFAULTS.catalog.max_shrink} unless set)"),
    ("CATALOG", f"persisted for {DEFAULTS.catalog.confirm / 60:g} minutes"),
    ("ARCHITECTURE", f"`IFA_PROTO` mark ({MARK})"),
    ("ARCHITECTURE", f"`bgp.hold` ({DEFAULTS.bgp.hold:g} s unless set)"),
    ("ROLLING", f"`[bgp] hold` ({DEFAULTS.bgp.hold:g} s unless set)"),
    ("ROLLING", f"`[drain] settle` ({DEFAULTS.drain.settle / 60:g} min)"),
    ("ROLLING", f"`[drain] graceful` ({DEFAULTS.drain.graceful:g} s)"),
    ("ROLLING", f"`[drain] deadline` ({DEFAULTS.drain.deadline / 60:g} min"),
    ("OPERATIONS", f"within `resync` ({DEFAULTS.node.resync:g} s)"),
    ("OPERATIONS", f"`[bgp] hold` ({DEFAULTS.bgp.hold:g} s)"),
    ("NAMES", f"`deregister_after` ({DEFAULTS.consul.deregister_after / 60:g} minutes)"),
    ("INSTALL", f"(a hang: after {re.findall('WatchdogSec=([0-9]+)s', NODE_UNIT)[0]} seconds)"),
    ("INSTALL", f"(at most {re.findall('TimeoutStopSec=([0-9]+)min', NODE_UNIT)[0]} minutes: `TimeoutStopSec`)"),
    ("INSTALL", f"`[bgp] hold` ({DEFAULTS.bgp.hold:g} s)"),
]  # fmt: skip
"""(page, what it says): limits and defaults, written with the values of the code."""


@pytest.mark.parametrize(("page", "promise"), NUMBERS, ids=[f"{page}: {text[:40]}" for page, text in NUMBERS])
def test_limits_and_defaults_are_those_of_the_code(page: str, promise: str) -> None:
    assert " ".join(promise.split()) in " ".join(BY_NAME[f"docs/{page}.md"].read_text().split())


def constants(path: Path) -> dict[str, ast.expr]:
    """The limits that a module sets: its constants ``MAX_...``."""
    limits: dict[str, ast.expr] = {}
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            limits |= {name.id: name for name in names if isinstance(name, ast.Name) and name.id.startswith("MAX_")}
    return limits


BOUNDED = ("adapters/checks", "adapters/cluster", "adapters/consul", "adapters/discovery", "adapters/sources",
           "bridge", "cli/formats.py", "core/catalog", "core/decision", "core/fields.py", "core/http", "core/importers",
           "core/scalars.py", "doctor/collect", "doctor/facts.py",
           "engine/checker/protocol.py", "serving/api")  # fmt: skip
"""Where what others hand to a node is bounded."""
LIMITS = re.findall(
    r"^\| .+? \| (.+?) \| .+? \| `([\w/.]+)\.py: (\w+)` \|$", BY_NAME["docs/LIMITS.md"].read_text(), re.M
)


def test_every_limit_is_on_the_page_of_limits() -> None:
    package = ROOT / "anycastlb"
    files = [
        path
        for part in BOUNDED
        for path in ([package / part] if part.endswith(".py") else (package / part).rglob("*.py"))
    ]
    known = {f"{path.relative_to(package).with_suffix('')}: {name}" for path in files for name in constants(path)}
    assert known - {f"{module}: {name}" for _, module, name in LIMITS} == set()


@pytest.mark.parametrize(("limit", "module", "name"), LIMITS, ids=[f"{module}: {name}" for _, module, name in LIMITS])
def test_the_page_of_limits_says_what_the_code_does(limit: str, module: str, name: str) -> None:
    value = getattr(import_module(f"anycastlb.{module.replace('/', '.')}"), name)
    ways = {
        f"{value:,.0f}",
        f"{value / KIB:,.0f} KiB",
        f"{value / MIB:,.0f} MiB",
        *(["below 2^63"] if value == 2**63 else []),
    }
    assert limit in ways


def test_the_tests_that_try_to_break_the_promises_exist() -> None:
    text = BY_NAME["docs/SECURITY.md"].read_text().partition("\n## Who tries to break it\n")[2]
    promises = re.findall(r"^\| (?!promise|---)(.+?) \| (.+) \|$", text, re.M)
    assert len(promises) > 30
    for promise, tests in promises:
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert named, promise
        for file, name in named:
            assert re.search(rf"^(    )?(async )?def {name}\(", (ROOT / file).read_text(), re.M), (
                f"{promise}: {file}::{name}"
            )


def rows(heading: str) -> dict[str, str]:
    """The table under a heading of ARCHITECTURE.md: its first cell in code -> the second."""
    _, _, section = BY_NAME["docs/ARCHITECTURE.md"].read_text().partition(f"\n## {heading}\n")
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section.partition("\n## ")[0], re.M))


def folders(path: Path) -> set[str]:
    """The folders that hold code."""
    return {folder.name for folder in path.iterdir() if folder.is_dir() and any(folder.rglob("*.py"))}


def test_the_folders_of_the_architecture_are_those_that_exist() -> None:
    described = rows("Who may import whom")
    assert set(described) == {f"{name}/" for name in folders(ROOT / "anycastlb")} | {"daemon.py"}
    for folder in ("adapters", "core", "serving", "doctor", "cli"):
        missing = {f"`{name}/`" for name in folders(ROOT / "anycastlb" / folder)} - set(
            re.findall(r"`\w+/`", described[f"{folder}/"])
        )
        assert not missing, f"{folder}/ does not name {missing}"


def test_the_kinds_of_tests_are_those_that_exist() -> None:
    assert set(rows("Tests")) == {f"tests/{name}" for name in folders(ROOT / "tests")}


@pytest.mark.parametrize("name", [name for name in BY_NAME if not name.startswith("docs/decisions/")])
def test_paths_of_this_repository_exist(name: str) -> None:
    """In code quotes; a path may begin at the top, or in the package. Decision records keep the names of their day."""
    tops = "|".join(sorted(folders(ROOT) | {"configs", "docs", "exabgp", "vagrant"} | folders(ROOT / "anycastlb")))
    paths = re.findall(rf"`((?:{tops})/[\w./-]*)`", BY_NAME[name].read_text())
    known = [path for path in paths if "NAME" not in path and not path.startswith(KEYS)]
    assert not [path for path in known if not (ROOT / path).exists() and not (ROOT / "anycastlb" / path).exists()]


KEYS = tuple(f"anycastlb/{part}" for part in ("services", "defaults", "drain", "locks", "nodes", "import"))
"""Keys of Consul, which look like paths of the package."""
SYSTEM = {"/usr/lib/systemd/system": "systemd", "/usr/share/anycastlb": ""} | {
    f"/usr/lib/{part}": part for part in ("sysusers.d", "tmpfiles.d", "modules-load.d", "modprobe.d", "sysctl.d")
}
"""Where the package puts the folders of configs/."""


def test_files_and_units_of_the_installation_exist() -> None:
    text = BY_NAME["docs/INSTALL.md"].read_text()
    for installed, folder in SYSTEM.items():
        named = set(re.findall(rf"{installed}/([\w.@-]+)", text))
        shipped = {path.name for path in (ROOT / "configs" / folder).iterdir()}
        if folder:
            assert named == shipped, installed
        else:
            assert named and named <= shipped | {"exabgp.conf"}, installed
    units = set(re.findall(r"\b(anycastlb[\w-]*)\.service\b", text))
    assert units == {path.stem for path in (ROOT / "configs/systemd").iterdir()}


def test_the_files_of_the_state_directory_are_named() -> None:
    (row,) = [line for line in BY_NAME["docs/INSTALL.md"].read_text().splitlines() if line.startswith("| `/var/lib/")]
    written = {
        cache.NAME,
        cache.CHANGES,
        cache.INSTANCES,
        saved_settings.NAME,
        gate_memory.NAME,
        instance.NAME,
        "dns-names",
    }
    assert set(re.findall(r"\(`([^`]+)`\)", row)) == written


def test_the_keys_of_the_catalog_are_those_that_the_code_reads_and_writes() -> None:
    _, _, section = BY_NAME["docs/CATALOG.md"].read_text().partition("\n## Keys\n")
    named = set(re.findall(r"^\| `anycastlb/([a-z]+)[/`]", section.partition("\n## ")[0], re.M))
    used = (*consul.PARTS, consul.NODES, edit.LOCK)
    assert named == {key.partition("/")[0] for key in used}


OTHERS = {"systemd-modules-load", "systemd-sysctl", "backend", "haproxy"}
"""Units that are not ours: those of systemd, the backends of the Vagrant lab, and Debian's own HAProxy."""


@pytest.mark.parametrize("name", BY_NAME)
def test_units_in_commands_exist(name: str) -> None:
    calls = re.findall(r"systemctl ((?:--?\S+ )*)([a-z]+)((?: --?\S+(?: SIG[A-Z0-9]+)?)*)((?: [a-z][a-z-]*)+)",
                       BY_NAME[name].read_text())  # fmt: skip
    named = {unit for *_, units in calls for unit in units.split()}
    assert named <= OTHERS | {path.stem for path in (ROOT / "configs/systemd").iterdir()}
