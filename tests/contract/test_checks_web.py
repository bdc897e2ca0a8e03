"""What ``tcp``, ``http`` and ``https`` ask and what they make of the answer, against servers on the loopback."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from pydantic import ValidationError

from anycastlb.adapters.checks import TYPES, Down
from anycastlb.adapters.checks.probe import web
from anycastlb.adapters.checks.probe.tls import Contexts, UnusableTls, expiry
from anycastlb.core.model import Check, ProbePath
from tests.support.authority import DAY, Authority, server_context
from tests.support.checks import run
from tests.support.servers import Handler, answering, saying, serving

pytestmark = pytest.mark.usefixtures("engine")
OK = answering("HTTP/1.1 200 OK", "Content-Length: 2", body=b"ok")
CHUNKED = r"no HTTP answer: b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked'"


def check(kind: str, port: int, address: str = "127.0.0.1", **params: object) -> Check:
    return Check(kind, ip_address(address), port, TYPES[kind].params.model_validate(params), 1.0, 3.0, 1, 1)


async def found(
    handler: Handler, kind: str = "http", tls: ssl.SSLContext | None = None, **params: object
) -> tuple[bool, str]:
    async with serving(handler, tls=tls) as port:
        result = await run(check(kind, port, **params))
    return result.ok, result.detail


class Recorder:
    """Answers one after the other, and keeps the requests."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.seen: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
        self.seen.append(head + (await reader.readexactly(int(length[0].split(b":")[1])) if length else b""))
        writer.write(self.answers.pop(0).replace("\n", "\r\n").encode())
        await writer.drain()
        if not self.answers and self.seen[-1].startswith(b"CONNECT"):
            await reader.read()


# ---------------------------------------------------------------- http


@pytest.mark.parametrize(
    ("status", "expect", "up", "detail"),
    [
        ("204 No Content", "200-299", True, "HTTP 204"),
        ("503 Service Unavailable", 200, False, "HTTP 503, expected 200"),
        ("503 Service Unavailable", [200, "500-503"], True, "HTTP 503"),
        ("504 Gateway Timeout", ["200", "500-503"], False, "HTTP 504, expected 200, 500-503"),
        ("301 Moved Permanently", 200, False, "HTTP 301, expected 200"),
        ("301 Moved Permanently", "301", True, "HTTP 301"),
    ],
)
async def test_status_codes(status: str, expect: object, up: bool, detail: str) -> None:
    handler = answering(f"HTTP/1.1 {status}", "Location: http://127.0.0.1:1/", "Content-Length: 0")
    assert await found(handler, expect=expect) == (up, detail)


async def test_the_request_is_what_was_asked_for() -> None:
    server = Recorder("HTTP/1.1 200 OK\nContent-Length: 1000000\n\npart of a body")
    params = {
        "method": "POST",
        "path": "/up?a=b%20c",
        "host": "www.example.org:81",
        "headers": {"X-Probe": "1", "user-agent": "me"},
        "send": r"a\x00b",
    }
    assert await found(server, **params) == (True, "HTTP 200")
    head, _, body = server.seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /up?a=b%20c HTTP/1.1"
    assert sorted(lines[1:]) == [
        "Accept: */*", "Connection: close", "Content-Length: 3", "Host: www.example.org:81", "X-Probe: 1",
        "user-agent: me",
    ]  # fmt: skip
    assert body == b"a\x00b"


@pytest.mark.parametrize(
    ("answer", "pattern", "up", "detail"),
    [
        ("200 OK\nContent-Length: 5\n\nhello", "ell", True, "HTTP 200, body matches"),
        ("200 OK\nContent-Length: 5\n\nhello", "re:^hello$", True, "HTTP 200, body matches"),
        ("200 OK\n\nhello", "re:o$", True, "HTTP 200, body matches"),
        ("200 OK\nContent-Length: 5\n\nhello", "bye", False, 'HTTP 200, but the body (5 bytes) does not contain "bye"'),
        ("200 OK\nContent-Length: 4\n\nhello", "o", False, 'HTTP 200, but the body (4 bytes) does not contain "o"'),
        ("200 OK\nContent-Length: 9\n\nhello", "bye", False, 'HTTP 200, but the body (5 bytes) does not contain "bye"'),
        (
            "200 OK\nTransfer-Encoding: chunked\n\n3\nhel\n2;x=y\nlo\n0\n\n",
            "re:^hello$", True, "HTTP 200, body matches",
        ),
        (
            "200 OK\nTransfer-Encoding: chunked\n\nzz\nhel",
            "h", False, CHUNKED + r" (illegal chunk header: bytearray(b'zz\r\n'))",
        ),
        (
            "200 OK\nTransfer-Encoding: chunked\n\n3\nhello\n",
            "x", False, CHUNKED + r" (malformed chunk footer: bytearray(b'lo') (expected b'\r\n'))",
        ),
        ("200 OK\nTransfer-Encoding: chunked\n\n3", "x", False, "no HTTP answer: the body broke off"),
        (
            "200 OK\nContent-Length: -1\n\nhello",
            "x", False, r"no HTTP answer: b'HTTP/1.1 200 OK\r\nContent-Length: -1' (bad Content-Length)",
        ),
        (
            "204 No Content\nContent-Length: 5\n\nhello",
            "x", False, 'HTTP 204, but the body (0 bytes) does not contain "x"',
        ),
        (
            "100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\nHTTP/1.1 200 OK\n\nyes",
            "yes", True, "HTTP 200, body matches",
        ),
    ],
)  # fmt: skip
async def test_bodies(answer: str, pattern: str, up: bool, detail: str) -> None:
    assert await found(Recorder(f"HTTP/1.1 {answer}"), expect="200-299", body=pattern) == (up, detail)


