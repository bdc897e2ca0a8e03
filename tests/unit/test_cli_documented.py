"""Every command that a document or a command's own help tells a user to type is typed, by this test or by a named one.

What is typed here is typed as it stands, to nodes whose kernel, router and backends are in memory. Only what a page
takes from the machine is put in its place: the files in /etc and /var/log, the node's address, etcd, the other machines
of ``ssh``, and ``ipvsadm``, which prints a table that was saved before.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from anycastlb.cli import main
from anycastlb.core.decision import drain_traffic, node_drain
from tests.rig.document import boxes
from tests.support.documented import FENCE, PAGES, Block, spans, typed_blocks
from tests.support.elb_dump import DUMP
from tests.support.gorb_store import SERVICE, exported
from tests.support.pages import Place, place

ROOT = Path(__file__).parents[2]
LB = ("lb1", "lb2", "lb3")
SAVED = """\
-A -t 192.0.2.10:80 -s mh -b mh-fallback,mh-port
-a -t 192.0.2.10:80 -r 10.1.0.1:80 -i -w 5
-a -t 192.0.2.10:80 -r 10.1.0.2:80 -i -w 5
-A -f 10001 -s rr
-a -f 10001 -r 10.1.0.1:0 -i -w 1
"""
NODE = '[node]\nname = "lb1"\nvip_ranges = ["192.0.2.0/24", "2001:db8::/32"]\nfwmark_ranges = [100]\n'
ACCESS = 'shop.example 192.0.2.99 - - [21/Nov/2026:06:22:04 +0000] "GET /blog/1 HTTP/1.1" 200 612 "-" "curl/8"\n'
WEB = {
    "vip": "192.0.2.10",
    "port": 80,
    "check": {"type": "http", "path": "/health"},
    "backends": {"web1": {"address": "10.1.0.1"}, "b1": {"address": "10.1.0.11"}, "b2": {"address": "10.1.0.12"}},
}
POOL = {"port": 8080, "backends": {"a1": {"address": "10.3.1.1"}}}
PLAIN = {"vip": "192.0.2.81", "port": 80, "protocol": "http"}
DEFAULTS = {"defaults": {"drain": "0s"}}
"""No test waits until a backend has left."""
CATALOG: dict[str, Any] = {
    **DEFAULTS,
    "services/web": WEB,
    "services/shop": {"port": 8080, "backends": {"s1": {"address": "10.3.0.1"}}},
    "services/blog": POOL,
    "gateways/web": {"vip": "192.0.2.80", "port": 80, "protocol": "http"},
    "routes/shop": {"gateways": ["web"], "hostnames": ["shop.example"], "rules": [{"backendRefs": [{"name": "shop"}]}]},
}
"""What is there when a sentence names a command."""
PLACEHOLDERS = {
    "SERVICE/BACKEND": "web/web1", "POOL/BACKEND": "shop/s1", "SERVICE": "web", "BACKEND": "web1", "VIP": "192.0.2.10",
    "NODE": "lb1", "POOL": "shop", "HOSTNAME": "shop.example", "ROUTE": "shop", "GATEWAY": "web", "FILE…": "web.json",
    "FILE": "web.json", "DIR": "documents",
}  # fmt: skip
"""What stands for something of the user's own."""


def program(line: str) -> str:
    return line.split()[0]


