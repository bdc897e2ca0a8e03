"""Runs a command as root on a kernel with IPVS, on any Debian machine.

    python3 tests/rig/testkernel.py run [--memory 2G] [--timeout SEC] [--cpu N] [--modules a,b] [--shell] -- CMD...
    python3 tests/rig/testkernel.py which            which kernel would be used, and why
    python3 tests/rig/testkernel.py fetch            have the packaged kernel ready, if it would be used

The kernel is the host's own, in fresh network, mount, process and host-name namespaces, if it has ip_vs and the user is
root; otherwise the packaged one (``usermode``), which needs no rights at all. ``--kernel debian-12`` or ``debian-13``
boots that release's own kernel instead (``virtual``). Either way the command finds the host's file tree (what it writes
stays), its own variables and working directory, an empty /run, a network with nothing but loopback, TMPDIR=/run/tmp and
TESTKERNEL=host, packaged or the name given. The exit code is the command's; 124 after a time-out, 125 if
the kernel died or could not start, 126 and 127 if the command could not, 128+N if this program was ended by signal N.

Standard library only, for it runs before anything is installed. It never changes the host's network.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.rig import debian, elf, programs, usermode, virtual

GRACE = 5.0
"""Seconds that a command has to end after it was told to, before its kernel is."""
ECHO = 0.5
"""Seconds within which a second signal is taken for the same one: timeout(1) and terminals may send it twice."""
LAST_LINES = 20
"""How much of a dead kernel's messages is shown if there is no panic among them."""
TIMED_OUT, DIED = 124, 125
PR_SET_PDEATHSIG = 1
WATCHED = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Unusable(Exception):
    """No test kernel can be had. The message says why and what to do."""


@dataclass(frozen=True)
class Choice:
    kernel: str
    """``host`` or ``packaged``"""
    reason: str


def choose() -> Choice:
    """Which kernel to use on this machine. Loads and starts nothing."""
    if os.geteuid() != 0:
        return Choice("packaged", "not root, so the host's kernel may not be used")
    if not Path("/proc/net/ip_vs").exists() and not succeeds(["modprobe", "--dry-run", "--quiet", "ip_vs"]):
        return Choice("packaged", f"the host's kernel {os.uname().release} has no ip_vs module")
    if not succeeds([*NAMESPACES, "true"]):
        return Choice("packaged", "root may not make namespaces here")
    return Choice("host", f"root, and the host's kernel {os.uname().release} has ip_vs")


NAMESPACES = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]


def succeeds(command: list[str]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, check=False, capture_output=True, env=paths()).returncode == 0
    return False


def paths() -> dict[str, str]:
    """This process's variables, with the system's and the unpacked programs on PATH, which a plain user's lacks."""
    return {**os.environ, "PATH": programs.search_path()}


@dataclass(frozen=True)
class Request:
    """What to run, and on what: ``memory`` in bytes, ``timeout`` in seconds (None: for ever)."""

    command: list[str]
    kernel: str
    memory: int
    timeout: float | None
    cpu: int | None
    modules: list[str]
    shell: bool
    verbose: bool


def describe(request: Request) -> dict[str, Any]:
    """The job as ``guest`` reads it."""
    size = shutil.get_terminal_size((120, 40))
    consoles: tuple[str, ...] = ()
    modules: Path | str = ""
    if request.kernel == "packaged":
        consoles, modules = ("tty0", "tty1"), usermode.modules()
    elif request.kernel in virtual.SUITES:
        consoles, modules = virtual.PORTS, virtual.fetch(request.kernel).modules
    outside = {"TMPDIR", "TMP", "TEMP", "HOSTNAME"}
    environment = {key: value for key, value in paths().items() if key not in outside}
    environment |= {"TMPDIR": "/run/tmp", "TESTKERNEL": request.kernel}
    if not sys.stdout.isatty():
        # Inside, output always looks like a terminal's; say that it is not one in the way programs agree on.
        environment.setdefault("NO_COLOR", "1")
    return {
        "command": request.command,
        "cwd": str(Path.cwd()),
        "environment": environment,
        "consoles": consoles,
        "modules": request.modules,
        "modules_tree": str(modules),
        "shell": request.shell,
        "rows": size.lines,
        "columns": size.columns,
    }


