"""The test kernel seen from outside: what goes in, what comes back, and how it ends.

Runs on the host, on whichever kernel the runner chooses there; each test starts one.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import consul, debian, testkernel
from tests.rig.require import require

RUN = [sys.executable, testkernel.__file__, "run"]
PATIENCE = 60
"""Seconds for anything to happen at all."""


@pytest.fixture(scope="module", autouse=True)
def kernel() -> str:
    return require("testkernel")


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*RUN, *arguments], check=False, capture_output=True, timeout=PATIENCE, **options)  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A runner whose command has said its first line; ended at the latest with the block."""
    process = subprocess.Popen([*RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def vanished(pids: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def test_the_exit_code_comes_back() -> None:
    assert run("--", "sh", "-c", "exit 42").returncode == 42


def test_death_by_a_signal_is_128_and_its_number() -> None:
    assert run("--", "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_127() -> None:
    done = run("--", "no-such-command")
    assert (done.returncode, done.stdout) == (127, b"")
    assert b"no-such-command" in done.stderr


def test_a_module_that_does_not_exist_is_named() -> None:
    done = run("--modules", "ip_vs,no_such_module", "--", "true")
    assert done.returncode == testkernel.DIED
    assert b"no_such_module" in done.stderr


def test_output_and_errors_come_apart_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "err").write_bytes(b"error\n\r\n\x00\x04\xff")
    done = run("--", "sh", "-c", f"cat {tmp_path}/out; cat {tmp_path}/err >&2")
    assert done.stdout == (tmp_path / "out").read_bytes()
    assert done.stderr == (tmp_path / "err").read_bytes()


def test_much_output_to_a_slow_reader_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "much").write_bytes(random.Random(0).randbytes(5_000_000))
    process = subprocess.Popen([*RUN, "--", "cat", str(tmp_path / "much")], stdout=subprocess.PIPE)
    time.sleep(3)
    assert process.communicate(timeout=PATIENCE)[0] == (tmp_path / "much").read_bytes()


def test_output_is_live() -> None:
    with running("--", "sh", "-c", "echo ready; exec sleep 100") as process:
        assert process.poll() is None


def test_the_command_finds_its_variables_and_directory(tmp_path: Path, kernel: str) -> None:
    script = 'pwd; echo "$NAME|$TMPDIR|$TESTKERNEL|$1"; touch made; touch $TMPDIR/gone'
    odd = {**os.environ, "NAME": "tab\tquote'\"\nünï $HOME"}
    done = run("--", "sh", "-c", script, "sh", "two  words", cwd=tmp_path, env=odd)
    assert done.stdout.decode() == f"{tmp_path}\n{odd['NAME']}|/run/tmp|{kernel}|two  words\n"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_inside_is_ipvs_and_a_network_of_its_own() -> None:
    done = run("--", "sh", "-c", "hostname; cat /sys/class/net/lo/flags; ip -o address; cat /proc/net/ip_vs")
    name, flags, *lines = done.stdout.decode().splitlines()
    assert name == "testkernel"
    assert int(flags, 16) & 1, "loopback is not up"
    table = next(number for number, line in enumerate(lines) if line.startswith("IP Virtual Server"))
    assert {line.split()[1] for line in lines[:table]} == {"lo"}
    assert lines[table + 1 :] == [
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn",
    ]


def test_a_time_out_is_124_and_the_command_was_told() -> None:
    done = run("--timeout", "4", "--", sys.executable, "-c", "import time; time.sleep(100)")
    assert done.returncode == testkernel.TIMED_OUT
    assert b"KeyboardInterrupt" in done.stderr
    assert b"time-out after 4" in done.stderr


def test_a_command_that_will_not_end_is_ended() -> None:
    done = run(
        "--timeout",
        "2",
        "--",
        sys.executable,
        "-c",
        "import signal, time\nsignal.signal(2, signal.SIG_IGN)\ntime.sleep(100)",
    )
    assert done.returncode == testkernel.TIMED_OUT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_and_ends_the_kernel(number: signal.Signals) -> None:
    script = f"trap 'echo tidied; exit 3' {number.name[3:]}; echo ready; sleep 100 & wait"
    with running("--", "sh", "-c", script) as process:
        kernels = children(process.pid)
        process.send_signal(number)
        output, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, output) == (128 + number, "tidied\n")
        assert number.name in errors
        assert vanished(kernels)


def test_a_second_signal_does_not_wait_for_the_command() -> None:
    with running("--", "sh", "-c", "trap '' TERM; echo ready; sleep 100; sleep 100") as process:
        process.terminate()
        time.sleep(testkernel.ECHO + 0.2)
        process.terminate()
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + signal.SIGTERM


def test_a_killed_runner_leaves_no_kernel_behind() -> None:
    with running("--", "sh", "-c", "echo ready; exec sleep 100") as process:
        kernels = children(process.pid)
        last_argument = Path(Path(f"/proc/{kernels[0]}/cmdline").read_text().split("\0")[-2])
        process.kill()
        assert vanished(kernels)
    # All that stays is the job directory, for nobody is left to remove it.
    shutil.rmtree(last_argument.parent if last_argument.is_file() else last_argument)


def test_processes_left_behind_do_not_hold_it_up() -> None:
    began = time.monotonic()
    assert run("--", "sh", "-c", "setsid sleep 1000 & exit 4").returncode == 4
    assert time.monotonic() - began < PATIENCE


def test_a_dead_kernel_is_125_and_its_last_words_are_shown(kernel: str) -> None:
    if kernel == "host":
        pytest.skip("the host's kernel is needed for something else")
    done = run("--timeout", "30", "--", "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert done.returncode == testkernel.DIED
    assert b"Kernel panic" in done.stderr


def test_two_run_at_once_each_on_its_own_processor(kernel: str) -> None:
    wait = ("--", "sh", "-c", "echo ready; exec sleep 100")
    with running(*wait) as one, running(*wait) as other:
        masks = [os.sched_getaffinity(children(process.pid)[0]) for process in (one, other)]
    if kernel == "packaged":
        assert [len(mask) for mask in masks] == [1, 1]
        assert masks[0] != masks[1] or len(os.sched_getaffinity(0)) < 4, "others may hold the few there are"


def test_a_plain_user_is_root_inside(tmp_path: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if os.geteuid() != 0 or python is None or shutil.which("setpriv") is None:
        pytest.skip("this test changes from root to a plain user and needs Debian's own python3 for that")
    if testkernel.choose().kernel == "host":
        pytest.skip("the packaged kernel is not used, and so not fetched, on this machine")
    plain = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    environment = {**os.environ, "ANYCASTLB_CACHE": str(debian.cache()), "HOME": "/", "PATH": "/usr/bin:/bin"}
    if subprocess.run([*plain, "test", "-r", testkernel.__file__], check=False).returncode != 0:
        pytest.skip("a plain user may not read this checkout")
    done = subprocess.run(
        [*plain, python, testkernel.__file__, "run", "--", "sh", "-c", "id -u; ipvsadm -A -f 1 && ipvsadm -Ln"],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "0"
    assert "FWM  1 wlc" in done.stdout


def test_consul_is_a_program_that_runs() -> None:
    require("consul")
    assert subprocess.check_output([consul.obtain(), "version"], text=True).startswith("Consul v")


def test_what_is_cached_needs_no_apt(tmp_path: Path, kernel: str) -> None:
    (tmp_path / "apt-get").write_text(f"#!/bin/sh\necho called >>{tmp_path}/log\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([sys.executable, testkernel.__file__, "fetch"], check=True, env=path)
    assert not (tmp_path / "log").exists()
