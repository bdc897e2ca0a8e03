"""Large answers: shared, compressed, and not sent to those who have them already."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from anycastlb.serving.api.http import answers
from anycastlb.serving.api.http.answers import Answers, Document, encoded, parts_of
from anycastlb.serving.views.status import status_view
from tests.support import scene
from tests.support.serving import Served, serving

VIEWS: list[Any] = [
    {},
    [],
    None,
    "ü",
    {"a": [], "b": {}, "c": [{}, {"d": [1, 2, {"e": None}]}], "f": {"g": [1.5, "x"], "h": True}, "": [[], [[]]]},
    [{"a": [1]}, []],
    status_view(scene.trouble(), scene.NOW, scene.SOURCE),
]


@pytest.mark.parametrize("view", VIEWS)
def test_written_item_by_item_it_is_the_same_json(view: Any) -> None:
    assert b"".join(encoded(view)) == json.dumps(view).encode()


async def raw(served: Served, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """An answer as it comes over the wire."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    given = {"Host": "localhost", "Connection": "close", **{n.replace("_", "-"): v for n, v in headers.items()}}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body


@pytest.mark.parametrize("path", ["/v1/status", "/v1/vips", "/v1/problems", "/v1/openapi.json"])
async def test_who_has_the_answer_is_told_so(path: str) -> None:
    async with serving(scene.trouble()) as served:
        status, headers, body = await raw(served, path)
        assert (status, bool(body)) == (200, True)
        status, again, body = await raw(served, path, If_None_Match=headers["ETag"])
        assert (status, body, again["ETag"]) == (304, b"", headers["ETag"])
        assert (await raw(served, path, If_None_Match='"other"'))[0] == 200


async def test_ages_alone_make_no_other_answer() -> None:
    async with serving(scene.trouble()) as served:
        _, headers, before = await raw(served, "/v1/vips")
        served.now += 5.0
        _, _, after = await raw(served, "/v1/vips")
        assert before != after
        assert (await raw(served, "/v1/vips", If_None_Match=headers["ETag"]))[0] == 304
        served.snapshot = scene.calm()
        status, changed, _ = await raw(served, "/v1/vips", If_None_Match=headers["ETag"])
        assert (status, changed["ETag"] != headers["ETag"]) == (200, True)


@pytest.mark.parametrize(("accept", "packed"), [("gzip, deflate", True), ("br;q=1, GZIP;q=0.5", True), ("", False)])
async def test_an_answer_is_compressed_for_those_who_take_it_so(
    monkeypatch: pytest.MonkeyPatch, accept: str, packed: bool
) -> None:
    monkeypatch.setattr(answers, "LARGE", 1)
    async with serving(scene.trouble()) as served:
        for path in ("/v1/status", "/v1/checks", "/metrics"):
            _, headers, body = await raw(served, path, Accept_Encoding=accept)
            assert headers["Vary"] == "Accept-Encoding"
            assert (headers.get("Content-Encoding") == "gzip") == packed
            text = gzip.decompress(body) if packed else body
            assert b"192.0.2.10" in text
        _, headers, _ = await raw(served, "/v1/status", Accept_Encoding="gzip;q=0")
        assert "Content-Encoding" not in headers


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_an_answer_of_unknown_length_ends_where_the_connection_does_for_old_readers(connection: str) -> None:
    async with serving(scene.trouble()) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(f"GET /metrics HTTP/1.0\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode())
        async with asyncio.timeout(60):  # an idle connection lives longer
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.0 200 ") and b"chunked" not in head.lower()
        *lines, end = body.split(b"\n")
        assert lines[-1].startswith(b"process_") and not end, "it is whole"
        assert all(line.startswith((b"# ", b"anycastlb_", b"process_")) for line in lines), "it is nothing but lines"


async def test_those_who_ask_meanwhile_share_one_answer() -> None:
    shared, made, snapshot = Answers(), [], scene.calm()

    def make() -> Document:
        made.append(1)
        return Document((b"{}",), str(len(made)))

    async def ask(now: float, parts: tuple[object, ...]) -> str:
        return (await shared.get("status", parts, now, make)).tag

    parts = parts_of(snapshot)
    assert set(await asyncio.gather(*(ask(0.0, parts) for _ in range(50)))) == {"1"}
    assert await ask(0.9, parts_of(replace(snapshot))) == "1", "the same picture, put together again"
    assert await ask(1.1, parts) == "2", "its ages are old"
    assert await ask(1.2, parts_of(replace(snapshot, cycle=10**9))) == "3", "something has changed"
    assert await ask(0.5, parts_of(replace(snapshot, cycle=10**9))) == "4", "the clock was set back"


async def test_an_answer_that_fails_fails_alone() -> None:
    shared, turns = Answers(), iter([True, False])

    def make() -> Document:
        if next(turns):
            raise RuntimeError("a fault of ours")
        return Document((b"{}",), "2")

    asked = (shared.get("status", (), 0.0, make) for _ in range(2))
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, Document]