async def test_a_body_is_read_only_so_far() -> None:
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    ok, detail = await found(endless, body="y")
    assert (ok, detail) == (False, 'HTTP 200, but the body, in its first 64 KiB, does not contain "y"')
    assert sent < 32 * 1024 * 1024, "what fits into buffers, no more"
    endless_head = answering("HTTP/1.1 200 OK", *("X-Header: " + "y" * 1000 for _ in range(100)))
    assert await found(endless_head) == (False, "no HTTP answer: more than 64 KiB of header")


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ("SSH-2.0-OpenSSH_9.2\n", r"no HTTP answer: b'SSH-2.0-OpenSSH_9.2\r\n'"),
        ("HTTP/1.1 999 What\n\n", r"no HTTP answer: b'HTTP/1.1 999 What'"),
        ("HTTP/2 200\n\n", r"no HTTP answer: b'HTTP/2 200'"),
        (
            "HTTP/1.1 200 OK\nX Y: z\n\n",
            r"no HTTP answer: b'HTTP/1.1 200 OK\r\nX Y: z' "
            "(illegal header line: bytearray(b'X Y: z'))",
        ),
        ("", "connection closed without an answer"),
        ("HTTP/1.1 200 OK\nX-Half", r"connection closed inside the header: b'HTTP/1.1 200 OK\r\nX-Half'"),
    ],
)
async def test_what_is_not_http(answer: str, detail: str) -> None:
    assert await found(Recorder(answer)) == (False, detail)


async def test_interim_answers_are_skipped_within_the_bound_of_the_header() -> None:
    hints = "HTTP/1.1 103 Early Hints\nLink: </a.css>\n\n"
    assert await found(Recorder(hints * 3 + "HTTP/1.1 200 OK\n\nok"), body="ok") == (True, "HTTP 200, body matches")

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(hints.replace("\n", "\r\n").encode() * 20)
            await writer.drain()

    assert await found(endless) == (False, "no HTTP answer: more than 64 KiB of header")


async def test_switching_protocols_is_an_answer_to_who_asked_for_it() -> None:
    switching = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n\n"
    asked = {"headers": {"Upgrade": "websocket"}, "expect": 101}
    assert await found(Recorder(switching), **asked) == (True, "HTTP 101")
    ok, detail = await found(Recorder(switching), expect=101)
    assert not ok and detail.startswith("no HTTP answer: b'HTTP/1.1 101 Switching Protocols")


async def test_an_answer_without_a_body_needs_no_end() -> None:
    head = "HTTP/1.1 200 OK\nContent-Length: 5\n\n"
    detail = 'HTTP 200, but the body (0 bytes) does not contain "x"'
    assert await found(Recorder(head), method="HEAD", body="x") == (False, detail)


async def test_header_values_are_sent_as_text_in_utf8() -> None:
    server = Recorder("HTTP/1.1 200 OK\n\n")
    assert await found(server, headers={"X-Name": " caf\u00e9 au lait ", "X-Empty": ""}) == (True, "HTTP 200")
    assert b"X-Name: caf\xc3\xa9 au lait\r\n" in server.seen[0] and b"X-Empty: \r\n" in server.seen[0]


REDIRECT = "HTTP/1.1 {} Moved\nLocation: {}\nContent-Length: 0\n\n"


