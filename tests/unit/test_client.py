"""``anycastlb.client``: every call as it goes over the wire, every error as it comes back."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

import anycastlb.client as library
from anycastlb.client import (
    Client,
    ClientError,
    Conflict,
    Denied,
    Document,
    Invalid,
    Missing,
    NoAnswer,
    Refused,
    Strange,
    Unavailable,
    Unreachable,
)
from anycastlb.client.stream import Reader
from anycastlb.core.events import Event
from anycastlb.core.model import Problem
from tests.support import scene
from tests.support.recording import Recorder, error, recording
from tests.support.serving import serving
from tests.support.waiting import PATIENCE, begun, eventually

WEB = {"vip": "192.0.2.10", "port": 80}


@pytest.fixture
async def node() -> AsyncIterator[Recorder]:
    async with recording() as recorder:
        yield recorder


CALLS: list[tuple[Callable[[Client], Awaitable[Any]], tuple[str, str, Any]]] = [
    (lambda lb: lb.put_service("web", WEB), ("PUT", "/v1/services/web", WEB)),
    (lambda lb: lb.patch_service("web", {"port": 81}), ("PATCH", "/v1/services/web", {"port": 81})),
    (lambda lb: lb.delete_service("web"), ("DELETE", "/v1/services/web", None)),
    (lambda lb: lb.put_services({"web": WEB}), ("PUT", "/v1/services", {"web": WEB})),
    (lambda lb: lb.delete_services(["web"]), ("DELETE", "/v1/services", ["web"])),
    (lambda lb: lb.put_backend("web", "w1", {"weight": 5}), ("PUT", "/v1/services/web/backends/w1", {"weight": 5})),
    (
        lambda lb: lb.patch_backend("web", "w1", {"override": None}),
        ("PATCH", "/v1/services/web/backends/w1", {"override": None}),
    ),
    (lambda lb: lb.delete_backend("web", "w1"), ("DELETE", "/v1/services/web/backends/w1", None)),
    (lambda lb: lb.drain_backend("web", "w1"), ("POST", "/v1/services/web/backends/w1/drain", None)),
    (lambda lb: lb.undrain_backend("web", "w1"), ("POST", "/v1/services/web/backends/w1/undrain", None)),
    (lambda lb: lb.put_defaults({"forward": "dr"}), ("PUT", "/v1/defaults", {"forward": "dr"})),
    (lambda lb: lb.patch_defaults({"forward": None}), ("PATCH", "/v1/defaults", {"forward": None})),
    (lambda lb: lb.delete_defaults(), ("DELETE", "/v1/defaults", None)),
    (lambda lb: lb.drain_node("lb1", "a new fan"), ("POST", "/v1/nodes/lb1/drain", {"reason": "a new fan"})),
    (lambda lb: lb.drain_node("lb1"), ("POST", "/v1/nodes/lb1/drain", None)),
    (lambda lb: lb.undrain_node("lb1"), ("POST", "/v1/nodes/lb1/undrain", None)),
    (lambda lb: lb.confirm(), ("POST", "/v1/confirm", None)),
    (
        lambda lb: lb.plan({"services/web": None}, "replace"),
        ("POST", "/v1/plan?mode=replace", {"catalog": {"services/web": None}}),
    ),
    (
        lambda lb: lb.import_({"services/web": WEB}),
        ("POST", "/v1/import?mode=merge", {"catalog": {"services/web": WEB}}),
    ),
    (
        lambda lb: lb.put_backend("we b", "[2001:db8::1]:80", {}),
        ("PUT", "/v1/services/we%20b/backends/[2001:db8::1]:80", {}),
    ),
    (lambda lb: lb.delete_service("a/../b?c#d%"), ("DELETE", "/v1/services/a%2F..%2Fb%3Fc%23d%25", None)),
]


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[f"{said[0]} {said[1]}" for _, said in CALLS])
async def test_every_write_is_one_request(
    node: Recorder, call: Callable[[Client], Awaitable[Any]], said: tuple[str, str, Any]
) -> None:
    async with Client(node.url) as lb:
        await call(lb)
    assert [request.said for request in node.asked] == [said]
    assert node.asked[0].headers.get("Content-Type") == (None if said[2] is None else "application/json")


@pytest.mark.parametrize(
    ("call", "path", "answer", "found"),
    [
        (lambda lb: lb.status(), "/v1/status", {"node": {}}, {"node": {}}),
        (lambda lb: lb.nodes(), "/v1/nodes", {"nodes": [{"name": "lb1"}]}, [{"name": "lb1"}]),
        (lambda lb: lb.node("lb1"), "/v1/nodes/lb1", {"name": "lb1"}, {"name": "lb1"}),
        (lambda lb: lb.vips(), "/v1/vips", {"vips": []}, []),
        (lambda lb: lb.verdicts(), "/v1/verdicts", {"verdicts": []}, []),
        (lambda lb: lb.checks("web", "w1"), "/v1/checks?service=web&backend=w1", {"checks": [1]}, [1]),
        (lambda lb: lb.problems(), "/v1/problems", {"problems": []}, []),
        (lambda lb: lb.stats(), "/v1/stats", {}, {}),
        (lambda lb: lb.whoami(), "/v1/whoami", {"rights": "read"}, {"rights": "read"}),
        (lambda lb: lb.why("web/w1"), "/v1/why/web%2Fw1", {"ok": True}, {"ok": True}),
        (lambda lb: lb.plan(), "/v1/plan", {"changes": []}, {"changes": []}),
        (lambda lb: lb.services(), "/v1/services", {"web": WEB}, {"web": WEB}),
        (lambda lb: lb.service("web"), "/v1/services/web", WEB, WEB),
        (lambda lb: lb.backend("web", "w1"), "/v1/services/web/backends/w1", {"weight": 1}, {"weight": 1}),
        (lambda lb: lb.defaults(), "/v1/defaults", {}, {}),
        (lambda lb: lb.export(), "/v1/export", {"catalog": {"defaults": {}}}, {"defaults": {}}),
    ],
)
async def test_every_reading_is_one_request(
    node: Recorder, call: Callable[[Client], Awaitable[Any]], path: str, answer: Any, found: Any
) -> None:
    node.answers[f"GET {path}"] = (200, answer)
    async with Client(node.url) as lb:
        assert await call(lb) == found
    assert [request.said for request in node.asked] == [("GET", path, None)]


async def test_a_document_remembers_its_etag_and_is_put_back_only_over_itself(node: Recorder) -> None:
    node.answers["GET /v1/services/web"] = (200, WEB)
    async with Client(node.url) as lb:
        web = await lb.service("web")
        assert isinstance(web, Document)
        web["port"] = 81
        node.etag = '"2"'
        written = await lb.put_service("web", web)
        assert (written["document"], written["document"].etag) == ({**WEB, "port": 81}, '"2"')
        await lb.put_service("web", dict(web))
        await lb.put_service("web", WEB, create=True)
        await lb.patch_service("web", {}, if_match='"2"')
        await lb.delete_backend("web", "w1", if_match='"3"')
    asked = [(r.headers.get("If-Match"), r.headers.get("If-None-Match")) for r in node.asked[1:]]
    assert asked == [('"1"', None), (None, None), (None, "*"), ('"2"', None), ('"3"', None)]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Invalid), (401, Denied), (403, Denied), (404, Missing), (405, Invalid), (409, Conflict), (412, Conflict),
     (413, Invalid), (415, Invalid), (422, Invalid), (429, Unavailable), (500, Unavailable), (503, Unavailable)],
)  # fmt: skip
async def test_every_status_is_an_error_of_its_kind(node: Recorder, status: int, kind: type[Refused]) -> None:
    problems = [{"key": "services/web", "path": "port", "expected": "expected a number"}]
    told = error("no", where="port", expected="a yes", mend="ask nicely", problems=problems)
    node.answers["PUT /v1/services/web"] = (status, told)
    async with Client(node.url) as lb:
        with pytest.raises(kind) as raised:
            await lb.put_service("web", WEB)
    found = raised.value
    assert type(found) is kind
    assert isinstance(found, ClientError)
    assert str(found) == "no (expected a yes): ask nicely"
    assert (found.status, found.what, found.where, found.expected, found.mend) == (
        status, "no", "port", "a yes", "ask nicely"
    )  # fmt: skip
    assert found.problems == (Problem("services/web", "port", "expected a number"),)


@pytest.mark.parametrize("body", [{}, [], {"error": "no"}, {"error": {"what": ""}}, "no", None])
async def test_an_error_that_is_not_ours_is_strange(node: Recorder, body: Any) -> None:
    node.answers["GET /v1/status"] = (502, body)
    async with Client(node.url) as lb:
        with pytest.raises(Strange, match="HTTP 502"):
            await lb.status()


@pytest.mark.parametrize(
    "call", [lambda lb: lb.status(), lambda lb: lb.vips(), lambda lb: lb.export(), lambda lb: lb.service("web")]
)
async def test_an_answer_of_another_shape_is_strange(node: Recorder, call: Callable[[Client], Awaitable[Any]]) -> None:
    for path in ("status", "vips", "export", "services/web"):
        node.answers[f"GET /v1/{path}"] = (200, [1, 2])
    async with Client(node.url) as lb:
        with pytest.raises(Strange):
            await call(lb)


async def test_nobody_there_and_nobody_answering(tmp_path: Path) -> None:
    async with recording() as gone:
        pass
    for url in (gone.url, f"unix://{tmp_path}/none.sock"):
        async with Client(url) as lb:
            with pytest.raises(Unreachable, match="is `anycastlb run` running"):
                await lb.status()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        lb = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.1)
        with pytest.raises(NoAnswer, match=r"within 0.1 s"):
            await lb.status()
        await lb.close()


@pytest.mark.parametrize("url", ["ftp://192.0.2.1", "http://", "nonsense", "http://[::1", "http://192.0.2.1:port"])
async def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ClientError, match="is no address"):
        Client(url)


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_a_name_that_would_be_another_path_is_never_asked_for(node: Recorder, name: str) -> None:
    async with Client(node.url) as lb:
        with pytest.raises(ClientError, match="names nothing"):
            await lb.delete_service(name)
        with pytest.raises(ClientError, match="names nothing"):
            await lb.delete_backend("web", name)
    assert node.asked == []


async def test_a_unix_socket_a_token_and_its_file(tmp_path: Path) -> None:
    path, secret = tmp_path / "api.sock", tmp_path / "token"
    secret.write_text("s3cret\n")
    async with recording({"GET /v1/whoami": (200, {"name": "x"})}, socket=path) as node:
        for given in ({"token": "s3cret"}, {"token_file": secret}, {}):
            async with Client(f"unix://{path}", **given) as lb:  # type: ignore[arg-type]
                assert lb.place == str(path)
                assert await lb.whoami() == {"name": "x"}
    assert [request.headers.get("Authorization") for request in node.asked] == ["Bearer s3cret"] * 2 + [None]


@pytest.mark.parametrize("text", [None, "", "two words"])
async def test_a_token_file_without_a_token(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "token"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClientError, match="token file"):
        Client("http://127.0.0.1", token_file=path)


@pytest.mark.parametrize("url", ["http://192.0.2.1:4672", "http://lb1.example.org", "http://[2001:db8::1]:4672"])
async def test_a_token_is_not_sent_in_clear(url: str) -> None:
    with pytest.raises(ClientError, match=r"a token is not sent to .* in clear: use https:"):
        Client(url, token="s3cret")
    for fine in (url.replace("http:", "https:"), "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"):
        await Client(fine, token="s3cret").close()
    await Client(url).close()


async def test_tls_with_a_ca_and_a_client_certificate(tmp_path: Path) -> None:
    ca, cert, key = certificates(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    server.load_cert_chain(cert, key)
    server.verify_mode = ssl.CERT_REQUIRED
    async with recording({"GET /v1/whoami": (200, {"name": "x"})}, tls=server) as node:
        async with Client(node.url, ca_file=str(ca), cert_file=str(cert), key_file=str(key)) as lb:
            assert await lb.whoami() == {"name": "x"}
        async with Client(node.url) as lb:
            with pytest.raises(Unreachable, match="no TLS"):
                await lb.whoami()
        async with Client(node.url, ca_file=str(ca)) as lb:
            with pytest.raises(Unreachable):
                await lb.whoami()
    with pytest.raises(ClientError, match=r"none\.pem"):
        Client(node.url, ca_file=str(tmp_path / "none.pem"))


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    import datetime
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "cert.pem", folder / "key.pem"
    pem.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, pem, secret


# ---------------------------------------------------------------- events


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("data: 1\n\n", ["1"]),
        ("id: 7\nevent: gate\ndata:1\n\n: still here\n\ndata: 2\n\n", ["1", "2"]),
        ("data: 1\ndata: 2\n\n", ["1\n2"]),
        ("retry: 5\n\n\n", []),
        ("data: unfinished", []),
    ],
)
def test_a_stream_of_events_is_read_line_by_line(text: str, found: list[str]) -> None:
    reader = Reader()
    assert [data for line in text.split("\n") if (data := reader.feed(line)) is not None] == found


async def test_events_once_and_following_a_real_node() -> None:
    async with serving(scene.calm()) as served, Client(served.url) as lb:
        served.journal.emit(Event("gate", "first"))
        assert [event["subject"] async for event in lb.events()][-1] == "first"
        heard = lb.events(after=1, follow=True)
        seen = [(await anext(heard))["subject"]]
        served.journal.emit(Event("gate", "second"))
        seen.append((await asyncio.wait_for(anext(heard), PATIENCE))["subject"])
        await heard.aclose()  # type: ignore[attr-defined]
    assert seen == ["first", "second"]


async def test_a_stream_is_resumed_where_it_broke_and_nothing_comes_twice() -> None:
    """A node whose stream breaks after each event, as when a proxy closes it; the stream begins with one known."""
    kept = [{"id": number, "subject": str(number)} for number in range(1, 4)]
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if "text/event-stream" not in request.headers["Accept"]:
            after = int(request.query["after"])
            found = [event for event in kept[:3] if event["id"] > after][:1]
            return web.json_response({"events": found, "last": len(kept)})
        asked.append(request.headers["Last-Event-ID"])
        last = int(asked[-1])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in kept[last - 1 : last + 1]:
            await response.write(f"id: {event['id']}\ndata: {json.dumps(event)}\n\n".encode())
        await response.write(b": that is all\n\ndata: no json\n\n")
        return response

    app = web.Application()
    app.router.add_get("/v1/events", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with Client(f"http://127.0.0.1:{runner.addresses[0][1]}") as lb:
            heard = lb.events(follow=True)
            seen = [await asyncio.wait_for(anext(heard), PATIENCE) for _ in range(3)]
            await heard.aclose()  # type: ignore[attr-defined]
    finally:
        await runner.cleanup()
    assert [event["id"] for event in seen] == [1, 2, 3]
    assert asked[0] == "1"


async def test_following_begins_only_with_a_node_that_is_there() -> None:
    async with recording() as gone:
        pass
    async with Client(gone.url) as lb:
        with pytest.raises(Unreachable):
            await anext(lb.events(follow=True))
        told: list[Exception] = []
        heard = lb.events(follow=True, lost=told.append)
        async with begun(anext(heard)):  # type: ignore[arg-type]
            await eventually(lambda: told)
    assert all(isinstance(one, Unreachable) for one in told)


async def test_what_may_not_be_read_ends_following(node: Recorder) -> None:
    node.answers["GET /v1/events"] = (403, error("not with these rights"))
    async with Client(node.url) as lb:
        with pytest.raises(Denied):
            await anext(lb.events(follow=True, lost=lambda exc: None))


# ---------------------------------------------------------------- the example


async def test_the_example_of_the_documentation_runs(node: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    code = textwrap.dedent((library.__doc__ or "").partition("::\n")[2].partition("\n``Client()``")[0])
    lines = [line for line in code.splitlines() if line.strip()]
    assert 8 <= len(lines) <= 14
    node.answers["GET /v1/services/web"] = (200, WEB)
    code = re.sub(r"http://127\.0\.0\.1:4672", node.url, code)
    code = code.replace("asyncio.run(main())", "")
    inside: dict[str, Any] = {}
    exec(compile(code, "example", "exec"), inside)
    await inside["main"]()
    assert [request.said[:2] for request in node.asked] == [
        ("PUT", "/v1/services/web"), ("PUT", "/v1/services/web/backends/web1"), ("GET", "/v1/services/web"),
        ("PUT", "/v1/services/web"),
    ]  # fmt: skip
    assert node.asked[-1].headers["If-Match"] == '"1"'
    node.answers["PUT /v1/services/web"] = (412, error("it has changed"))
    with pytest.raises(Conflict):
        await inside["main"]()  # the first write is not guarded by the example
    assert capsys.readouterr().out == ""
