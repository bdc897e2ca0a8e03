"""A real API on a loopback port, over a snapshot the test holds in its hand, and the commands as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from click.testing import CliRunner

from anycastlb.adapters.checks import TYPES, parameters
from anycastlb.adapters.sources.memory import MemorySource
from anycastlb.adapters.system.journal import Journal
from anycastlb.cli import main
from anycastlb.core.model import Snapshot
from anycastlb.serving.api.http.context import Context
from anycastlb.serving.api.server import Api
from anycastlb.serving.history import History
from anycastlb.serving.metrics import Meters, Metrics, Sources
from anycastlb.settings import Settings, parse
from tests.support import scene
from tests.support.waiting import PATIENCE, eventually


@dataclass
class Served:
    """What the API reads: the test may change any of it while the API runs."""

    snapshot: Snapshot
    journal: Journal = field(default_factory=Journal)
    meters: Meters = field(default_factory=Meters)
    held: bool = False
    now: float = scene.NOW
    alive_at: float = scene.NOW
    load: tuple[int, int, int] = (0, 0, 0)
    statistics: Any = None
    settings: Settings = field(default_factory=lambda: parse('[node]\nvip_ranges = ["192.0.2.0/24", "2001:db8::/32"]'))
    store: MemorySource = field(default_factory=MemorySource)
    history: History = field(default_factory=History)
    ask_haproxy: Any = None
    http: Any = None
    ends: Any = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def confirm(self) -> bool:
        held, self.held = self.held, False
        return held

    @property
    def context(self) -> Context:
        sources = Sources(self.statistics, self.http, self.ends)
        metrics = Metrics(self, self.meters, self.journal, sources, clock=lambda: self.now)
        return Context(
            snapshot=lambda: self.snapshot,
            journal=self.journal,
            confirm=self.confirm,
            scrape=metrics.scrape,
            settings=self.settings,
            store=self.store,
            check_types=parameters(TYPES),
            alive_at=lambda: self.alive_at,
            source=scene.SOURCE,
            clock=lambda: self.now,
            statistics=self.statistics,
            history=self.history,
            ask_haproxy=self.ask_haproxy,
            certificate_ends=self.ends,
        )

    def api(self, listen: tuple[str, int] = ("127.0.0.1", 0), retry: float = 0.05, **given: Any) -> Api:
        return Api(self.context, (listen,), retry=retry, outer=(self.meters.requests.middleware,), **given)


@asynccontextmanager
async def serving(snapshot: Snapshot, **given: Any) -> AsyncIterator[Served]:
    served = Served(snapshot, **given)
    api = served.api()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(api.run())
        await eventually(lambda: api.address is not None)
        assert api.address is not None
        served.port = api.address[1]
        try:
            yield served
        finally:
            running.cancel()


@contextmanager
def served_beside(served: Served) -> Iterator[str]:
    """The URL of an API that runs in a thread of its own."""
    stop, api = threading.Event(), served.api()

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(api.run())
            await eventually(lambda: api.address is not None)
            assert api.address is not None
            served.port = api.address[1]
            await asyncio.to_thread(stop.wait)
            running.cancel()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        while not served.port:
            assert thread.is_alive()
            stop.wait(0.01)
        yield served.url
    finally:
        stop.set()
        thread.join()


async def inside(*words: str, stdin: str = "") -> tuple[int, str, str]:
    """``anycastlb WORDS`` in this process, which takes less time: exit code, standard output, standard error."""

    def run() -> Any:
        return CliRunner().invoke(main, list(words), input=stdin, prog_name="anycastlb", catch_exceptions=False)

    result = await asyncio.to_thread(run)
    return result.exit_code, result.stdout, result.stderr


async def command(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run ``anycastlb WORDS`` as a process of its own: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "anycastlb",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "80", **environment},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def ask(
    served: Served, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    def talk() -> tuple[int, Any, dict[str, str]]:
        request = urllib.request.Request(served.url + path, method=method, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, json.loads(response.read() or b"null"), dict(response.headers)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.loads(exc.read() or b"null"), dict(exc.headers)

    return await asyncio.to_thread(talk)


JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    status: int
    view: Any
    tag: str | None

    @property
    def error(self) -> dict[str, str]:
        assert set(self.view["error"]) == {"what", "where", "expected", "mend"}
        assert all(self.view["error"].values()), self.view
        error: dict[str, str] = self.view["error"]
        return error


async def go(served: Served, method: str, path: str, document: Any = None, **headers: str) -> Answer:
    data = None if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    status, view, got = await ask(served, path, method, data, **({**JSON, **sent} if data is not None else sent))
    return Answer(status, view, got.get("ETag"))
