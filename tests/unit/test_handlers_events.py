"""``handlers.events``: the journal as server-sent events; ``handlers.page``: the files of the page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from anycastlb.core.events import Event
from anycastlb.serving.api.handlers import events
from tests.support import scene
from tests.support.serving import Served, serving
from tests.support.waiting import PATIENCE, eventually

ACCEPT = {"Accept": "text/event-stream"}


@asynccontextmanager
async def opened(served: Served, query: str = "", **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{served.url}/v1/events{query}", headers={**ACCEPT, **headers}) as response,
    ):
        yield response


async def messages(response: aiohttp.ClientResponse, number: int) -> list[tuple[str, Any]]:
    """The next so many (event name, data); comments and retry are left out."""
    messages: list[tuple[str, Any]] = []
    name = "message"
    async with asyncio.timeout(PATIENCE):
        while len(messages) < number:
            line = (await response.content.readline()).decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                messages.append((name, json.loads(line[6:])))
            elif not line:
                name = "message"
    return messages


def tell(served: Served, *subjects: str) -> None:
    for subject in subjects:
        served.journal.emit(Event("test", subject))


async def test_what_was_and_what_comes() -> None:
    async with serving(scene.calm()) as served:
        tell(served, "a")
        async with opened(served) as response:
            assert response.headers["Content-Type"].startswith("text/event-stream")
            first = await messages(response, 3)
            assert [data.get("subject", name) for name, data in first][1:] == ["a", "status"]
            tell(served, "b")
            ((name, data),) = await messages(response, 1)
            assert (name, data["subject"], data["id"]) == ("message", "b", 3)


@pytest.mark.parametrize(("query", "headers"), [("?after=2", {}), ("?after=0", {"Last-Event-ID": "2"})])
async def test_it_resumes_where_it_broke_off(query: str, headers: dict[str, str]) -> None:
    async with serving(scene.calm()) as served:
        tell(served, "a", "b", "c")  # after the first: the API listens
        async with opened(served, query, **headers) as response:
            told = [data["subject"] for name, data in await messages(response, 3) if name == "message"]
    assert told == ["b", "c"]


def test_those_at_one_place_are_sent_one_text() -> None:
    served = Served(scene.calm())
    journal, streams = served.journal, events.Streams(served.context)
    for subject in ("a", "b"):
        journal.emit(Event("test", subject))
    text, after = streams.entries(journal, 0)
    assert streams.entries(journal, 0)[0] is text
    assert (after, text.count(b"data: ")) == (2, 2)
    assert streams.entries(journal, 1)[0].count(b"data: ") == 1
    journal.emit(Event("test", "c"))
    assert streams.entries(journal, 0)[0].count(b"data: ") == 3
    for place in range(2 * events.PLACES):
        streams.entries(journal, -place)
    assert len(streams.texts) <= events.PLACES


async def test_every_reader_finds_everything_a_slow_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "AT_ONCE", 2)
    async with serving(scene.calm()) as served, AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(opened(served, "?after=1")) for _ in range(5)]
        async with asyncio.TaskGroup() as tasks:
            found = [tasks.create_task(messages(reader, 51)) for reader in readers]
            for number in range(50):
                tell(served, str(number))
                if number % 3:
                    await asyncio.sleep(0)
    for task in found:
        assert [data["subject"] for name, data in task.result() if name == "message"] == [str(n) for n in range(50)]


async def test_nobody_is_woken_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TICK", 0.001)
    streams = events.Streams(Served(scene.calm()).context)
    reader = streams.join(cast(web.Request, SimpleNamespace(transport=SimpleNamespace(is_closing=lambda: False))))
    await reader.news.wait()
    reader.news.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.news.wait()
    streams.leave(reader)


async def test_a_stream_whose_client_has_gone_ends_though_nothing_happens() -> None:
    async with serving(scene.calm()) as served:
        async with opened(served) as response:
            await messages(response, 1)
        await eventually(lambda: served.meters.requests.pending == 0)


async def test_news_of_a_peer_that_changes_no_decision_are_a_new_status() -> None:
    async with serving(scene.calm()) as served, opened(served, "?after=1") as response:
        assert await messages(response, 1) == [("status", {"cycle": 42})]
        inputs = replace(served.snapshot.inputs, cluster=replace(served.snapshot.inputs.cluster, error="away"))
        served.snapshot = replace(served.snapshot, inputs=inputs)
        assert await messages(response, 1) == [("status", {"cycle": 42})]


async def test_an_id_of_an_earlier_life_begins_anew() -> None:
    async with serving(scene.calm()) as served:
        tell(served, "a")
        async with opened(served, "?after=99999") as response:
            assert "a" in [data.get("subject") for _, data in await messages(response, 2)]


async def test_what_is_no_longer_kept_is_a_gap() -> None:
    async with serving(scene.calm()) as served:
        tell(served, *(str(number) for number in range(1500)))
        async with opened(served) as response:
            ((name, gap), (_, first)) = await messages(response, 2)
    assert (name, gap) == ("gap", {"after": 0, "next": first["id"]})


async def test_a_new_cycle_is_told() -> None:
    async with serving(scene.calm()) as served, opened(served, "?after=1") as response:
        assert await messages(response, 1) == [("status", {"cycle": 42})]
        served.snapshot = replace(served.snapshot, cycle=43)
        assert await messages(response, 1) == [("status", {"cycle": 43})]


async def test_silence_is_broken_by_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET", 0.05)
    async with serving(scene.calm()) as served, opened(served) as response:
        async with asyncio.timeout(PATIENCE):
            while not (await response.content.readline()).startswith(b":"):
                pass


@pytest.mark.parametrize(("query", "headers"), [("?after=x", {}), ("", {"Last-Event-ID": "-1"})])
async def test_nonsense_is_refused(query: str, headers: dict[str, str]) -> None:
    async with serving(scene.calm()) as served, opened(served, query, **headers) as response:
        assert response.status == 400
        assert set((await response.json())["error"]) == {"what", "where", "expected", "mend"}


async def test_who_does_not_read_is_dropped_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "TIMEOUT", 0.2)
    async with serving(scene.calm()) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        await reader.readline()  # and no more
        for number in range(200):  # more than the sockets' buffers hold
            served.journal.emit(Event("test", str(number), reason="x" * 100_000))
        async with opened(served, "?after=200") as other:
            assert (await messages(other, 1))[0][1]
        await eventually(lambda: served.meters.requests.pending == 0)
        with suppress(ConnectionError):
            while await reader.read(1_000_000):  # a stream that still lived would never end
                pass
        writer.close()


async def test_the_server_does_not_wait_for_its_streams() -> None:
    async with asyncio.timeout(PATIENCE):
        async with serving(scene.calm()) as served, aiohttp.ClientSession() as session:
            response = await session.get(f"{served.url}/v1/events", headers=ACCEPT)
            await messages(response, 1)


# ---------------------------------------------------------------- the page's files


async def test_the_page_and_its_files() -> None:
    async with serving(scene.calm()) as served, aiohttp.ClientSession() as session:
        for path, kind in (
            ("/", "text/html"),
            ("/web/app.js", "text/javascript"),
            ("/web/style.css", "text/css"),
            ("/web/icon.svg", "image/svg+xml"),
        ):
            async with session.get(served.url + path) as response:
                assert (response.status, response.content_type) == (200, kind)
                policy = response.headers["Content-Security-Policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
                assert "unsafe" not in policy
                tag = response.headers["ETag"]
            async with session.get(served.url + path, headers={"If-None-Match": tag}) as response:
                assert (response.status, await response.read()) == (304, b"")


@pytest.mark.parametrize("path", ["/web/", "/web/nothing.js", "/web/../daemon.py", "/web/%2e%2e/daemon.py", "/web"])
async def test_no_other_path_leads_to_a_file(path: str) -> None:
    async with serving(scene.calm()) as served, aiohttp.ClientSession() as session:
        response = await session.get(URL(served.url + path, encoded=True))
        assert response.status == 404


async def test_nothing_parses_markup_and_nothing_is_inline() -> None:
    """What the browser test would find only where a name is hostile, the source shows everywhere."""
    from importlib.resources import files

    sources = {item.name: item.read_text() for item in (files("anycastlb.serving") / "web").iterdir()}
    for name, text in sources.items():
        if name.endswith(".js"):
            for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
                assert way not in text, f"{name} uses {way}"
            assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), f"{name} names another host"
    assert " style=" not in sources["index.html"] and " on" + "click" not in sources["index.html"]
    assert "url(" not in sources["style.css"] and "@import" not in sources["style.css"]


async def test_a_list_is_still_a_list() -> None:
    async with serving(scene.calm()) as served, aiohttp.ClientSession() as session:
        response = await session.get(f"{served.url}/v1/events")
        assert [item["kind"] for item in (await response.json())["events"]] == ["api"]
