"""The processes of this machine, read from /proc: which is a node, and which manages IPVS in its place."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from anycastlb.doctor.facts import Process


def every_process(proc: Path = Path("/proc")) -> tuple[Process, ...]:
    """Every process that has a command line."""
    return tuple(one for number in _numbers(proc) if (one := process(number, proc)) is not None and one.argv)


def _numbers(proc: Path) -> Iterator[str]:
    try:
        yield from (name for name in os.listdir(proc) if name.isdigit())  # noqa: PTH208 (thousands of them)
    except OSError:
        return


def process(pid: str | int, proc: Path = Path("/proc")) -> Process | None:
    """One process; None if it has ended."""
    folder = proc / str(pid)
    try:
        argv = tuple((folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text(errors="replace").splitlines() if ":" in line
        )
        uids, gids = status["Uid"].split(), status["Gid"].split()
        groups = tuple(int(group) for group in status.get("Groups", "").split())
        number, parent = int(status["Pid"]), int(status["PPid"])
        capabilities = int(status.get("CapEff", "0"), 16)
    except (OSError, ValueError, KeyError):
        return None
    return Process(
        number, argv if argv != ("",) else (), parent, int(uids[1]), int(gids[1]), groups, capabilities,
        _files(folder), _namespace(folder),
    )  # fmt: skip


def _files(folder: Path) -> int:
    try:
        limit = re.search(r"^Max open files\s+(\d+)", (folder / "limits").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(limit[1]) if limit else 0


def _namespace(folder: Path) -> str:
    try:
        return os.readlink(folder / "ns/net")  # noqa: PTH115 (it is no path)
    except OSError:
        return ""


def is_node(process: Process) -> bool:
    """Is it ``anycastlb run``, by its command line? That alone makes it nobody's node: see ``nearest``."""
    for place, word in enumerate(process.argv[:-1]):
        named = Path(word).name == "anycastlb" or word.endswith("anycastlb/__main__.py")
        if named and process.argv[place + 1] == "run":
            return True
    return False


def nearest(nodes: Iterable[Process], me: Process, config: str, owners: Collection[int]) -> Process | None:
    """The node that is meant: one of these owners, since anybody may call a process so, and root is told to look into
    its namespace; of those the one with these settings, else one in this network namespace, else any."""
    known = [node for node in nodes if node.uid in {0, me.uid, *owners}]
    return min(known, key=lambda node: (config not in node.argv, node.namespace != me.namespace), default=None)
