"""A fresh network namespace for the calling thread: IPVS, addresses and sysctls of its own, gone when it is left.

Threads and processes started inside inherit it, and so do sockets; those that exist already stay where they were.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def fresh() -> Iterator[None]:
    """Be in a new network namespace, its loopback up."""
    with Path("/proc/thread-self/ns/net").open() as home:
        if _LIBC.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"unshare(CLONE_NEWNET): {os.strerror(ctypes.get_errno())}")
        try:
            run("ip", "link", "set", "lo", "up")
            yield
        finally:
            enter(home.fileno())


def enter(there: int) -> None:
    """Be in the namespace of this file descriptor."""
    if _LIBC.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")


def run(*command: str, stdin: str = "") -> str:
    """Run a program in the calling thread's namespace; what it printed. Raises with what it complained of."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout
