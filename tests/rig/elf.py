"""Reads and replaces the program interpreter (the dynamic loader's path) of a 64-bit little-endian ELF file.

The packaged test kernel is a program that needs a newer C library than a Debian 12 host has; pointed at the loader
unpacked beside it, it runs without that library being installed. This module touches only the file it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

INTERPRETER = 3
"""PT_INTERP, the type of the program header that holds the loader's path (System V ABI, ch. 5)."""


SMALLEST_HEADER = 56
"""Bytes of an Elf64_Phdr."""


class NotPatchable(Exception):
    """The file is not a dynamically linked 64-bit little-endian ELF program."""


def headers(image: bytes | bytearray, path: Path) -> Iterator[int]:
    """Offsets of the interpreter's program headers: one, in any sound program."""
    if image[:6] != b"\x7fELF\x02\x01" or len(image) < 64:
        raise NotPatchable(f"{path} is not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", image, 32)
    size, count = struct.unpack_from("<HH", image, 54)
    if table + size * count > len(image):
        raise NotPatchable(f"{path} is cut short: its program headers lie outside the file")
    if count and size < SMALLEST_HEADER:
        raise NotPatchable(f"{path} is damaged: its program headers are {size} bytes, expected {SMALLEST_HEADER}")
    for header in range(table, table + size * count, size or SMALLEST_HEADER):
        if struct.unpack_from("<I", image, header)[0] == INTERPRETER:
            yield header


def interpreter(path: Path) -> Path:
    """The loader the program asks for."""
    image = path.read_bytes()
    for header in headers(image, path):
        (offset,) = struct.unpack_from("<Q", image, header + 8)
        (length,) = struct.unpack_from("<Q", image, header + 32)
        return Path(image[offset : offset + length].rstrip(b"\0").decode())
    raise NotPatchable(f"{path} has no interpreter: it is linked statically")


def redirect(source: Path, target: Path, loader: Path) -> None:
    """Write a copy of the program ``source`` to ``target`` that asks for ``loader``; replaces ``target`` in one step.

    The new path is appended to the file and the header pointed at it, so nothing else moves.
    """
    image = bytearray(source.read_bytes())
    name = bytes(loader) + b"\0"
    offsets = list(headers(image, source))
    if not offsets:
        raise NotPatchable(f"{source} has no interpreter: it is linked statically")
    for header in offsets:
        struct.pack_into("<Q", image, header + 8, len(image))
        struct.pack_into("<QQ", image, header + 32, len(name), len(name))
    draft = target.with_name(f".{target.name}.{id(image)}")
    draft.write_bytes(image + name)
    draft.chmod(0o755)
    draft.rename(target)
