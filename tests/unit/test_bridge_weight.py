"""The process that must survive everything else stays small: what it loads, and what memory it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 3.0
"""The bridge's resident memory may be this many times that of an interpreter which loads nothing."""
LOADED = "import sys; {load}; print(*(m for m in sys.modules))"
RESIDENT = """
import re
{load}
print(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""
WHOLE = "import anycastlb.bridge.command, anycastlb.bridge.loop"


def run(program: str, load: str) -> str:
    """What the program prints, in an interpreter with no more than this checkout and the installed packages."""
    argv = [sys.executable, "-c", program.format(load=load)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout


def test_it_loads_nothing_but_the_standard_library_and_the_core() -> None:
    before = set(run(LOADED, "pass").split())
    loaded = set(run(LOADED, WHOLE).split()) - before
    assert {name for name in loaded if name.split(".")[0] not in {*sys.stdlib_module_names, "anycastlb"}} == set()
    ours = {name for name in loaded if name.startswith("anycastlb.")}
    layers = {".".join(name.split(".")[:3]) for name in ours if name.count(".") > 1 and "bridge" not in name}
    assert layers == {"anycastlb.core.model", "anycastlb.core.scalars", "anycastlb.core.toml"}


def test_its_package_loads_nothing_for_those_who_only_need_the_protocol() -> None:
    loaded = set(run(LOADED, "import anycastlb.bridge.protocol").split())
    assert {name for name in loaded if name.startswith("anycastlb.bridge")} == {
        "anycastlb.bridge",
        "anycastlb.bridge.protocol",
    }


def test_it_stays_small_in_memory() -> None:
    bare, whole = int(run(RESIDENT, "pass")), int(run(RESIDENT, WHOLE))
    assert whole < LIMIT * bare, f"{whole} KiB, an interpreter alone {bare} KiB"