def run(request: Request) -> int:
    """Run the command to its end; the exit code. Raises ``Unusable`` if it could not be started."""
    # Not under TMPDIR: the path goes on a kernel command line, and /run/tmp would be hidden by the new /run.
    with tempfile.TemporaryDirectory(prefix="testkernel.", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        place = Path(scratch)
        (place / "job.json").write_text(json.dumps(describe(request)))
        init = [
            os.path.realpath(sys.executable),
            "-I",
            "-S",
            str(Path(__file__).with_name("guest.py").resolve()),
            str(place),
        ]
        with processor(request) as cpu, terminal(request.shell):
            signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
            process = launch(request, place, init, cpu)
            with copied(process):
                try:
                    end = supervise(process, place / "order", request.timeout)
                finally:
                    kill(process)
        return conclude(request, place, process, end)


def launch(request: Request, place: Path, init: list[str], cpu: int | None) -> subprocess.Popen[bytes]:
    """Start the kernel, or the namespaces, with ``init`` as the first process."""
    log = (place / "kernel.log").open("w")
    output = None
    if request.kernel == "packaged":
        kernel = usermode.fetch()
        command = usermode.command(kernel, place, request.memory, request.shell, log.fileno(), init)
        environment = usermode.environment(place, request.memory)
    elif request.kernel in virtual.SUITES:
        command = virtual.command(virtual.fetch(request.kernel), place, request.memory, init)
        environment, output = virtual.environment(), subprocess.PIPE
    else:
        command, environment = [*NAMESPACES, *init], paths()
        for module in request.modules:
            if not Path("/sys/module", module).exists() and not succeeds(["modprobe", module]):
                raise Unusable(f"cannot load the kernel module {module} on the host")

    def settle() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        # If this program is killed, the kernel must not stay behind.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if request.kernel in virtual.SUITES:
            # It takes every processor there is, and is to be as polite as this program: Linux compares sessions first.
            with contextlib.suppress(OSError):
                Path("/proc/self/autogroup").write_text(str(os.nice(0)))
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    with log:
        return subprocess.Popen(
            command,
            stdin=None if request.shell else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=[log.fileno()],
            start_new_session=True,  # so that Ctrl-C comes to us alone
            preexec_fn=settle,
        )


@contextlib.contextmanager
def copied(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass on what comes through the pipes of a kernel that opens its outputs itself, until they are closed."""

    def copy(source: IO[bytes], sink: int) -> None:
        while data := os.read(source.fileno(), 1 << 16):
            while data:
                data = data[os.write(sink, data) :]

    pipes = [(pipe, sink) for pipe, sink in ((process.stdout, 1), (process.stderr, 2)) if pipe is not None]
    threads = [threading.Thread(target=copy, args=pair, daemon=True) for pair in pipes]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def watch(process: subprocess.Popen[bytes], until: float) -> signal.Signals | None:
    """Wait for the process to end, until a monotonic time, or for a signal to this program, which is returned."""
    while process.poll() is None and (left := until - time.monotonic()) > 0:
        caught = signal.sigtimedwait(WATCHED, min(left, 3600.0))
        if caught is not None and caught.si_signo != signal.SIGCHLD:
            return signal.Signals(caught.si_signo)
    return None


def supervise(process: subprocess.Popen[bytes], order: Path, timeout: float | None) -> int:
    """Wait for the end; 0, or what cut it short: 124 for a time-out, 128+N for signal N.

    The command is told first (by SIGINT after a time-out, so that a test run says where it hung), and has some seconds
    to tidy up; a second signal cuts that short.
    """
    caught = watch(process, math.inf if timeout is None else time.monotonic() + timeout)
    if process.poll() is not None:
        return 0
    told = time.monotonic()
    draft = order.with_suffix(".draft")
    draft.write_text(str(int(caught or signal.SIGINT)))
    draft.rename(order)
    if watch(process, told + GRACE) and time.monotonic() < told + ECHO:
        watch(process, told + GRACE)
    return TIMED_OUT if caught is None else 128 + caught


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the kernel and all that runs on it."""
    if process.poll() is None:
        process.kill()
        process.wait()


def conclude(request: Request, place: Path, process: subprocess.Popen[bytes], end: int) -> int:
    """The exit code, and a line on stderr for every end that is not simply the command's own."""
    if request.verbose:
        sys.stderr.write(messages(place))
    if end:
        say(f"time-out after {request.timeout} s" if end == TIMED_OUT else f"ended by {signal.Signals(end - 128).name}")
        return end
    try:
        result = json.loads((place / "result.json").read_text())
    except (OSError, ValueError):
        say(f"the {request.kernel} kernel died (status {process.returncode}); its last words:")
        sys.stderr.write(last_words(messages(place)))
        return DIED
    if result["error"]:
        say(result["error"])
    return int(result["code"])


def messages(place: Path) -> str:
    """What the kernel and the first process inside had to say of their own."""
    logs = [place / "kernel.log", place / "init.err"]
    return "".join(log.read_text(errors="replace") for log in logs if log.exists())


def last_words(text: str) -> str:
    """From the panic on, if there was one."""
    lines = text.replace("\r", "").splitlines(keepends=True)
    panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), len(lines) - LAST_LINES)
    return "".join(lines[max(0, panic) :]) or "(none)\n"


