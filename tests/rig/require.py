"""Decides whether a test that needs a real part (kernel, Consul, ExaBGP, BIRD, ...) runs, skips or fails.

A missing part skips the test at home and fails it where ``ANYCASTLB_REQUIRE`` (a comma list of names) says that the
part must be there, so that a build server never passes by skipping. This module only looks: it loads, fetches and
starts nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig import (
    bareroot,
    consul,
    debian,
    haproxy,
    package,
    programs,
    prometheus,
    rootfs,
    testkernel,
    usermode,
    virtual,
)


class Missing(Exception):
    """A part is not here. The message says what was looked for and what to do."""


def kernel() -> str:
    """This process may change IPVS, and the network it would change is nobody else's."""
    if os.geteuid() != 0:
        raise Missing("not root; run the tests in the test kernel: make test")
    if not owns_network():
        raise Missing("this is the machine's own network; run the tests in the test kernel: make test")
    if not Path("/proc/net/ip_vs").exists() and not loadable("ip_vs"):
        raise Missing("the kernel has no ip_vs module; run the tests in the test kernel: make test")
    return os.uname().release


def owns_network() -> bool:
    """Whether tests may do as they like here: in the packaged kernel, or in a network namespace of their own."""
    if "User Mode Linux" in Path("/proc/cpuinfo").read_text():
        return True
    try:
        return Path("/proc/self/ns/net").readlink() != Path("/proc/1/ns/net").readlink() or "TESTKERNEL" in os.environ
    except OSError:
        return False


def loadable(module: str) -> bool:
    """Whether modprobe knows the module (it is not loaded)."""
    modprobe = programs.find("modprobe")
    return modprobe is not None and subprocess.run([str(modprobe), "-n", "-q", module], check=False).returncode == 0


def server() -> str:
    program = consul.find()
    if program is None:
        raise Missing("no consul on PATH and none fetched; fetch it: python3 tests/rig/consul.py")
    return str(program)


def monitor(name: str) -> str:
    path = prometheus.find(name)
    if path is None:
        raise Missing(f"no {name} on PATH and none fetched; fetch it: python3 tests/rig/prometheus.py")
    return str(path)


def proxy(name: str) -> str:
    path = haproxy.find(name)
    if path is None:
        raise Missing(f"{name} is not unpacked; fetch it: python3 tests/rig/haproxy.py")
    return str(path)


def runner() -> str:
    """``testkernel.py run`` would find a kernel without fetching anything."""
    choice = testkernel.choose()
    if choice.kernel == "packaged" and not usermode.present():
        raise Missing("the packaged kernel is not fetched; fetch it: python3 tests/rig/testkernel.py fetch")
    return choice.kernel


def virtual_kernel(name: str) -> str:
    found = virtual.find(name)
    if found is None:
        raise Missing(f"the kernel {name}, or QEMU, is not fetched; fetch them: python3 tests/rig/virtual.py {name}")
    return found.release


def root() -> str:
    """A bare Debian root can be made here, or is there."""
    program("mmdebstrap")
    try:
        return " ".join([*rootfs.privilege(), "mmdebstrap"])
    except debian.Unavailable as exc:
        raise Missing(str(exc)) from exc


def root_trees() -> str:
    """A bare Debian of each release that the tests install a node on."""
    found = {suite: bareroot.find(suite) for suite in bareroot.releases()}
    for suite, tree in found.items():
        if tree is None:
            raise Missing(f"no bare Debian {suite} is made; make it: python3 tests/rig/bareroot.py {suite}")
    return " ".join(map(str, found.values()))


def built() -> str:
    """The package for each release that the tests install a node on."""
    try:
        return " ".join(str(package.find(suite)) for suite in bareroot.releases())
    except debian.Unavailable as exc:
        raise Missing(str(exc)) from exc


def library(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        raise Missing(f"the Python package {name} is not installed; install it: make setup")
    return name


def program(name: str) -> str:
    path = programs.find(name)
    if path is None:
        raise Missing(f"no program {name} on PATH, where Debian has it, or in {programs.directory()}: run make setup")
    return str(path)


PARTS: dict[str, Callable[[], str]] = {
    "kernel": kernel,
    "testkernel": runner,
    **{name: functools.partial(virtual_kernel, name) for name in virtual.SUITES},
    "rootfs": root,
    "consul": server,
    **{name: functools.partial(monitor, name) for name in prometheus.PROGRAMS},
    **{name: functools.partial(proxy, name) for name in haproxy.SUITES},
    "bareroot": root_trees,
    "package": built,
    "exabgp": functools.partial(library, "exabgp"),
}
"""The parts that are more than a program of that name."""


@functools.cache
def look(name: str) -> tuple[str, str]:
    """(where the part was found, ""), or ("", why it was not)."""
    try:
        return PARTS.get(name, functools.partial(program, name))(), ""
    except Missing as missing:
        return "", str(missing)


def require(name: str) -> str:
    """Go on only if the part ``name`` is here; return where it was found.

    ``kernel`` gives the release of the kernel this process runs on, ``testkernel`` which kernel the runner would use,
    ``debian-12`` and ``debian-13`` the release of that kernel,
    ``exabgp`` the package's name; ``consul``, ``promtool``, ``bird`` and any other name give the absolute path of the
    program. May be called at module level, in a fixture or in a test.
    """
    found, reason = look(name)
    if found:
        return found
    wanted = [part.strip() for part in os.environ.get("ANYCASTLB_REQUIRE", "").split(",")]
    if name in wanted:
        pytest.fail(f"{name} is missing, and ANYCASTLB_REQUIRE demands it: {reason}", pytrace=False)
    pytest.skip(f"{name} is missing: {reason}", allow_module_level=True)
