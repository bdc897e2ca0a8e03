"""The commands that the documents tell a user to type: in blocks of a page, and in its sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (
        ROOT / "README.md",
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("docs/migration/*.md")),
        *sorted(ROOT.glob("vagrant/*.md")),
        *sorted(ROOT.glob("configs/**/*.md")),
    )
}
"""What users read. CONTRIBUTING is for whoever changes the program, and decisions tell of their day."""
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.M | re.S)
TYPED = {"", "sh", "console", "bash", "shell"}
"""What a block of commands is called. Every block without a name is one."""
PROGRAMS = {
    *("anycastlb", "anycastlb-bridge", "apt-get", "birdc", "consul", "curl", "dig", "exabgp", "git", "haproxy"),
    *("install", "ip", "ipvsadm", "journalctl", "kill", "modprobe", "nstat", "openssl", "pip", "pipx", "promtool"),
    *("runuser", "ssh", "sudo", "sysctl", "systemctl", "systemd-analyze", "tc", "tcpdump", "tsig-keygen", "uv"),
    *("vagrant", "vtysh"),
}
"""What a sentence can tell a user to run."""


@dataclass(frozen=True)
class Block:
    page: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, which tells it from the others of its page."""
        return self.text.splitlines()[0].strip()


def typed_blocks() -> list[Block]:
    return [
        Block(name, text)
        for name, path in PAGES.items()
        for kind, text in FENCE.findall(path.read_text())
        if kind.strip() in TYPED
    ]


def spans(page: str) -> Iterator[str]:
    """The commands in the sentences and tables of a page, in order; what begins with a program's name and has more."""
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", FENCE.sub("", PAGES[page].read_text())):
        words = span.replace("\\|", "|").split()
        if words[0] in PROGRAMS and len(words) > 1:
            yield " ".join(words)
