"""HAProxy's two sockets: the Runtime API of its worker, and the master, which reloads.

The connection to the Runtime API is kept. Its end is the news that the worker is dead, some ms after it happened. It
speaks the interactive mode, in which every answer ends with a prompt, so that many commands can be under way at once.
The master is asked over a connection for each command: HAProxy 2.6 answers only when its side of it is closed, and it
closes all of them when it reloads.

In a reload two workers share the socket for a moment: the old one accepts connections until it gets to its signal, and
the new one does not until it gets to run. So they are told apart by their pids.

Time in which this process did not run is no silence of HAProxy's (``Deadline``): a node that is busy, or was stopped,
would withdraw its gateways for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM, socket
from typing import Protocol

from anycastlb.adapters.drivers.haproxy import answers
from anycastlb.adapters.drivers.haproxy.answers import Processes
from anycastlb.adapters.drivers.haproxy.errors import Away, Unfinished, UnknownAnswer
from anycastlb.adapters.system.lateness import Deadline

BATCH = 200
"""Commands that are under way at once."""
ANSWER = 5.0
"""Seconds within which HAProxy has to answer a batch."""
LIFE = 1.0
"""Seconds within which a HAProxy that lives answers a simple question."""
CHECK = 60.0
"""Seconds within which HAProxy has to read a configuration that it is to check. It would begin anew after that."""
RELOAD = 15.0
"""Seconds within which a reload has to be done: HAProxy reads all files and starts a worker."""
STARTING = 1.0
"""Seconds for which a master that cannot be reached may be about to start."""
LOOK = 0.02
"""Seconds between two looks whether a reload is done, which HAProxy 2.6 does not say."""
PROMPT = b"\n> "
REFUSED = "HAProxy refused its configuration when it was reloaded: see journalctl -u anycastlb-haproxy"


class Runtime(Protocol):
    """HAProxy, as its driver needs it. ``on_end`` is called when a connection ends that was not closed here."""

    on_end: Callable[[], None]

    async def connect(self) -> None:
        """Have a connection to the worker that serves now. Raises ``Away``."""
        ...

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """The answers to commands, which the worker carries out in this order. Raises ``Away``: what it has carried
        out by then is not known."""
        ...

    async def probe(self) -> int:
        """The pid of the worker that answers over a new connection. Raises ``HaproxyError``."""
        ...

    def gone(self) -> bool:
        """Does nobody listen any more, neither a worker nor the master?"""
        ...

    async def check(self, config: Path) -> str:
        """What HAProxy has against a configuration; empty if it takes it."""
        ...

    async def reload(self) -> str:
        """Let a new worker take over with the files as they are now; why that failed, or empty.

        The old worker goes on after a failure. After a success the connection is one to the new worker, if that can be
        had by now. Raises ``Away``: nobody could be asked; ``Unfinished``: it is not known yet.
        """
        ...

    def close(self) -> None: ...


class SocketRuntime:
    def __init__(self, socket: Path, master: Path, program: Path, on_end: Callable[[], None] = lambda: None) -> None:
        self._socket, self._master, self._program, self.on_end = socket, master, program, on_end
        self._conversation: _Conversation | None = None
        self._asked: Processes | None = None
        """The processes when a reload was asked for that was not over when it was waited for last."""

    async def connect(self) -> None:
        if self._conversation is not None and self._conversation.open:
            return
        conversation = _Conversation(self.on_end)
        try:
            async with Deadline(ANSWER):
                await asyncio.get_running_loop().create_unix_connection(lambda: conversation, str(self._socket))
                await conversation.ask(["prompt"])
        except (OSError, TimeoutError) as exc:
            conversation.close()
            text = f"cannot reach HAProxy at {self._socket}: {_why(exc)}"
            raise Away(text, isinstance(exc, TimeoutError)) from exc
        except Away:
            conversation.close()
            raise
        self._conversation = conversation

    async def ask(self, commands: Sequence[str]) -> list[str]:
        await self.connect()
        assert self._conversation
        said: list[str] = []
        for start in range(0, len(commands), BATCH):
            try:
                async with Deadline(ANSWER):
                    said += await self._conversation.ask(commands[start : start + BATCH])
            except TimeoutError as exc:
                self.close()
                raise Away(f"HAProxy did not answer within {ANSWER:g} s; is it stopped?", silent=True) from exc
        return said

    async def probe(self) -> int:
        said = await _asked(self._socket, "show info", LIFE)
        if not said:
            raise Away(f"HAProxy closed the connection at {self._socket}")
        return answers.info(said).pid

    def gone(self) -> bool:
        return not any(map(_listens, (self._socket, self._master)))

    async def check(self, config: Path) -> str:
        command = [str(self._program), "-c", "-f", str(config)]
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        except OSError as exc:
            return f"cannot run {self._program}: {exc.strerror}; install haproxy"
        try:
            async with asyncio.timeout(CHECK):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"{' '.join(command)} did not end within {CHECK:g} s"
        return answers.alerts(output.decode(errors="replace")) if process.returncode else ""

    async def reload(self) -> str:
        before = await self._processes_soon()
        asked, self._asked = self._asked, None
        if asked is not None and (worked := before.reloaded(asked)) is not None:  # it is over by now
            why, before = "" if worked else REFUSED, asked
        else:
            why = await self._reload(before)
        if not why:
            await self._leave(before.pids)
        return why

    async def _reload(self, before: Processes) -> str:
        """Why it failed; empty if it has not. Raises ``Unfinished``."""
        try:
            async with asyncio.timeout(RELOAD):
                said = ""
                with contextlib.suppress(Away):  # 2.6 closes the connection as it starts itself anew
                    said = await self._ask_master("reload", RELOAD)
                if said.startswith("Success=0"):
                    return answers.alerts(said)
                return "" if await self._reloaded(before) else REFUSED
        except TimeoutError as exc:
            self._asked = before
            raise Unfinished(f"HAProxy was asked to reload, and is not done after {RELOAD:g} s") from exc

    def close(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None

    async def _reloaded(self, before: Processes) -> bool:
        """Has the reload worked that was asked for? As soon as that is known."""
        while True:
            with contextlib.suppress(Away, UnknownAnswer):  # the master is busy with starting itself anew
                if (worked := (await self._processes()).reloaded(before)) is not None:
                    return worked
            await asyncio.sleep(LOOK)

    async def _leave(self, workers: frozenset[int]) -> None:
        """Have the connection lead to another worker than these, if there is one: the next look judges."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELOAD):
                while await self._leads_to(workers):  # noqa: ASYNC110, nobody says when this has changed
                    await asyncio.sleep(LOOK)

    async def _leads_to(self, workers: frozenset[int]) -> bool:
        self.close()
        with contextlib.suppress(Away):
            return answers.info((await self.ask(["show info"]))[0]).pid in workers
        return True

    async def _processes_soon(self) -> Processes:
        """The worker serves before the master answers; the more so HAProxy 3.0."""
        try:
            async with asyncio.timeout(STARTING):
                while True:
                    with contextlib.suppress(Away):
                        return await self._processes()
                    await asyncio.sleep(LOOK)
        except TimeoutError:
            return await self._processes()

    async def _processes(self) -> Processes:
        return answers.processes(await self._ask_master("show proc", ANSWER))

    async def _ask_master(self, command: str, limit: float) -> str:
        return await _asked(self._master, command, limit)


