"""tests.rig.elf on real programs of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.rig import elf

SHELL = Path("/bin/sh")


def test_a_program_runs_under_another_loader(tmp_path: Path) -> None:
    loader = tmp_path / "a loader with a longer path than the old one" / "ld.so"
    loader.parent.mkdir()
    loader.write_bytes(elf.interpreter(SHELL).read_bytes())
    loader.chmod(0o755)
    patched = tmp_path / "sh"
    elf.redirect(SHELL, patched, loader)
    assert elf.interpreter(patched) == loader
    assert subprocess.check_output([patched, "-c", "echo works"], text=True) == "works\n"


def test_the_new_loader_is_the_one_that_is_used(tmp_path: Path) -> None:
    patched = tmp_path / "sh"
    elf.redirect(SHELL, patched, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        subprocess.run([patched, "-c", "true"], check=False)


def test_the_source_is_left_alone(tmp_path: Path) -> None:
    before = SHELL.read_bytes()
    elf.redirect(SHELL, tmp_path / "sh", tmp_path / "ld.so")
    assert SHELL.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sh"]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (b"", "not a 64-bit"),
        (b"#!/bin/sh\n" * 20, "not a 64-bit"),
        (b"\x7fELF\x01\x01" + bytes(100), "not a 64-bit"),
        (
            b"\x7fELF\x02\x01"
            + bytes(26)
            + b"\xff\xff\x00\x00\x00\x00\x00\x00"
            + bytes(14)
            + b"\x38\x00\x01\x00"
            + bytes(9),
            "cut short",
        ),
        (b"\x7fELF\x02\x01" + bytes(100), "no interpreter"),
    ],
)
def test_what_cannot_be_patched_says_so(tmp_path: Path, image: bytes, words: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(image)
    with pytest.raises(elf.NotPatchable, match=words):
        elf.redirect(source, tmp_path / "target", Path("/ld.so"))
    with pytest.raises(elf.NotPatchable, match=words):
        elf.interpreter(source)
    assert not (tmp_path / "target").exists()
