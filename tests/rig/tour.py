"""The guided tour of ``vagrant/README.md``: its commands, and what each must say.

    python3 tests/rig/tour.py [FROM]     walks it on the machines that ``vagrant up`` has made, from command number FROM

Each command is typed in ``vagrant/`` as it stands, again until it says what is shown below it. While a node is upgraded
the client goes on asking, and no request may fail. Exits 1 at the first command that does not come to say what it must.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "vagrant/README.md"
WAIT = 600.0
"""Seconds: an emulated machine takes its time."""
ASK = "while sleep 0.2; do curl -sfo /dev/null -m 10 http://192.0.2.10/ && echo answered || echo failed; done"
ASKING = ("vagrant", "ssh", "client", "-c", ASK)


@dataclass(frozen=True)
class Step:
    command: str
    shown: tuple[str, ...]
    """What it says, line by line, in this order and perhaps with others between; ``…`` stands for anything."""


def steps(text: str) -> Iterator[Step]:
    """The commands of the ``console`` blocks, in order."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *shown = part.rstrip().splitlines()
            yield Step(command, tuple(line for line in shown if line.strip() != "…"))


def lacks(shown: tuple[str, ...], said: str) -> str:
    """The first line of the tour that the output does not have in its place; empty if it has them all."""
    lines = iter(" ".join(line.split()) for line in said.splitlines())
    for wanted in shown:
        pattern = ".*".join(re.escape(part) for part in " ".join(wanted.split()).split("…"))
        if not any(re.fullmatch(pattern, line) for line in lines):
            return wanted
    return ""


def perform(step: Step) -> bool:
    """Types the command until it says what is shown; once, if nothing is shown. Tells how long and how often."""
    started, times = time.monotonic(), 0
    while True:
        times += 1
        typed = subprocess.run(step.command, shell=True, cwd=README.parent, text=True, capture_output=True, check=False)
        took = time.monotonic() - started
        if not lacks(step.shown, typed.stdout) if step.shown else typed.returncode == 0:
            print(typed.stdout, f"  # {took:.0f} s, {times} times", sep="", flush=True)
            return True
        if not step.shown or took > WAIT:
            print(typed.stdout, typed.stderr, sep="")
            print(f"  # {typed.returncode} after {took:.0f} s; lacks: {lacks(step.shown, typed.stdout)}", flush=True)
            return False


def perform_beside_requests(step: Step) -> bool:
    """The same, while the client asks for ``web`` again and again."""
    with subprocess.Popen(
        ASKING, cwd=README.parent, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
    ) as asking:
        assert asking.stdout
        asking.stdout.readline()  # the first answer
        done = perform(step)
        os.killpg(asking.pid, signal.SIGTERM)
        told = asking.stdout.read().split()
    print(f"  # the client: {told.count('answered')} answered, {told.count('failed')} failed", flush=True)
    return done and "failed" not in told


def main(arguments: list[str]) -> int:
    first = int(arguments[0]) if arguments else 1
    for number, step in enumerate(steps(README.read_text(encoding="utf-8")), 1):
        if number < first:
            continue
        print(f"[{number}] $ {step.command}", flush=True)
        if not (perform_beside_requests if "rsync" in step.command else perform)(step):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