async def _asked(socket: Path, command: str, limit: float) -> str:
    """The answer to one command, over a connection of its own. Raises ``Away``."""
    try:
        async with Deadline(limit):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(f"{command}\n".encode())
                writer.write_eof()
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError) as exc:
        raise Away(f"cannot reach HAProxy at {socket}: {_why(exc)}", isinstance(exc, TimeoutError)) from exc


def _listens(path: Path) -> bool:
    """Does anybody, whether or not he accepts?"""
    with socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK) as link:
        try:
            link.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _why(exc: Exception) -> str:
    return "it does not answer" if isinstance(exc, TimeoutError) else getattr(exc, "strerror", "") or str(exc)


class _Conversation(asyncio.Protocol):
    """One connection in interactive mode: an answer for each command, in their order. One batch at a time."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._asked: Sequence[str] = ()
        self._answers: list[str] = []
        self._answered: asyncio.Future[None] | None = None
        self.open = True

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """Raises ``Away`` if the connection ends."""
        if self._transport is None or not self.open:
            raise Away("HAProxy closed the connection")
        self._asked, self._answers = commands, []
        self._answered = asyncio.get_running_loop().create_future()
        # A payload ends with an empty line, and a command with the end of its line.
        self._transport.write("".join([f"{command}\n" for command in commands]).encode("latin-1"))
        await self._answered
        return self._answers

    def close(self) -> None:
        """End it without a word to ``on_end``."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.find(PROMPT, max(0, len(self._received) - len(data) - len(PROMPT) + 1)) < 0:
            return  # a long answer goes on
        *texts, rest = self._received.split(PROMPT)
        self._received = bytearray(rest)
        place = len(self._answers)
        if self._answered is None or self._answered.done() or place + len(texts) > len(self._asked):
            self.close()  # it said more than it was asked
            return
        self._answers += [
            _answer(command, text.decode("latin-1")) for command, text in zip(self._asked[place:], texts, strict=False)
        ]
        if len(self._answers) == len(self._asked):
            self._answered.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self.open = self.open, False
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(Away("HAProxy closed the connection"))
        if was_open:
            self._on_end()


def _answer(command: str, text: str) -> str:
    """An answer without the prompts for the lines of a payload."""
    return re.sub(r"^(?:\+ )+", "", text).strip("\n") if "\n" in command else text.strip("\n")
