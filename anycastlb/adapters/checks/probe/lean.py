"""Probe many targets at once without a task, a future or a coroutine for each: plain TCP and plain HTTP.

Theory of operation. All sockets of lean probes stand in one epoll, which is itself one reader in the event loop, and
all their times in one heap, whose first is one timer in the event loop. A *turn* first takes what lies in the sockets
and only then ends those whose time is over: an answer that came in time is never missed because it was looked at late.
Times that lie within one ``GRAIN`` are kept together, so that a turn has more than one to serve.

A deadline gives the target back what the loop lost meanwhile, as ``adapters.system.lateness`` does for probes that
are coroutines.

A socket whose probe went straight to its target and was answered is disconnected, which resets the connection as
closing it would, and serves the next probe: to make, to register and to close one is more than half of what the kernel
does for a probe.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import chain, count
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll

from anycastlb.adapters.checks.probe.outcome import Down, Exchange, Found, Reader
from anycastlb.adapters.checks.probe.sockets import disconnected, error_text, family, opened
from anycastlb.adapters.system.lateness import EXTENSION, lateness
from anycastlb.core.model import Check, ProbePath

GRAIN = 0.01
"""Seconds by which a timer may fire early, to fire together with others."""
MAX_EVENTS = 128
"""Sockets and timers served in one turn, so that nobody else in the loop waits long."""
PIECE = 16384
"""Bytes taken at once."""
SPARE = MAX_EVENTS
"""Sockets of one family that are kept for the next probes."""
CHANGES = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
"""One registration does for a whole probe: it is told of every change."""


CONNECTED = Found("connected")


class Poller:
    """The epoll and the heap. It belongs to the event loop that is running when it is made; ``close`` it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = epoll()
        self._loop.add_reader(self._epoll.fileno(), self._turn)
        self._probes: dict[int, LeanProbe] = {}
        self._spare: dict[int, list[socket.socket]] = {socket.AF_INET: [], socket.AF_INET6: []}
        self.time = self._loop.time
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._handle: asyncio.TimerHandle | None = None
        self._lateness = lateness()
        self._turning = False
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self.now = self._loop.time()
        """When the last look began."""
        self.lost = self._lateness.lost
        """Seconds that the event loop had lost by then."""

    async def run(self) -> None:
        """Wait for ever; raises what a turn has raised."""
        await self._failed

    def close(self) -> None:
        for probe in list(self._probes.values()):
            probe.cancel()
        for sock in chain.from_iterable(self._spare.values()):
            sock.close()
        if self._handle is not None:
            self._handle.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def call_at(self, when: float, act: Callable[[], None]) -> None:
        """Call ``act`` in a turn at this moment, or up to ``GRAIN`` before it. It cannot be taken back."""
        heappush(self._timers, (when, next(self._order), act))
        if not self._turning:
            self._arm()

    def opened(self, family: int, probe_path: ProbePath | None) -> socket.socket:
        """A socket for one probe. Raises OSError."""
        if probe_path is None and (spare := self._spare[family]):
            return spare.pop()
        sock = opened(family, socket.SOCK_STREAM, probe_path)
        self._epoll.register(sock.fileno(), CHANGES)
        return sock

    def add(self, probe: LeanProbe, sock: socket.socket) -> None:
        """Tell the probe from now on what changes at its socket."""
        if not self._probes:
            self._lateness.watch()
        self._probes[sock.fileno()] = probe

    def remove(self, sock: socket.socket, reuse: int | None) -> None:
        """The probe is over: close its socket, or keep it for another one of this family."""
        if self._probes.pop(sock.fileno(), None) and not self._probes:
            self._lateness.unwatch()
        if reuse is not None and len(spare := self._spare[reuse]) < SPARE and disconnected(sock):
            spare.append(sock)  # what the epoll still has of the last probe is nobody's
        else:
            sock.close()  # which takes it out of the epoll

    def _turn(self) -> None:
        self._turning = True
        try:
            if self._look() and self._fire():
                self._look()  # who is near has answered already
        except Exception as exc:  # a handler of the loop would only log it
            if not self._failed.done():
                self._failed.set_exception(exc)
        finally:
            self._turning = False
            self._arm()

    def _look(self) -> bool:
        """Take what lies in the sockets; was that all?"""
        self.now, self.lost = self._loop.time(), self._lateness.lost
        events = self._epoll.poll(0, MAX_EVENTS)
        for descriptor, flags in events:
            if probe := self._probes.get(descriptor):
                probe.progress(flags)
        return len(events) < MAX_EVENTS

    def _fire(self) -> bool:
        """Call whose time has come by the last look; was there any?"""
        timers, until = self._timers, self.now + GRAIN
        fired = 0
        while timers and timers[0][0] <= until and fired < MAX_EVENTS:
            heappop(timers)[2]()
            fired += 1
        return fired > 0

    def _timer(self) -> None:
        self._handle = None
        self._turn()

    def _arm(self) -> None:
        """Be called when the first timer is due."""
        when = self._timers[0][0] if self._timers else None
        if self._handle is not None:
            if when == self._handle.when():
                return
            self._handle.cancel()
        self._handle = self._loop.call_at(when, self._timer) if when is not None else None


