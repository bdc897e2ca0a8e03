"""Give up the privileges that a process was started with and does not need (capabilities(7), prctl(2))."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_LIBC = ctypes.CDLL(None, use_errno=True)
_SET_DEATH_SIGNAL, _SET_SECUREBITS, _SET_NO_NEW_PRIVILEGES, _AMBIENT = 1, 28, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_NOROOT = 0b0000_0011
"""SECBIT_NOROOT, locked: a program that root starts has no capabilities for being root's."""
_VERSION = 0x20080522
NET_ADMIN = 12
"""The capability that marks packets (SO_MARK)."""


def keep_only_marks() -> None:
    """Keep CAP_NET_ADMIN, if it is there; programs that this process starts get no capability. Raises OSError."""
    _prctl(_SET_NO_NEW_PRIVILEGES, 1)
    _prctl(_AMBIENT, _AMBIENT_CLEAR_ALL)
    permitted = capabilities()
    if os.geteuid() == 0 and permitted & 1 << 8:  # CAP_SETPCAP
        _prctl(_SET_SECUREBITS, _NOROOT)
    kept = permitted & 1 << NET_ADMIN
    words = [(kept >> shift) & 0xFFFFFFFF for shift in (0, 32)]
    data = struct.pack("=6I", words[0], words[0], 0, words[1], words[1], 0)
    if _LIBC.capset(struct.pack("=Ii", _VERSION, 0), data):
        _fail("capset")


def end_with(parent: int) -> None:
    """This process is killed when this parent of it ends, however that ends, or if it has ended. Raises OSError."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def handing_on_marks() -> Iterator[None]:
    """A program that is started inside the block gets CAP_NET_ADMIN, if this process may hand it on. Blocks nothing,
    but nothing else may be started meanwhile: do not await."""
    # Refused where the capability was not inherited: root's programs have it anyway, and others never had it.
    _LIBC.prctl(_AMBIENT, *map(ctypes.c_ulong, (_AMBIENT_RAISE, NET_ADMIN, 0, 0)))
    try:
        yield
    finally:
        _prctl(_AMBIENT, _AMBIENT_CLEAR_ALL)


def capabilities() -> int:
    """The permitted capabilities of this process, one bit each. Raises OSError."""
    data = ctypes.create_string_buffer(24)
    if _LIBC.capget(struct.pack("=Ii", _VERSION, 0), data):
        _fail("capget")
    values: tuple[int, ...] = struct.unpack("=6I", data.raw)
    return values[1] | values[4] << 32


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        _fail(f"prctl {option}")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