def say(words: str) -> None:
    print(f"testkernel: {words}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def processor(request: Request) -> Iterator[int | None]:
    """A CPU to pin the packaged kernel to, held by name for as long as it runs so that others take another.

    Kernel and processes hand over to each other all the time; across two CPUs each system call takes ten times as long.
    """
    if request.kernel != "packaged" or request.cpu is not None:
        yield request.cpu
        return
    usable = sorted(os.sched_getaffinity(0), reverse=True)
    with socket.socket(socket.AF_UNIX) as claim:
        for cpu in usable:
            with contextlib.suppress(OSError):
                claim.bind(f"\0testkernel.cpu.{cpu}")
                yield cpu
                return
        yield usable[os.getpid() % len(usable)]


@contextlib.contextmanager
def terminal(shell: bool) -> Iterator[None]:
    """Let every key through to the terminal inside while a shell runs; then give the user's back as it was."""
    if not shell:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        # From a background process group this would stop us.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def size(text: str) -> int:
    """Bytes, of ``512M``, ``2G`` or a plain number."""
    parts = re.fullmatch(r"(\d+)([KMG]?)", text.upper())
    if not parts:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512M or 2G")
    return int(parts[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[parts[2]]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="testkernel.py", description="Run a command as root on a kernel with IPVS.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("which", help="say which kernel would be used, and why")
    actions.add_parser("fetch", help="fetch the packaged kernel, if it would be used")
    runs = actions.add_parser("run", help="run a command", usage="testkernel.py run [options] -- CMD...")
    runs.add_argument("--kernel", choices=("auto", "host", "packaged", *virtual.SUITES), default="auto")
    runs.add_argument("--memory", type=size, default=size("2G"), help="of the packaged kernel; taken only as used (2G)")
    runs.add_argument("--timeout", type=float, metavar="SEC", help="end the command after this time, with 124")
    runs.add_argument("--cpu", type=int, metavar="N", help="pin to this CPU (packaged kernel: one that no other uses)")
    runs.add_argument("--modules", default="ip_vs", metavar="A,B", help="kernel modules to load before (ip_vs)")
    runs.add_argument("--shell", action="store_true", help="keep the terminal attached; without CMD: a shell")
    runs.add_argument("--verbose", action="store_true", help="show the kernel's own messages afterwards")
    runs.add_argument("command", nargs="*", metavar="CMD")
    options = parser.parse_args(arguments)
    if options.action == "run" and not options.command:
        if not options.shell:
            runs.error("no command; give one after --, or --shell")
        options.command = [os.environ.get("SHELL", "/bin/sh")]
    if options.action == "run" and options.shell and options.kernel in virtual.SUITES:
        runs.error(f"--shell does not work in {options.kernel}'s kernel; leave out --kernel")
    if options.action == "run" and options.shell and not (sys.stdin.isatty() and sys.stdout.isatty()):
        runs.error("--shell needs a terminal on standard input and output")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    try:
        choice = choose()
        if options.action == "which":
            print(f"{choice.kernel}: {choice.reason}")
            return 0
        if options.action == "fetch":
            if choice.kernel == "packaged":
                usermode.fetch()
            return 0
        request = Request(
            command=options.command,
            kernel=choice.kernel if options.kernel == "auto" else options.kernel,
            memory=options.memory,
            timeout=options.timeout,
            cpu=options.cpu,
            modules=[name for name in options.modules.split(",") if name],
            shell=options.shell,
            verbose=options.verbose,
        )
        return run(request)
    except (Unusable, debian.Unavailable, elf.NotPatchable) as exc:
        say(str(exc))
        return DIED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