class LeanProbe:
    """The socket of one target, for one probe after the other.

    ``begin`` calls ``ended`` once, in this or a later turn: with what was found, or with ``Down``, or TimeoutError when
    its time is over.
    """

    __slots__ = (
        "_address",
        "_before",
        "_connected",
        "_deadline",
        "_ended",
        "_exchange",
        "_expires",
        "_family",
        "_poller",
        "_reader",
        "_rest",
        "_reusable",
        "_sock",
        "_timeout",
        "fair",
        "started",
    )

    def __init__(
        self, poller: Poller, check: Check, exchange: Exchange, ended: Callable[[Found | Exception], None]
    ) -> None:
        self._poller, self._exchange, self._ended = poller, exchange, ended
        self._family, self._address = family(check.address), (str(check.address), check.port)
        self._timeout = check.timeout
        self._sock: socket.socket | None = None
        self._reader: Reader | None = None
        self._rest = b""
        self._connected = False
        self._reusable = False
        self._before = 0.0
        self._deadline = 0.0
        self._expires: float | None = None
        """When its next timer in the heap fires; None if it has none. There is at most one."""
        self.started = 0.0
        self.fair = True
        """Did the target have all its time? False if more was lost than is given back."""

    @property
    def lost(self) -> float:
        """Seconds that the event loop has lost since the probe began."""
        return self._poller.lost - self._before

    @property
    def ended(self) -> float:
        """When the look began that ended it."""
        return max(self._poller.now, self.started)

    def begin(self, probe_path: ProbePath | None) -> None:
        poller = self._poller
        self.started, self._before, self.fair = poller.time(), poller.lost, True
        self._connected, self._rest, self._reader = False, self._exchange.request, None
        self._reusable = probe_path is None  # else it has a mark and an address of its own
        try:
            if self._exchange.permit is not None:
                self._exchange.permit(self.started)
            sock = self._sock = poller.opened(self._family, probe_path)
            code = sock.connect_ex(self._address)
            if code and code != errno.EINPROGRESS:
                raise OSError(code, "connect")
            poller.add(self, sock)
        except (OSError, Down) as exc:
            self._end(exc)
            return
        self._deadline = self.started + self._timeout
        if self._expires is None:
            self._expire_at(self._deadline)

    def cancel(self) -> None:
        """Close the socket; ``ended`` will not be called."""
        if self._sock is not None:
            self._poller.remove(self._sock, None)
            self._sock = None

    def progress(self, flags: int) -> None:
        """Something has changed at its socket."""
        try:
            result = self._proceed(flags)
        except Exception as exc:  # a fault of the probe must not end the turn of the others
            self._end(exc)
        else:
            if result is not None:
                self._end(result)

    def _proceed(self, flags: int) -> Found | None:
        sock = self._sock
        assert sock is not None
        if not self._connected:
            if flags & (EPOLLERR | EPOLLHUP) and (code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                raise OSError(code, "connect")
            if not flags & EPOLLOUT:
                return None
            self._connected = True
            if self._exchange.reader is not None:
                self._reader = self._exchange.reader()
        if self._rest:
            try:
                self._rest = self._rest[sock.send(self._rest) :]
            except BlockingIOError:
                return None
        if self._rest:
            return None
        if self._reader is None:
            return CONNECTED
        return self._read(sock, self._reader) if flags & ~EPOLLOUT else None

    @staticmethod
    def _read(sock: socket.socket, reader: Reader) -> Found | None:
        while True:
            try:
                data = sock.recv(PIECE)
            except BlockingIOError:
                return None
            result = reader.feed(data) if data else reader.end()
            if result is not None:
                return result

    def _end(self, outcome: Found | Exception) -> None:
        if self._sock is not None:
            reusable = self._reusable and not isinstance(outcome, Exception)
            self._poller.remove(self._sock, self._family if reusable else None)
            self._sock = None
        if isinstance(outcome, OSError) and outcome.errno is not None:
            down = Down(error_text(outcome))
            down.__cause__ = outcome
            outcome = down
        self._ended(outcome)

    def _expire_at(self, when: float) -> None:
        self._expires = when
        self._poller.call_at(when + GRAIN, self._expire)  # a target has its whole time

    def _expire(self) -> None:
        """The deadline of the probe that is under way, or of one before it."""
        self._expires = None
        if self._sock is None:
            return
        back = EXTENSION * self._timeout
        self.fair = self.lost <= back
        end = self._deadline + min(self.lost, back)
        if end > self._poller.now:
            self._expire_at(end)
        else:
            self._end(TimeoutError())
