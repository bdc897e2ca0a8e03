"""Traffic that counts exactly: ``python -m tests.lab.traffic VIP LINES RATE`` in the client's namespace.

*Lines* are long-lived connections to the echo port. Each says a numbered word, waits for exactly that word, rests for
``BEAT`` seconds and says the next. A line is broken by a reset, by an end, by a wrong word, or by an echo that takes
longer than ``PATIENCE``. *Requests* are sent ``RATE`` times a second, each on a new connection, and never again: one
fails when it is refused, reset, cut short or not answered within ``PATIENCE``. TCP itself repeats packets that were
lost; the kernel counts these for each connection (``TCP_INFO``), so a request of which a packet had to be repeated is
answered, but ``delayed``. Nothing else is counted as lost, and nothing that is lost goes uncounted.

Each line on standard input is answered by one on standard output: all that was counted, as JSON. The line ``mark``
counts what lines had to repeat, too, and begins the longest silence anew. The end of standard input ends it. Times
are ``time.monotonic()``, which all processes of one kernel share.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from anycastlb.core.model import Address
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import GIVE_UP, until
from tests.lab.server import ECHO, WEB

BEAT = 2.0
PATIENCE = GIVE_UP
AT_ONCE = 10
STALL = 1.0
"""Seconds: an echo that takes longer is named."""
ROOT = Path(__file__).resolve().parents[2]
_TOTAL_RETRANS = 100
"""Where ``struct tcp_info`` (linux/tcp.h) has ``tcpi_total_retrans``: SYNs and data sent again."""


def repeated(transport: asyncio.BaseTransport) -> int:
    """How many packets this side of the connection had to send again."""
    sock = transport.get_extra_info("socket")
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[_TOTAL_RETRANS : _TOTAL_RETRANS + 4], sys.byteorder)


class Line(asyncio.Protocol):
    """One long-lived connection."""

    def __init__(self, number: int, tally: Tally) -> None:
        self.number, self.tally = number, tally
        self.round = 0
        self.said = 0.0
        """When the word was said that is not echoed yet, or 0."""
        self.heard = 0.0
        """When the last word that was echoed had been said."""
        self.broken = ""
        self.backend = ""
        self._seen = b""
        self._word = b""
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if not self._seen.endswith(b"\n"):
            return
        text, self._seen = self._seen, b""
        if not self.backend:  # it greets with its name
            self.backend = text.decode(errors="replace").strip()
            # not all at the same moment
            asyncio.get_running_loop().call_later(BEAT * (self.number % 100) / 100, self._say)
        elif text != self._word:
            self._break(f"said {self._word!r}, heard {text[:60]!r}")
        else:
            self._echoed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(type(exc).__name__ if exc else "ended by the other side")

    def _say(self) -> None:
        if self.broken:
            return
        self.round += 1
        self._word = f"{self.number} {self.round}\n".encode()
        self.said = time.monotonic()
        self.transport.write(self._word)
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(PATIENCE, self._break, f"no echo within {PATIENCE:g} s")

    def _echoed(self) -> None:
        took = time.monotonic() - self.said
        self.tally.echoes += 1
        if took > STALL:
            self.tally.stalls.append((self.said, took))
        self.heard, self.said = self.said, 0.0
        if self._limit:
            self._limit.cancel()
        asyncio.get_running_loop().call_later(max(0.0, BEAT - took), self._say)

    def _break(self, reason: str) -> None:
        if not self.broken:
            self.broken = reason
            self.tally.broken.append((time.monotonic(), f"line {self.number} to {self.backend or '?'}: {reason}"))
        if self._limit:
            self._limit.cancel()
        self.transport.abort()


@dataclass
class Tally:
    lines: list[Line] = field(default_factory=list)
    echoes: int = 0
    stalls: list[tuple[float, float]] = field(default_factory=list)
    """When the word was said, and how long its echo took."""
    broken: list[tuple[float, str]] = field(default_factory=list)
    sent: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    delayed: list[tuple[float, float, int]] = field(default_factory=list)
    """When the request began, how long it took, and the packets that were sent again."""
    failed: list[tuple[float, str]] = field(default_factory=list)
    pending: set[float] = field(default_factory=set)
    """When the requests began that are not answered yet."""
    silence: float = 0.0
    """The longest time between two answers, seconds."""
    last: float = 0.0

    def told(self, whole: bool) -> dict[str, Any]:
        living = [line for line in self.lines if not line.broken]
        return {
            "at": time.monotonic(),
            "open": sum(bool(line.backend) for line in living),
            "backends": Counter(line.backend for line in living),
            "heard": min((line.heard for line in living), default=0.0),
            "pending": min(self.pending, default=time.monotonic()),
            "silence": max(self.silence, time.monotonic() - self.last),
            "repeated": sum(repeated(line.transport) for line in living) if whole else 0,
            "echoes": self.echoes,
            "stalls": self.stalls,
            "broken": self.broken,
            "sent": self.sent,
            "answered": self.answered,
            "delayed": self.delayed,
            "failed": self.failed,
        }


async def request(vip: str, tally: Tally) -> None:
    began = time.monotonic()
    tally.sent += 1
    tally.pending.add(began)
    writer = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(vip, WEB)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            again = repeated(writer.transport)
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head or not body:
            raise ConnectionError(f"answered {answer[:60]!r}")
    except (OSError, TimeoutError) as exc:
        tally.failed.append((began, f"{type(exc).__name__} after {time.monotonic() - began:.1f} s: {exc}"))
    else:
        tally.answered[body.decode()] += 1
        now = time.monotonic()
        tally.silence, tally.last = max(tally.silence, now - (tally.last or now)), now
        if again:
            tally.delayed.append((began, time.monotonic() - began, again))
    finally:
        tally.pending.discard(began)
        if writer:
            writer.transport.abort()


async def run(vip: str, lines: int, rate: float) -> None:
    loop, tally = asyncio.get_running_loop(), Tally()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    numbers = iter(range(lines))

    async def connect() -> None:
        for number in numbers:
            line = Line(number, tally)
            try:
                await loop.create_connection(lambda line=line: line, vip, ECHO)  # type: ignore[misc]
                tally.lines.append(line)
            except OSError as exc:
                tally.broken.append((time.monotonic(), f"line {number} was never made: {exc}"))

    async def stream(group: asyncio.TaskGroup) -> None:
        following = time.monotonic()
        while True:
            group.create_task(request(vip, tally))
            following = max(following + 1 / rate, time.monotonic() - 1)  # a machine that slept need not catch up
            await asyncio.sleep(following - time.monotonic())

    async def answer() -> None:
        while line := await commands.readline():
            mark = line == b"mark\n"
            print(json.dumps(tally.told(mark)), flush=True)
            tally.silence = 0.0 if mark else tally.silence
        raise EOFError

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(connect())
            group.create_task(stream(group))
            group.create_task(answer())
    except* EOFError:
        pass


class Traffic:
    """The running program, seen from a test. ``with Traffic(lab.client.namespace, vip) as traffic``."""

    def __init__(self, namespace: Namespace, vip: Address, lines: int = 100, rate: float = 10.0) -> None:
        self.vip, self.lines = vip, lines
        self._argv = namespace.argv(sys.executable, "-m", "tests.lab.traffic", str(vip), str(lines), str(rate))
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Traffic:
        self._child = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True, cwd=ROOT
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._child
        self._child.kill()
        self._child.wait()

    def ask(self, mark: bool = False) -> dict[str, Any]:
        """What it has counted since its start. ``mark``: packets of lines too, and the longest silence begins anew."""
        assert self._child and self._child.stdin and self._child.stdout
        try:
            self._child.stdin.write("mark\n" if mark else "\n")
            self._child.stdin.flush()
            told: dict[str, Any] = json.loads(self._child.stdout.readline())
        except (OSError, ValueError) as exc:
            raise LabError(f"the traffic to {self.vip} ended by itself: {exc}") from None
        return told

    def established(self, within: float = 2 * GIVE_UP) -> None:
        """Wait until every line was made and echoed once."""
        until(
            lambda: (now := self.ask())["open"] == self.lines and now["heard"] > 0, f"lines to {self.vip}", within, 0.3
        )

    def breaks(self, lines: int, within: float = GIVE_UP) -> None:
        """Wait until so many lines broke."""
        until(lambda: len(self.ask()["broken"]) == lines > 0, f"{lines} lines to {self.vip} break", within, every=0.3)

    def passed(self, since: float, within: float = 2 * GIVE_UP) -> None:
        """Wait until every line that lives said something after ``since`` (``time.monotonic()``) and heard it, and no
        request of before waits any more."""

        def done() -> bool:
            now = self.ask()
            return bool(now["heard"] > since and now["pending"] > since)

        until(done, f"every line to {self.vip} was used", within, every=0.3)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
