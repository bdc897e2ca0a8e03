"""ExaBGP and the bridge it runs, beside a node in virtual time: the real driver and the real relay over a fake ExaBGP.

They outlive the node, as they do on a machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from typing import Any

from anycastlb.adapters.drivers.bgp import BgpDriver
from anycastlb.adapters.drivers.bridge_server import BridgeConnection, BridgeServer, BridgeUser
from anycastlb.bridge.exchange import Command
from anycastlb.bridge.protocol import Heartbeat, ProtocolError, Report, RouteSet
from anycastlb.bridge.relay import Relay
from anycastlb.core.model import Address, Network
from anycastlb.engine.node import Node
from tests.support.fake_exabgp import FakeExaBGP, state
from tests.support.world import World

HOLD = 15.0
PEERS = ("10.99.1.1", "10.99.2.1")
RECONNECT = 0.1
"""Seconds until a bridge that lost its daemon tries again, and ExaBGP has started another bridge."""
RESTART = 2.0
"""Seconds until a killed ExaBGP runs again."""


class DirectConnection(BridgeConnection):
    """From a driver to the relay, in one process."""

    def __init__(self) -> None:
        self.report, self.pid, self.silent = Report(), 4711, 0
        self.sent: list[RouteSet | Heartbeat] = []

    def send(self, message: RouteSet | Heartbeat) -> bool:
        self.sent.append(message)
        return True


class Speaker(BridgeServer):
    """``frozen``: ExaBGP does nothing; what it was asked for it does later."""

    def __init__(self, ranges: Sequence[Network]) -> None:
        super().__init__("/nowhere")
        self.exabgp = FakeExaBGP(*PEERS)
        self.ranges = tuple(ranges)
        self.frozen = False
        self.per_command, self.per_route = 0.01, 0.0005
        self.kills: list[str] = []
        """Why the bridge has killed ExaBGP."""
        self._user: BridgeUser | None = None
        self._relay: Relay | None = None
        self._command: Command | None = None
        self._answer_at = self._resumes_at = self._reported_at = 0.0

    @property
    def announced(self) -> set[Address]:
        """What the first router has."""
        return self.exabgp.announced(PEERS[0]) if PEERS[0] in self.exabgp.rib else set()

    async def run(self, user: BridgeUser) -> None:
        """The daemon listens, until it dies."""
        self._user = user
        try:
            await asyncio.Event().wait()
        finally:
            self._hang_up(told=False)
            self._user = None

    async def live(self) -> None:
        """ExaBGP and its bridge, for as long as the machine runs."""
        while True:
            now = asyncio.get_running_loop().time()
            if now >= self._resumes_at:
                self._step(now)
            await asyncio.sleep(0.02)

    # ---------------------------------------------------------------- the hand of a test

    def kill_bridge(self) -> None:
        """ExaBGP starts another one, which knows nothing."""
        self._hang_up()
        self._relay = self._command = None
        self._resumes_at = asyncio.get_running_loop().time() + RECONNECT

    def session(self, peer: str, up: bool) -> None:
        self._hear(state(peer, "up" if up else "down", "" if up else "the peer has closed it"))

    def add_neighbor(self, peer: str) -> None:
        """exabgp.conf has one more, and ExaBGP was asked to read it again."""
        self.exabgp.peers.append(peer)
        self.exabgp.rib[peer] = {}
        self.session(peer, True)

    def remove_neighbor(self, peer: str) -> None:
        self.exabgp.peers.remove(peer)
        del self.exabgp.rib[peer]
        self.session(peer, False)

    def change_ranges(self, *ranges: str) -> None:
        """node.toml was edited: the bridge reads it when it connects to a daemon."""
        self.ranges = tuple(map(ip_network, ranges))

    # ---------------------------------------------------------------- one moment

    def _step(self, now: float) -> None:
        if self._relay is None:
            self._relay = Relay(self.ranges, HOLD, now)
        relay = self._relay
        self._connect(now)
        if self._command is not None and now >= self._answer_at and not self.frozen:
            command, self._command = self._command, None
            for line in self.exabgp.answer(command.line):
                relay.hear(line, now)
        self._obey(now)
        relay.tick(now)
        relay.notes.clear()
        if reason := relay.stuck(now):
            self._kill(reason, now)
            return
        if (new := relay.next(now)) is not None:
            self._command = new
            self._answer_at = now + self.per_command + self.per_route * len(new.vips) * len(new.peers)
        if self.connection is not None and self._user is not None and now - self._reported_at >= 0.25:
            self._reported_at, self.connection.report = now, relay.report()
            self._user.bridge_reported(self.connection)
        if self._user is not None:
            self._user.time_passed()

    def _connect(self, now: float) -> None:
        if self._user is None or self.connection is not None or self._relay is None:
            return
        self.connection = DirectConnection()
        self._relay.set_ranges(self.ranges)
        self._relay.connected(now)
        self._user.bridge_connected(self.connection)

    def _obey(self, now: float) -> None:
        wire, relay = self.connection, self._relay
        if not isinstance(wire, DirectConnection) or relay is None:
            return
        sent, wire.sent = wire.sent, []
        try:
            for message in sent:
                relay.obey(message, now)
        except ProtocolError:
            self._hang_up()

    def _hang_up(self, told: bool = True) -> None:
        """The connection ends; ``told``: the daemon lives and sees it."""
        wire, self.connection = self.connection, None
        if wire is None:
            return
        if self._relay is not None:
            self._relay.disconnected(asyncio.get_running_loop().time())
        if told and self._user is not None:
            self._user.bridge_lost(wire)

    def _kill(self, reason: str, now: float) -> None:
        """ExaBGP is gone, its sessions end, and its service manager starts it again."""
        self.kills.append(reason)
        self._hang_up()
        self.exabgp = FakeExaBGP(*self.exabgp.peers)
        self._relay = self._command = None
        self.frozen, self._resumes_at = False, now + RESTART

    def _hear(self, line: str) -> None:
        if self._relay is not None:
            self._relay.hear(line, asyncio.get_running_loop().time())


class SpeakingWorld(World):
    """A world whose routes go through the real driver and relay. ``live`` must run beside the story."""

    def __init__(self, state_dir: str, **more: Any) -> None:
        super().__init__(state_dir, **more)
        self.speaker = Speaker(self.settings.node.vip_ranges)

    @property
    def announced(self) -> set[Address]:
        return self.speaker.announced

    @asynccontextmanager
    async def node(self) -> AsyncIterator[Node]:
        wake: list[Callable[[], None]] = []
        clock = asyncio.get_running_loop().time
        ranges = self.settings.node.vip_ranges
        driver = BgpDriver(self.speaker, HOLD, ranges, lambda: [call() for call in wake] and None, clock=clock)
        self.router = driver  # type: ignore[assignment]
        async with super().node() as node:
            wake.append(node.inbox.wake)
            listening = asyncio.ensure_future(driver.run())  # noqa: TID251
            try:
                yield node
            finally:
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
