"""The API over real HTTP on a loopback port."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from anycastlb.core.events import Event
from anycastlb.core.model import AnycastlbError, Snapshot
from anycastlb.serving.api.http.listener import on_tcp
from anycastlb.serving.api.server import BODY_LIMIT
from tests.support import scene
from tests.support.serving import Served, ask, serving
from tests.support.waiting import eventually


async def raw(served: Served, data: bytes, patience: float = 10.0) -> bytes:
    """Whatever comes back for these bytes, until the server hangs up or ``patience`` seconds are over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    answer = b""
    try:
        writer.write(data)
        async with asyncio.timeout(patience):
            while piece := await reader.read(65536):
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


async def test_alive_until_the_reconciler_is_silent() -> None:
    async with serving(scene.calm()) as served:
        assert (await ask(served, "/healthz"))[0] == 200
        served.now += 31
        status, view, _ = await ask(served, "/healthz")
        assert (status, view["alive"], view["silent_seconds"]) == (503, False, 31)
        served.alive_at = served.now
        assert (await ask(served, "/healthz"))[0] == 200


async def test_ready_says_what_is_missing() -> None:
    async with serving(scene.calm()) as served:
        assert (await ask(served, "/readyz"))[:2] == (200, {"ready": True, "missing": []})
        served.snapshot = replace(scene.calm(), speaker=replace(scene.calm().speaker, connected=False))
        status, view, _ = await ask(served, "/readyz")
        assert status == 503
        assert "bridge is not connected" in view["missing"][0]
        served.snapshot = scene.calm()
        served.now += 31
        status, view, _ = await ask(served, "/readyz")
        assert (status, view["missing"]) == (503, ["the reconciler gave no sign of life for 31.0 s"])


async def test_status_follows_the_snapshot() -> None:
    async with serving(scene.trouble()) as served:
        status, view, headers = await ask(served, "/v1/status")
        assert status == 200
        assert view["catalog"]["source"] == scene.SOURCE
        assert [vip["vip"] for vip in view["vips"] if not vip["open"]] == ["192.0.2.11", "192.0.2.13"]
        assert headers["Cache-Control"] == "no-store"
        served.snapshot = scene.calm()
        assert [vip["vip"] for vip in (await ask(served, "/v1/status"))[1]["vips"]] == ["192.0.2.10"]


@pytest.mark.parametrize(
    "name", ["192.0.2.10", "2001:db8:ffff::10", "%5B2001:DB8:FFFF::10%5D", "web", "web/web2", "web%2Fweb2"]
)
async def test_why(name: str) -> None:
    async with serving(scene.trouble()) as served:
        status, view, _ = await ask(served, f"/v1/why/{name}")
    assert status == 200
    assert view["ok"] is ("2001" not in name), "the IPv6 session is down"
    assert view["chain"]


async def test_why_of_a_name_that_does_not_exist_names_what_is_near() -> None:
    async with serving(scene.trouble()) as served:
        status, view, _ = await ask(served, "/v1/why/wbe")
        assert status == 404
        assert view == {
            "error": {
                "what": "there is no 'wbe'",
                "where": "wbe",
                "expected": "a VIP, SERVICE or SERVICE/BACKEND of the catalog",
                "mend": "did you mean web?",
            }
        }
        assert "web/web3" in (await ask(served, "/v1/why/web3"))[1]["error"]["mend"]
        assert (await ask(served, "/v1/why/" + "x" * 5000))[0] == 404


async def test_plan_shows_what_is_left_to_do() -> None:
    async with serving(scene.trouble()) as served:
        changes = (await ask(served, "/v1/plan"))[1]["changes"]
    assert [(change["verb"], change["object"]) for change in changes] == [
        ("create", "service tcp 192.0.2.12:25"),
        ("create", "destination tcp 192.0.2.12:25 -> 10.3.0.1:25"),
        ("create", "route 192.0.2.12"),
        ("update", "destination tcp 192.0.2.10:80 -> 10.1.0.3:80"),
    ]
    assert changes[0]["refused"] == scene.REFUSED.text
    assert (changes[3]["before"]["weight"], changes[3]["after"]["weight"]) == (50, 0)
    assert changes[3]["why"] == "down: connection refused"


async def test_events_after_an_id() -> None:
    async with serving(scene.calm()) as served:
        served.journal.emit(Event("gate", "192.0.2.10", "1/2 backends up", "closed", "open"))
        view = (await ask(served, "/v1/events"))[1]
        assert [item["kind"] for item in view["events"]] == ["api", "gate"]
        assert (await ask(served, f"/v1/events?after={view['last']}"))[1]["events"] == []
        assert [item["id"] for item in (await ask(served, "/v1/events?after=1"))[1]["events"]] == [2]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "", "9" * 30, "%C2%B2"])
async def test_events_after_nonsense(after: str) -> None:
    async with serving(scene.calm()) as served:
        status, view, _ = await ask(served, f"/v1/events?after={after}")
    assert (status, view["error"]["where"], view["error"]["expected"]) == (400, "after", "a whole number")