async def test_redirects_stay_on_the_backend() -> None:
    server = Recorder(
        REDIRECT.format(302, "http://www.example.org:8080/login?x"),
        REDIRECT.format(307, "../up#top"),
        "HTTP/1.1 200 OK\n\n",
    )
    assert await found(server, redirects=2, method="POST", send="data") == (True, "HTTP 200")
    asked = [(head.split(b" HTTP")[0], b"Host: www.example.org:8080\r\n" in head) for head in server.seen]
    assert asked == [(b"POST /", False), (b"GET /login?x", True), (b"GET /up", True)]
    assert not server.seen[1].endswith(b"data")


@pytest.mark.parametrize(
    ("location", "detail"),
    [
        ("/again", "HTTP 301, another redirect after 1"),
        ("https://www.example.org/", "HTTP 301 to 'https://www.example.org/', which an http check does not follow"),
        ("http://[::1", "HTTP 301 with a Location that cannot be followed: 'http://[::1'"),
        ("http://user@host/", "HTTP 301 with a Location that cannot be followed: 'http://user@host/'"),
        ("/a b", "HTTP 301 with a Location that cannot be followed: '/a b'"),
        (
            f"http://{'a' * 2000}!/",
            f"HTTP 301 with a Location that cannot be followed: 'http://{'a' * 52}… (2011 characters)",
        ),
        ("", "HTTP 301 to '', which an http check does not follow"),
    ],
)
async def test_redirects_that_are_not_followed(location: str, detail: str) -> None:
    answer = REDIRECT.format(301, location)
    assert await found(Recorder(answer, answer), redirects=1) == (False, detail)


# ---------------------------------------------------------------- proxies


async def test_through_a_proxy() -> None:
    server = Recorder("HTTP/1.1 200 OK\n\n")
    async with serving(server) as port:
        given = check("http", 8080, "192.0.2.7", proxy=f"http://127.0.0.1:{port}", host="www.example.org", path="/x")
        assert (await run(given)).detail == "HTTP 200"
    assert server.seen[0].startswith(b"GET http://192.0.2.7:8080/x HTTP/1.1\r\nHost: www.example.org\r\n")


async def test_the_backend_as_a_proxy() -> None:
    server = Recorder("HTTP/1.1 200 OK\n\n")
    assert await found(server, as_proxy="http://example.org:81/a?b") == (True, "HTTP 200")
    assert server.seen[0].startswith(b"GET http://example.org:81/a?b HTTP/1.1\r\nHost: example.org:81\r\n")


