"""The client of the lab: single requests, many open connections, a steady load; each says what really happened."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from anycastlb.core.model import Address
from tests.lab import lateness
from tests.lab.http import connect, get, open_socket
from tests.lab.namespaces import Namespace
from tests.lab.process import GIVE_UP
from tests.lab.server import DNS, ECHO, WEB

TIMELY = 2.0
"""Seconds in which a request must be answered. A packet that is lost is sent again after one."""


class Client:
    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def get(self, vip: Address, port: int = WEB, timeout: float = GIVE_UP) -> str:
        """The name of the backend that answered. Raises ``OSError``."""
        status, body = get(self.namespace, str(vip), port, timeout=timeout)
        if status != 200:
            raise ConnectionError(f"{vip} port {port} answered HTTP {status}")
        return body

    def ask(self, vip: Address, port: int = DNS, timeout: float = GIVE_UP) -> str:
        """The name of the backend that answered a datagram. Raises ``OSError``."""
        with open_socket(self.namespace, str(vip), socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect((str(vip), port))
            sock.send(b"who?")
            return sock.recv(100).decode()

    def spread(self, number: int, vip: Address, port: int = WEB, udp: bool = False) -> Counter[str]:
        """Ask ``number`` times: how often each backend answered. Raises ``OSError`` at the first failure."""
        ask = self.ask if udp else self.get
        return Counter(ask(vip, port) for _ in range(number))

    def open(self, number: int, vip: Address, port: int = ECHO) -> Connections:
        return Connections(self.namespace, number, vip, port)

    def load(self, vip: Address, port: int = WEB, pause: float = 0.05) -> Load:
        return Load(self, vip, port, pause)


class Connections:
    """Open TCP connections to an echo service; ``landed`` has the backend of each."""

    def __init__(self, namespace: Namespace, number: int, vip: Address, port: int) -> None:
        self._sockets: list[socket.socket] = []
        self.landed: Counter[str] = Counter()
        try:
            for _ in range(number):
                sock = connect(namespace, str(vip), port, GIVE_UP)
                self._sockets.append(sock)
                self.landed[sock.recv(100).decode().strip()] += 1
        except BaseException:
            self.close()
            raise
        self._round = 0

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def ports(self) -> set[int]:
        """The client's port of each: how to tell them apart on a node."""
        return {int(sock.getsockname()[1]) for sock in self._sockets}

    def alive(self, within: float = GIVE_UP) -> int:
        """Say something new on every one and count those that echo it (and did not break)."""
        self._round += 1
        word = f"round {self._round}\n".encode()
        with selectors.DefaultSelector() as selector:
            for sock in self._sockets:
                try:
                    sock.send(word)
                except OSError:
                    continue
                selector.register(sock, selectors.EVENT_READ, b"")
            return self._count(selector, word, time.monotonic() + within)

    @staticmethod
    def _count(selector: selectors.BaseSelector, word: bytes, end: float) -> int:
        echoed = 0
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    piece = key.fileobj.recv(1000)
                except OSError:
                    piece = b""
                heard = key.data + piece
                if piece and heard != word:
                    selector.modify(key.fileobj, selectors.EVENT_READ, heard)
                    continue
                selector.unregister(key.fileobj)
                echoed += heard == word and bool(piece)
        return echoed

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@dataclass(frozen=True, slots=True)
class Failed:
    """One request that was not answered: when (``time.monotonic()``) it was sent, and why."""

    at: float
    reason: str


class Load:
    """A steady stream of requests, each on a new connection, from a thread of its own while the block runs.

    A request fails when it is refused, reset or cut short, or when it is not answered within ``TIMELY`` seconds. It is
    in doubt, and counts as nothing, when the machine itself lost so much of that time that nobody can tell.
    """

    def __init__(self, client: Client, vip: Address, port: int, pause: float) -> None:
        self.sent = 0
        self.answered: Counter[str] = Counter()
        self.failed: list[Failed] = []
        self.doubtful = 0
        self._client, self._vip, self._port, self._pause = client, vip, port, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(10)

    def __str__(self) -> str:
        first = f", first: {self.failed[0].reason}" if self.failed else ""
        return f"{self.sent} requests, {self.doubtful} in doubt, {len(self.failed)} failed{first}"

    def _run(self) -> None:
        while not self._stop.is_set():
            at = lateness.now()
            self.sent += 1
            try:
                self.answered[self._client.get(self._vip, self._port, TIMELY)] += 1
            except TimeoutError as exc:
                if time.monotonic() - at - (late := lateness.lost(at)) < TIMELY:
                    self.doubtful += 1
                else:
                    self.failed.append(Failed(at, f"{exc}; the machine lost {late:.2f} s of it"))
            except OSError as exc:
                self.failed.append(Failed(at, f"{type(exc).__name__}: {exc}"))
            self._stop.wait(self._pause)