class Desk:
    """Where the user sits: a directory with the files that the pages name, and a shell."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.place = place
        self._folder = folder
        self.programs = programs = folder / "bin"
        for directory in ("bin", "etc", "documents/services", "routes"):
            (folder / directory).mkdir(parents=True)
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        for name, script in {
            "anycastlb": f'exec "{sys.executable}" -m anycastlb "$@"',
            "ipvsadm": f"cat '{folder}/saved'",
            "consul": f"cat '{folder}/store'",
            "ssh": 'shift; exec sh -c "$*"',
            "apt-get": "exit 0",
            "systemctl": "exit 0",
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        files = {
            "nginx.log": ACCESS.partition(" ")[2], "saved": SAVED, "etcd": DUMP, "elb.json": DUMP, "access.log": ACCESS,
            "etc/node.toml": NODE,
            "web.json": json.dumps(WEB), "documents/services/web.json": json.dumps(WEB),
            "routes/shop.json": json.dumps(CATALOG["routes/shop"]),
            "etc/keepalived.conf": dict(fenced("docs/migration/keepalived.md"))["keepalived"],
            "kglb.json": dict(fenced("docs/migration/kglb.md"))["json kglb"],
            "store": exported({"lb/services/gorb": SERVICE | {"host": "192.0.2.20"}}),
        }  # fmt: skip
        for name, text in files.items():
            (folder / name).write_text(text)

    def types(self, line: str) -> tuple[int, str]:
        """The exit code, and what was told."""
        port = self.place.ports["lb1"]
        line = re.sub(r"/etc/(keepalived|anycastlb)/", "etc/", line)
        line = re.sub(r"> /(?!dev/)\S*/", "> ", line)  # nothing is written outside
        line = line.replace("/var/log/nginx/access.log", "nginx.log").replace("127.0.0.1:4672", f"127.0.0.1:{port}")
        line = line.replace("http://127.0.0.1:2379/v2/keys/ELB?recursive=true", f"file://{self._folder}/etcd")
        environment = {**self.environment, "ANYCASTLB_API": self.place.url}
        if not re.search(r"[|<>;&$]|(?:^| )\*", line):
            words = shlex.split(line, comments=True)
            if words[0] == "anycastlb":
                done = CliRunner().invoke(main, words[1:], env=environment, catch_exceptions=False)
                return done.exit_code, done.output
        shell = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=self._folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return shell.returncode, shell.stdout

    def goes_well(self, line: str) -> None:
        code, told = self.types(line)
        fine = {0}
        if re.search(r"\banycastlb (status|why|plan)\b", line) or (" convert " in line and "note: " in told):
            fine |= {2}  # something differs, or was left out, and is named
        if line == "anycastlb confirm" and "no catalog is held" in told:
            fine |= {1}
        assert code in fine, f"{line}\n{code}: {told}"
        self.place.follows()


def fenced(page: str) -> list[tuple[str, str]]:
    """Every fenced block of a page: (what it is, its text)."""
    return [(kind.strip(), text) for kind, text in FENCE.findall(PAGES[page].read_text())]


def lines(text: str) -> list[str]:
    """The commands of a block. After a prompt is a command, and all else an answer, if there are prompts; what is not
    complete goes on with the next line, as in a shell."""
    if re.search(r"^\$ ", text, re.M):
        return re.findall(r"^\$ (.+)$", text, re.M)
    found: list[str] = []
    begun = ""
    for line in text.replace("\\\n", " ").splitlines():
        begun += ("\n" if begun else "") + line
        whole = subprocess.run(["bash", "-n", "-c", begun], capture_output=True, check=False).returncode == 0
        if begun.strip() and whole and ("<<'END'" not in begun or begun.endswith("\nEND")):
            found.append(begun)
            begun = ""
    assert not begun.strip(), f"no shell ends this: {begun}"
    return found


def named(line: str) -> bool:
    """Does it only name a command, which cannot be called without more?"""
    command: click.Command | None = main
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group) and words:
        command, words = command.get_command(click.Context(command), words[0]), words[1:]
    assert command is not None, f"there is no command: {line}"
    return isinstance(command, click.Group) or (not words and any(one.required for one in command.params))


def examples(command: click.Command) -> Iterator[str]:
    """The commands that the help of a command shows."""
    yield from re.findall(r"^ *(anycastlb .+)$", inspect.cleandoc(command.help or ""), re.M)
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            if (found := command.get_command(click.Context(command), name)) is not None:
                yield from examples(found)


# ---------------------------------------------------------------- which test types what

HARMLESS = ("anycastlb", "cat", "consul", "curl", "for", "ipvsadm", "set")
"""How a block begins that may be typed on the machine that the tests run on."""
INSTALLED, LAB = "tests/machine/test_install.py", "tests/e2e/test_tour.py"
PACKAGE = "tests/packaging/test_package.py"
BLOCKS = {
    ("README.md", "make demo"): "the two commands that developers begin with",
    ("README.md", "git clone"): "what the first box of docs/INSTALL.md does",
    ("README.md", "modprobe ipip"): f"{LAB}::test_backends_are_set_up_as_the_pages_say",
    ("docs/GATEWAYS.md", "modprobe ipip"): f"{LAB}::test_backends_are_set_up_as_the_pages_say",
    (
        "docs/INSTALL.md",
        "PIPX_HOME",
    ): "uv would fetch what is asked for; test_pipx_installs_it has pipx install the wheel",
    ("docs/INSTALL.md", "venv="): f"{PACKAGE}::test_pipx_installs_it",
    ("vagrant/README.md", "vagrant up"): "needs virtual machines",
    ("vagrant/README.md", "sudo CARRY=1"): "needs virtual machines",
}
"""The blocks that are typed elsewhere, by their first words: in which test, or why in none."""
PROGRAMS = {
    "birdc": f"{LAB}::test_what_operators_look_at_is_there",
    "consul": f"{LAB}::test_what_operators_look_at_is_there",
    "ip": f"{LAB}::test_what_operators_look_at_is_there",
    "ipvsadm": f"{LAB}::test_what_operators_look_at_is_there",
    "journalctl": "would need the bare machine; test_docs.py knows the units",
    "systemctl": f"{INSTALLED}::test_reload_rereads",
    "apt-get": f"{INSTALLED}::test_an_upgrade_moves_nothing",
    "anycastlb-bridge": f"{INSTALLED}::test_installed_as_written_it_serves",
    "systemd-analyze": f"{INSTALLED}::test_the_sandboxes_hold_and_suffice",
    "vagrant": "needs virtual machines",
    "sudo": "builds virtual machines",
    "ssh": "needs another machine",
    "pipx": "would fetch what is asked for",
    "dig": "asks Consul's name server; tests/parts/test_consul_names.py asks its agent",
    "kill": "is said of a process that has no name yet",
    "nstat": "shows a counter of the router's kernel for a fault that the lab does not have",
    "openssl": "makes a random token",
    "tc": "tests/kernel/test_ingress.py types the same of the interface it has",
    "vtysh": "is named, not typed",
}
"""Of other programs that sentences tell to run: a test that types them, or why none does."""


def typed_elsewhere(block: Block) -> bool:
    """By docs/INSTALL.md as it is written, on bare machines; by the tour, in the lab; or as ``BLOCKS`` says."""
    toured = block.page == "vagrant/README.md" and block.text.startswith("$ ")
    known = any(block.page == page and block.text.startswith(words) for page, words in BLOCKS)
    return block.text in [box.script for box in boxes()] or toured or known


OUR = re.compile(r"^anycastlb |\| anycastlb ")
HERE = [block for block in typed_blocks() if not typed_elsewhere(block)]
OURS = {page: [line for line in dict.fromkeys(spans(page)) if OUR.search(line)] for page in PAGES}


def test_who_types_what_is_known() -> None:
    """Whatever is new on a page is typed here, or its place is in the tables above."""
    assert {block.text.removeprefix("$ ").split()[0] for block in HERE} <= set(HARMLESS)
    firsts = [(block.page, block.text) for block in typed_blocks()]
    assert not [key for key in BLOCKS if not any(page == key[0] and text.startswith(key[1]) for page, text in firsts)]
    others = {program(line) for page in PAGES for line in spans(page)} - {"anycastlb"}
    assert others == set(PROGRAMS)
    for test in (*BLOCKS.values(), *PROGRAMS.values()):
        file, _, name = test.partition("::")
        if name:
            assert f"def {name}(" in (ROOT / file).read_text(), test


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    node = {key: value for key, value in tomllib.loads(NODE)["node"].items() if key != "name"}
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch, place(folder, LB, **node) as nodes:
        for module in (node_drain, drain_traffic):  # there is no traffic to wait for
            patch.setattr(module, "QUIET", 0.05)
            patch.setattr(module, "LOOK", 0.05)
        patch.setattr(node_drain, "STEADY", 0.05)
        yield nodes


@pytest.fixture
def desk(tmp_path: Path, running: Place, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path, running)


@pytest.mark.parametrize("block", HERE, ids=[f"{block.page}: {block.first[:50]}" for block in HERE])
def test_the_blocks_of_the_pages_run_as_they_stand(block: Block, desk: Desk, require: Callable[[str], str]) -> None:
    """A block that adds to the catalog is a way of its own, into an empty one."""
    if "promtool" in block.text:
        (desk.programs / "promtool").symlink_to(require("promtool"))
    adds = re.search(r" add |import |-X PUT", block.text) and " export " not in block.text
    desk.place.holds(DEFAULTS if adds else CATALOG)
    for line in lines(block.text):
        desk.goes_well(line)


@pytest.mark.parametrize("page", [page for page in PAGES if OURS[page]])
def test_the_commands_in_the_sentences_of_the_pages_run(page: str, desk: Desk) -> None:
    desk.place.holds(DEFAULTS if any("service add web" in line for line in OURS[page]) else CATALOG)
    for line in OURS[page]:
        own = line
        for placeholder, value in PLACEHOLDERS.items():
            own = re.sub(rf"(?<=[ /]){re.escape(placeholder)}(?=[ /]|$)", value, own)
        for shell in re.findall(r"\w+(?:\|\w+)+$", own) or [""]:
            for one in shell.split("|"):
                typed = own.replace(shell, one)
                if program(typed) != "anycastlb" or not (named(typed) or typed == "anycastlb doctor"):
                    desk.goes_well(typed)


def test_the_examples_of_the_commands_own_help_run(desk: Desk) -> None:
    """Each in a catalog that has all but what it adds."""
    found = list(examples(main))
    assert len(found) > 20
    secure = {**CATALOG["gateways/web"], "protocol": "https", "tls": {"certificates": ["shop"]}}
    pools = [{"name": "blog"}, {"name": "blog-canary"}]
    blog = {"gateways": ["web"], "hostnames": ["blog.example"], "rules": [{"backendRefs": pools}]}
    full = {
        **CATALOG,
        "gateways/web": secure,
        "gateways/plain": PLAIN,
        "routes/blog": blog,
        "services/blog-canary": POOL,
    }
    for line in found:
        kind, verb, name = (*line.split()[1:], "", "")[:3]
        there = {key: document for key, document in full.items() if verb != "add" or key != f"{kind}s/{name}"}
        if (kind, verb) == ("server", "add"):
            there["services/web"] = {**WEB, "backends": {}}
        if (kind, verb) == ("gateway", "add"):
            del there["services/web"]  # it has that very VIP
        desk.place.holds(there)
        desk.goes_well(line)