async def test_confirm_lets_a_held_catalog_through_once() -> None:
    async with serving(scene.trouble(), held=True) as served:
        assert (await ask(served, "/v1/confirm", "POST", b""))[:2] == (200, {"confirmed": True})
        assert not served.held
        status, view, _ = await ask(served, "/v1/confirm", "POST", b"")
        assert (status, view["error"]["what"]) == (409, "no catalog is held")
        told = [record.event for record in served.journal.records() if record.event.kind == "confirm"]
        assert [(event.after, "127.0.0.1" in event.by) for event in told] == [("confirmed", True)]


async def test_a_page_of_another_site_cannot_confirm() -> None:
    async with serving(scene.trouble(), held=True) as served:
        status, view, _ = await ask(served, "/v1/confirm", "POST", b"", Origin="https://evil.example")
        assert (status, served.held) == (403, True)
        assert set(view["error"]) == {"what", "where", "expected", "mend"}
        assert (await ask(served, "/v1/confirm", "POST", b"", Origin=served.url))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/why/", 404),
        ("GET", "/v1/confirm", 405),
        ("DELETE", "/v1/status", 405),
        ("PUT", "/v1/confirm", 405),
        ("POST", "/metrics", 405),
    ],
)
async def test_every_refusal_has_one_shape(method: str, path: str, status: int) -> None:
    async with serving(scene.calm(), held=True) as served:
        found, view, headers = await ask(served, path, method)
        assert found == status
        assert set(view["error"]) == {"what", "where", "expected", "mend"}
        assert all(view["error"].values())
        assert ("Allow" in headers) == (status == 405)
        assert served.held


async def test_a_body_too_large_is_refused() -> None:
    async with serving(scene.trouble(), held=True) as served:
        status, view, _ = await ask(served, "/v1/confirm", "POST", b"x" * (BODY_LIMIT + 1))
        assert (status, served.held) == (413, True)
        assert str(BODY_LIMIT) in view["error"]["expected"]


async def test_a_fault_of_ours_is_told_and_survived() -> None:
    async with serving(scene.calm()) as served:
        broken = replace(scene.calm(), inputs=replace(scene.calm().inputs, health=None))  # type: ignore[arg-type]
        served.snapshot = broken
        status, view, _ = await ask(served, "/v1/status")
        assert (status, view["error"]["what"]) == (500, "internal error")
        assert served.journal.records()[-1].event.subject == "/v1/status"
        served.snapshot = scene.calm()
        assert (await ask(served, "/v1/status"))[0] == 200


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        b"\x00" * 4096,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"POST /v1/confirm HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/confirm HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/why/\xff\xfe%00%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"",
    ],
)
async def test_noise_leaves_the_api_healthy(noise: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(scene.trouble(), held=True) as served:
        answer = await raw(served, noise, patience=0.3)
        assert not answer.startswith(b"HTTP/1.1 2")
        assert not answer.startswith(b"HTTP/1.1 5")
        assert served.held
        assert (await ask(served, "/v1/status"))[0] == 200
    assert "Traceback" not in caplog.text


async def test_a_busy_port_is_an_event_and_tried_again() -> None:
    async with serving(scene.calm()) as first:
        second = Served(scene.calm())
        api = second.api(("127.0.0.1", first.port))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(api.run())
            await eventually(lambda: bool(second.journal.records()))
            await asyncio.sleep(0.2)  # several tries
            event = second.journal.records()[0].event
            assert (event.level, event.after, api.address) == ("error", "down", None)
            assert f"cannot listen on 127.0.0.1:{first.port}" in event.reason
            assert "[api] listen" in event.reason
            assert len(second.journal.records()) == 1, "told once, not at every try"
            running.cancel()


async def test_a_port_that_becomes_free_is_taken() -> None:
    second = Served(scene.calm())
    async with asyncio.TaskGroup() as tasks:
        async with serving(scene.calm()) as first:
            api = second.api(("127.0.0.1", first.port))
            running = tasks.create_task(api.run())
            await eventually(lambda: bool(second.journal.records()))
        await eventually(lambda: api.address is not None)
        assert api.address is not None
        second.port = api.address[1]
        assert (await ask(second, "/healthz"))[0] == 200
        assert [record.event.after for record in second.journal.records()] == ["down", "up"]
        running.cancel()


def test_an_address_that_is_not_here_is_a_clear_error() -> None:
    with pytest.raises(AnycastlbError, match=r"cannot listen on 192\.0\.2\.1:80: .*\[api\] listen in node\.toml"):
        on_tcp(("192.0.2.1", 80), 8)


async def test_many_readers_at_once() -> None:
    async with serving(scene.trouble()) as served:
        paths = ["/v1/status", "/metrics", "/v1/plan", "/healthz", "/v1/why/web"] * 10
        answers = await asyncio.gather(*(raw(served, f"GET {p} HTTP/1.0\r\n\r\n".encode()) for p in paths))
    assert all(answer.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")) for answer in answers)


async def test_before_the_first_cycle() -> None:
    async with serving(Snapshot()) as served:
        assert (await ask(served, "/healthz"))[0] == 200
        assert (await ask(served, "/readyz"))[0] == 503
        assert (await ask(served, "/v1/status"))[1]["vips"] == []
        assert (await ask(served, "/v1/plan"))[1]["changes"] == []
        assert (await ask(served, "/v1/why/web"))[0] == 404
