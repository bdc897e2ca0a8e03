"""Carries lines between ExaBGP, the relay and the daemon: one thread, one selector, nothing that can block.

stdin is always drained (ExaBGP hangs when its pipe is full), stdout and the socket are written only as far as they
take it, and a line for stderr is dropped rather than waited for. The loop decides nothing but when to connect and when
to give up.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from anycastlb.bridge.protocol import MAX_LINE, ProtocolError, decode_order, encode
from anycastlb.bridge.relay import Relay
from anycastlb.bridge.settings import BridgeSettings
from anycastlb.core.model import SettingsError

TICK = 0.1
"""Seconds between two looks at the clock, and between two attempts to reach the daemon."""
REPORT_EVERY = 1.0
"""Seconds between two reports when nothing changes: they tell the daemon that the bridge lives."""
REPORT_PAUSE = 0.25
"""Seconds between two reports when much changes, at most; ``REPORT_PAUSE_EACH`` for each announced route."""
REPORT_PAUSE_EACH = 25e-6
CHUNK = 1 << 16


class Lines:
    """Cuts a stream of bytes into whole lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises ``ProtocolError`` if a line grows without end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""
            raise ProtocolError(f"a line of more than {MAX_LINE} bytes")
        return lines


class Loop:
    """``reread`` reads the settings again; ``kill``: may an ExaBGP that does not withdraw be killed?"""

    def __init__(self, settings: BridgeSettings, reread: Callable[[], BridgeSettings], kill: bool = True) -> None:
        self._path, self._reread = settings.socket, reread
        self._relay = Relay(settings.vip_ranges, settings.hold, time.monotonic())
        self._kill, self._parent = kill, os.getppid()
        self._selector = selectors.DefaultSelector()
        self._from_exabgp, self._to_exabgp = Lines(), b""
        self._daemon: socket.socket | None = None
        self._from_daemon, self._to_daemon = Lines(), b""
        self._tried_at = 0.0
        self._report = b""
        """The last report over this connection, as it was sent."""
        self._reported_at = self._report_after = 0.0
        """When it was sent, and when a different one may follow."""
        self._revision = -1
        """Of the relay, when that report was made."""
        self._given_up = ""

    def run(self) -> int:
        """Run until ExaBGP closes stdin; return the exit code: 0, or 1 if ExaBGP had to be killed."""
        for fd in (0, 1):
            os.set_blocking(fd, False)
        self._selector.register(0, selectors.EVENT_READ)
        while True:
            for key, mask in self._selector.select(self._patience()):
                if key.fd == 0 and not self._read_exabgp():
                    return 0
                if key.fd == 1 and not self._write_exabgp():
                    return 0
                if key.fileobj is self._daemon:
                    self._serve(mask)
            now = time.monotonic()
            self._connect(now)
            self._relay.tick(now)
            if reason := self._relay.stuck(now):
                if self._give_up(reason):
                    return 1
            else:
                self._given_up = ""
            if not self._command(now):
                return 0
            self._send_report(now)
            for note in self._relay.notes:
                say(note)
            self._relay.notes.clear()

    # ------------------------------------------------------------ ExaBGP

    def _read_exabgp(self) -> bool:
        data = _read(0)
        if data is None:
            return True
        try:
            lines = self._from_exabgp.feed(data)
        except ProtocolError as exc:
            say(f"ExaBGP sent {exc}; ignored")
            return True
        now = time.monotonic()
        for line in lines:
            self._relay.hear(line.decode("ascii", "replace").strip(), now)
        return bool(data)

    def _command(self, now: float) -> bool:
        command = self._relay.next(now)
        if command is None:
            return True
        self._to_exabgp += command.line.encode("ascii") + b"\n"
        return self._write_exabgp()

    def _write_exabgp(self) -> bool:
        """False when ExaBGP is gone."""
        try:
            self._to_exabgp = self._to_exabgp[os.write(1, self._to_exabgp) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        waiting = 1 in self._selector.get_map()
        if self._to_exabgp and not waiting:
            self._selector.register(1, selectors.EVENT_WRITE)
        elif waiting and not self._to_exabgp:
            self._selector.unregister(1)
        return True

    def _give_up(self, reason: str) -> bool:
        """Kill ExaBGP, so that its sessions end and its routes leave. False if that may not or cannot be done."""
        if reason == self._given_up:
            return False
        self._given_up = reason
        if not self._kill:
            say(f"{reason}; not killing it because of --no-kill")
        elif os.getppid() != self._parent or not is_exabgp(self._parent):
            say(f"{reason}; but the parent process {os.getppid()} is not ExaBGP: kill ExaBGP yourself")
        else:
            say(f"{reason}: killing it (process {self._parent}); its service manager should start it again")
            os.kill(self._parent, signal.SIGKILL)
            return True
        return False

    # ------------------------------------------------------------ the daemon

    def _connect(self, now: float) -> None:
        if self._daemon is not None or now - self._tried_at < TICK:
            return
        self._tried_at = now
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.setblocking(False)
        try:
            link.connect(self._path)
        except OSError:
            link.close()
            return
        self._daemon, self._from_daemon, self._to_daemon, self._report = link, Lines(), b"", b""
        self._selector.register(link, selectors.EVENT_READ)
        self._refresh()
        self._relay.connected(now)

    def _refresh(self) -> None:
        """A daemon that was restarted may have other settings; unusable ones change nothing."""
        try:
            self._relay.set_ranges(self._reread().vip_ranges)
        except (OSError, SettingsError) as exc:
            say(f"the settings of before stay in force: {exc}")

    def _disconnect(self, reason: str) -> None:
        if self._daemon is None:
            return
        say(reason)
        self._selector.unregister(self._daemon)
        self._daemon.close()
        self._daemon = None
        self._relay.disconnected(time.monotonic())

    def _serve(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if self._daemon is None or not mask & selectors.EVENT_READ:
            return
        try:
            data = self._daemon.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as exc:
            return self._disconnect(f"the connection to the daemon broke: {exc}")
        if not data:
            return self._disconnect("the daemon closed the connection")
        try:
            for line in self._from_daemon.feed(data):
                self._relay.obey(decode_order(line), time.monotonic())
        except ProtocolError as exc:
            self._disconnect(f"the daemon said something that is no message, connection dropped: {exc}")

    def _patience(self) -> float:
        """Seconds to wait for something to read, at most."""
        if self._daemon is None or self._to_daemon or self._revision == self._relay.revision:
            return TICK
        return min(TICK, max(0.0, self._report_after - time.monotonic()))

    def _send_report(self, now: float) -> None:
        """Send a report when it changed or is due, and the previous one is fully written."""
        if self._daemon is None or self._to_daemon:
            return
        line = self._report
        if self._revision != self._relay.revision and (now >= self._report_after or not line):
            self._revision = self._relay.revision
            report = self._relay.report()
            line = encode(report)
            self._report_after = now + min(REPORT_PAUSE, REPORT_PAUSE_EACH * len(report.announced))
        if line != self._report or now - self._reported_at >= REPORT_EVERY:
            self._report, self._reported_at, self._to_daemon = line, now, line
            self._flush()

    def _flush(self) -> None:
        if self._daemon is None:
            return
        try:
            self._to_daemon = self._to_daemon[self._daemon.send(self._to_daemon) :]
        except BlockingIOError:
            pass
        except OSError as exc:
            return self._disconnect(f"the connection to the daemon broke: {exc}")
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._to_daemon else 0)
        self._selector.modify(self._daemon, wanted)


def _read(fd: int) -> bytes | None:
    """The bytes that can be read now; empty at the end of the stream, None if there are none yet."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def is_exabgp(pid: int) -> bool:
    """Is this process ExaBGP, by its name or by the program it runs?"""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        argv = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return False
    started = any(Path(word).name == "exabgp" or word.endswith("exabgp/__main__.py") for word in argv[:4])
    return name == "exabgp" or started


def say(note: str) -> None:
    """One line on stderr (ExaBGP's own), unless nobody reads it: the watchdog must not wait for a reader."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(2, selectors.EVENT_WRITE)
            writable = bool(selector.select(0))
        except PermissionError:  # a regular file: never blocks
            writable = True
        except (OSError, ValueError):
            return
    if writable:
        line = f"anycastlb-bridge: {note}".encode("ascii", "backslashreplace")[:1000]
        try:
            os.write(2, line.replace(b"\n", b" ") + b"\n")
        except OSError:
            return