def tunnelling(port: int, seen: list[bytes]) -> Handler:
    """A proxy that knows CONNECT, and leads everything to ``port``."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        onward = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(carry(reader, onward[1]), carry(onward[0], writer), return_exceptions=True)
        finally:
            onward[1].transport.abort()

    return connect


async def test_https_through_proxies(authority: Authority) -> None:
    seen: list[bytes] = []
    tls = server_context(authority.issue("example.org"))
    secure = {"ca_file": str(authority.file)}
    async with serving(OK, tls=tls) as port, serving(tunnelling(port, seen)) as proxy:
        by = {**secure, "proxy": f"http://127.0.0.1:{proxy}", "host": "example.org"}
        assert (await run(check("https", 8443, "192.0.2.7", **by))).detail == "HTTP 200"
        given = check("https", proxy, **secure, as_proxy="https://example.org/x")
        assert (await run(given)).detail == "HTTP 200"
    assert [head.split(b"\r\n")[0] for head in seen] == [
        b"CONNECT 192.0.2.7:8443 HTTP/1.1",
        b"CONNECT example.org:443 HTTP/1.1",
    ]
    refusing = Recorder("HTTP/1.1 403 Forbidden\n\n")
    ok, detail = await found(refusing, "https", **secure, as_proxy="https://example.org/x")
    assert (ok, detail) == (False, "the proxy answered HTTP 403 for example.org:443")


async def test_a_proxy_and_ipvs_exclude_each_other() -> None:
    given = check("http", 80, "192.0.2.7", proxy="http://127.0.0.1:9")
    with pytest.raises(Down, match="cannot go through IPVS"):
        await web.probe_web(given, ProbePath(1, ip_address("127.0.0.1")))


# ---------------------------------------------------------------- https


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


async def secured(
    authority: Authority,
    names: tuple[str, ...],
    life: timedelta = 365 * DAY,
    self_signed: bool = False,
    **params: object,
) -> tuple[bool, str]:
    tls = server_context(authority.issue(*names, life=life, self_signed=self_signed))
    trust = {} if params.get("verify") is False else {"ca_file": str(authority.file)}
    return await found(OK, "https", tls, **{**trust, **params})


async def test_a_good_certificate(authority: Authority) -> None:
    assert await secured(authority, ("www.example.org",), host="www.example.org:8443") == (True, "HTTP 200")
    assert await secured(authority, ("www.example.org",), host="other", sni="www.example.org") == (True, "HTTP 200")
    assert await secured(authority, ("*.example.org",), host="www.example.org") == (True, "HTTP 200")
    assert await secured(authority, ("127.0.0.1",)) == (True, "HTTP 200"), "the address itself"


async def test_bad_certificates(authority: Authority) -> None:
    name = {"host": "www.example.org"}
    failed = "certificate verify failed: "
    expired = await secured(authority, ("www.example.org",), -2 * DAY, **name)
    assert expired == (False, failed + "certificate has expired")
    own = await secured(authority, ("www.example.org",), self_signed=True, **name)
    assert own[0] is False and own[1] in (failed + "self-signed certificate", failed + "self signed certificate")
    wrong = await secured(authority, ("other.example.org",), **name)
    assert wrong == (False, failed + "Hostname mismatch, certificate is not valid for 'www.example.org'")
    foreign = Authority(authority.folder, "Foreign CA")
    unknown = await secured(authority, ("www.example.org",), **name, ca_file=str(foreign.file))
    assert unknown[0] is False and unknown[1].startswith(failed)
    system = await found(OK, "https", server_context(authority.issue("www.example.org")), **name)
    assert system == (False, failed + "unable to get local issuer certificate"), "no CA file: the system's CAs"


async def test_verify_false_takes_any_certificate(authority: Authority) -> None:
    assert await secured(authority, ("other",), -2 * DAY, verify=False) == (True, "HTTP 200")
    assert await secured(authority, ("other",), self_signed=True, verify=False) == (True, "HTTP 200")


@pytest.mark.parametrize("verify", [True, False])
async def test_the_floor_of_expiry(authority: Authority, verify: bool) -> None:
    params = {"host": "www.example.org", "cert_expiry": "14d", "verify": verify}
    file = authority.issue("www.example.org", life=10 * DAY + timedelta(hours=1))
    date = f"{expiry(ssl.PEM_cert_to_DER_cert(_first(file))):%Y-%m-%d}"
    trust = {"ca_file": str(authority.file)} if verify else {}
    ok, detail = await found(OK, "https", server_context(file), **params, **trust)
    assert (ok, detail) == (False, f"certificate expires {date}, in 10 days (floor 14 days)")
    ok, detail = await secured(authority, ("www.example.org",), 15 * DAY, **params)
    assert ok and detail.startswith("HTTP 200, certificate expires 2")
    if not verify:
        ok, detail = await secured(authority, ("www.example.org",), -3 * DAY - timedelta(hours=1), **params)
        assert not ok and detail.startswith("certificate expired ") and detail.endswith(", 3 days ago (floor 14 days)")


def _first(file: Path) -> str:
    return file.read_text().partition("-----BEGIN PRIVATE")[0]


def test_dates_beyond_2050_and_noise(authority: Authority) -> None:
    far = ssl.PEM_cert_to_DER_cert(_first(authority.issue("far", life=20000 * DAY)))
    assert expiry(far).year > 2070
    for broken in (b"", b"\x30", far[:60], os.urandom(200), b"\x30\x84\xff\xff\xff\xff", far[: len(far) // 3]):
        with pytest.raises((ValueError, StopIteration)):
            expiry(broken)


async def test_client_certificates(authority: Authority) -> None:
    tls = server_context(authority.issue("127.0.0.1"), clients=authority.file)
    trust = {"ca_file": str(authority.file)}
    assert not (await found(OK, "https", tls, **trust))[0]
    assert await found(OK, "https", tls, **trust, cert_file=str(authority.issue("client"))) == (True, "HTTP 200")


async def test_a_server_without_tls() -> None:
    assert await found(saying(b"220 hello\r\n"), "https") == (False, "TLS handshake failed: wrong version number")


async def test_old_tls_is_told(authority: Authority) -> None:
    tls = server_context(authority.issue("127.0.0.1"))
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.set_alpn_protocols(["h2"])
    assert (await found(OK, "https", tls, verify=False))[0], "no common protocol above TLS is no fault of TLS"


def test_contexts_are_made_once_and_again_when_a_file_changes(authority: Authority, tmp_path: Path) -> None:
    contexts = Contexts()
    file = tmp_path / "ca.pem"
    file.write_bytes(authority.file.read_bytes())
    first = contexts.get(True, str(file))
    assert contexts.get(True, str(file)) is first
    assert contexts.get(False) is contexts.get(False) is not first
    assert contexts.get(True) is contexts.get(True)
    file.write_bytes(Authority(tmp_path, "Second").file.read_bytes() + b"\n")
    assert contexts.get(True, str(file)) is not first


async def test_a_new_ca_is_believed_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(Authority(tmp_path, "Old CA").file.read_bytes())
    async with serving(OK, tls=server_context(authority.issue("127.0.0.1"))) as port:
        given = check("https", port, ca_file=str(file))
        assert (await run(given)).detail.startswith("certificate verify failed: ")
        file.write_bytes(authority.file.read_bytes())
        assert (await run(given)).detail == "HTTP 200"
        file.unlink()
        assert (await run(given)).detail == f"{file} cannot be read: No such file or directory"


def test_files_that_are_no_certificates(authority: Authority, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(os.urandom(1000))
    os.mkfifo(tmp_path / "fifo")
    for name in (str(noise), str(tmp_path), str(tmp_path / "fifo"), "/dev/zero", "/a\0b", str(tmp_path / "none")):
        with pytest.raises(UnusableTls, match=name.replace("\0", ".")):
            Contexts().get(True, name)
    with pytest.raises(UnusableTls, match="no certificate with its private key"):
        Contexts().get(True, "", str(authority.file))


# ---------------------------------------------------------------- tcp


async def test_tcp_says_and_hears_bytes() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(3))[::-1])
        await reader.read()

    assert await found(echo, "tcp", send=r"\x01\x02\xff", expect=r"\xff\x02\x01") == (True, "connected, answer matches")
    ok, detail = await found(saying(b"-ERR no\r\n" + b"x" * 100_000), "tcp", expect="+OK")
    assert not ok and detail.startswith(r"the answer began b'-ERR no\r\nxx")
    assert detail.endswith('and its first 64 KiB does not contain "+OK"')
    ok, detail = await found(answering("+NO"), "tcp", send="PING\r\n\r\n", expect="re:^.OK$")
    assert (ok, detail) == (False, r"the answer began b'+NO\r\n\r\n', and it does not match " + '"re:^.OK$"')


# ---------------------------------------------------------------- documents


@pytest.mark.parametrize(
    ("kind", "params", "expected"),
    [
        ("http", {"expect": 99}, "a status code such as 200"),
        ("http", {"expect": []}, "at least one status code"),
        ("http", {"expect": "300-200"}, "a status code such as 200"),
        ("http", {"path": "no-slash"}, "pattern"),
        ("http", {"path": "/a b"}, "pattern"),
        ("http", {"path": "/\r\nX: y"}, "pattern"),
        ("http", {"host": "a b"}, "a host name or an address"),
        ("http", {"host": "a\r\nX: y"}, "a host"),
        ("http", {"headers": {"X": "a\r\nY: b"}}, "printable text"),
        ("http", {"headers": {"Host": "x"}}, "headers without host"),
        ("http", {"headers": {"X-A": "1", "x-a": "2"}}, "each header once"),
        ("http", {"send": "x"}, "method POST or PUT with send"),
        ("http", {"body": "re:(a"}, "a regular expression"),
        ("http", {"redirects": 11}, "less than or equal to 10"),
        ("http", {"proxy": "http://proxy.example.org:3128"}, "a proxy by its address"),
        ("http", {"as_proxy": "https://example.org/"}, "a URL of http as as_proxy"),
        ("http", {"as_proxy": "http://example.org/", "path": "/x"}, "as_proxy without"),
        ("http", {"verify": False}, "Extra inputs"),
        ("https", {"sni": "a..b"}, "a host name or an address"),
        ("https", {"ca_file": "relative.pem"}, "pattern"),
        ("https", {"ca_file": "/ca.pem", "verify": False}, "either ca_file or verify"),
        ("https", {"key_file": "/key.pem"}, "cert_file with key_file"),
        ("https", {"cert_expiry": "two weeks"}, "a duration"),
        ("tcp", {"expect": ""}, "at least 1 character"),
        ("tcp", {"send": r"\q"}, r"an escape \\xNN"),
    ],
)
def test_what_is_wrong_is_told(kind: str, params: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        TYPES[kind].params.model_validate(params)


@pytest.mark.parametrize("kind", ["tcp", "http", "https"])
def test_every_field_is_described_and_has_a_default(kind: str) -> None:
    described = TYPES[kind].params.model_json_schema()["properties"]
    for name, field in TYPES[kind].params.model_fields.items():
        assert described[name]["description"], name
        assert not field.is_required(), name
    assert hash(check(kind, 1)) == hash(check(kind, 1)) and check(kind, 1) == check(kind, 1)
