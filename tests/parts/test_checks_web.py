"""``tcp``, ``http`` and ``https`` against a real web server: nginx, as Debian ships it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from anycastlb.adapters.checks import TYPES
from anycastlb.core.model import Check
from tests.support.authority import DAY, Authority
from tests.support.checks import run
from tests.support.ports import free_port

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    root {folder}/www;
    default_type text/plain;
    server {{
        listen 127.0.0.1:{plain};
        listen [::1]:{plain};
        location = /health {{ return 200 "all is well\\n"; }}
        location = /down {{ return 503; }}
        location = /moved {{ return 302 /health; }}
        location = /secure {{ return 301 https://www.example.org/; }}
        location = /host {{ return 200 "you asked $http_host with $request_method\\n"; }}
        location = /chunked {{ ssi on; ssi_types *; chunked_transfer_encoding on; }}
        location = /posted {{ client_max_body_size 10; proxy_pass http://127.0.0.1:{plain}/host; }}
    }}
    server {{
        listen 127.0.0.1:{proxy};
        location / {{ proxy_pass http://$host:{plain}$request_uri; proxy_set_header Host $http_host; }}
    }}
    server {{
        listen 127.0.0.1:{tls} ssl default_server;
        server_name www.example.org;
        ssl_certificate {good};
        ssl_certificate_key {good};
        return 200 "secure $ssl_server_name\\n";
    }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        server_name soon.example.org;
        ssl_certificate {soon};
        ssl_certificate_key {soon};
        return 200 "soon\\n";
    }}
    server {{
        listen 127.0.0.1:{clients} ssl;
        ssl_certificate {good};
        ssl_certificate_key {good};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        return 200 "hello $ssl_client_s_dn\\n";
    }}
}}
"""


@dataclass(frozen=True)
class Nginx:
    folder: Path
    authority: Authority
    plain: int
    proxy: int
    tls: int
    clients: int

    async def ask(self, kind: str, port: int, address: str = "127.0.0.1", **params: object) -> tuple[bool, str]:
        given = TYPES[kind].params.model_validate(params)
        result = await run(Check(kind, ip_address(address), port, given, 1.0, 5.0, 1, 1))
        return result.ok, result.detail

    async def secure(self, port: int, host: str, **params: object) -> tuple[bool, str]:
        return await self.ask("https", port, host=host, **{"ca_file": str(self.authority.file), **params})


@pytest.fixture(scope="module")
def nginx(require: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    program = require("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    authority = Authority(folder)
    found = Nginx(folder, authority, *(free_port() for _ in range(4)))
    (folder / "www").mkdir()
    (folder / "www" / "chunked").write_text('begin <!--#echo var="server_protocol" --> ' + "x" * 5000 + " end")
    config = folder / "nginx.conf"
    names = {
        "good": authority.issue("www.example.org"),
        "soon": authority.issue("soon.example.org", life=5 * DAY + timedelta(hours=1)),
    }
    ports = {"plain": found.plain, "proxy": found.proxy, "tls": found.tls, "clients": found.clients}
    config.write_text(CONFIG.format(folder=folder, ca=authority.file, **names, **ports))
    log = folder / "error.log"
    running = subprocess.Popen([program, "-p", folder, "-e", log, "-c", config], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "nginx.pid").exists() or not (folder / "nginx.pid").read_text():
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield found
    finally:
        running.terminate()
        running.communicate(timeout=300)


async def test_tcp(nginx: Nginx) -> None:
    assert await nginx.ask("tcp", nginx.plain) == (True, "connected")
    asked = {"send": r"GET /health HTTP/1.0\r\n\r\n", "expect": r"re:^HTTP/1\.1 200 OK\r$"}
    assert await nginx.ask("tcp", nginx.plain, **asked) == (True, "connected, answer matches")
    ok, detail = await nginx.ask("tcp", nginx.plain, **{**asked, "expect": "220 "})
    assert not ok and detail.startswith("the answer began b'HTTP/1.1 200 OK")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_http(nginx: Nginx, address: str) -> None:
    async def ask(**params: object) -> tuple[bool, str]:
        return await nginx.ask("http", nginx.plain, address, **params)

    assert await ask(path="/health") == (True, "HTTP 200")
    assert await ask(path="/health", method="HEAD") == (True, "HTTP 200")
    assert await ask(path="/health", body="re:^all is well$") == (True, "HTTP 200, body matches")
    assert await ask(path="/down") == (False, "HTTP 503, expected 200")
    assert await ask(path="/down", expect=[200, "500-599"]) == (True, "HTTP 503")
    assert await ask(path="/none") == (False, "HTTP 404, expected 200")
    assert await ask(path="/health", method="PUT", send="x") == (True, "HTTP 200")
    assert await ask(path="/host", host="www.example.org", body="asked www.example.org with") == (
        True,
        "HTTP 200, body matches",
    )
    assert await ask(path="/chunked", body="re:begin HTTP/1.1 x+ end") == (True, "HTTP 200, body matches")
    assert await ask(path="/posted", method="POST", send="1234", body="with POST") == (True, "HTTP 200, body matches")
    assert await ask(path="/posted", method="POST", send="12345678901") == (False, "HTTP 413, expected 200")


async def test_redirects(nginx: Nginx) -> None:
    assert await nginx.ask("http", nginx.plain, path="/moved") == (False, "HTTP 302, expected 200")
    assert await nginx.ask("http", nginx.plain, path="/moved", redirects=1) == (True, "HTTP 200")
    assert await nginx.ask("http", nginx.plain, path="/secure", redirects=1) == (
        False,
        "HTTP 301 to 'https://www.example.org/', which an http check does not follow",
    )


async def test_proxies(nginx: Nginx) -> None:
    through = {"proxy": f"http://127.0.0.1:{nginx.proxy}", "path": "/health", "body": "well"}
    assert await nginx.ask("http", nginx.plain, **through) == (True, "HTTP 200, body matches")
    url = f"http://127.0.0.1:{nginx.plain}/health"
    assert await nginx.ask("http", nginx.proxy, as_proxy=url, body="well") == (True, "HTTP 200, body matches")
    ok, detail = await nginx.ask("https", nginx.proxy, as_proxy="https://www.example.org/")
    assert not ok and detail.startswith("the proxy answered HTTP 4"), "nginx knows no CONNECT"


async def test_https(nginx: Nginx) -> None:
    assert await nginx.secure(nginx.tls, "www.example.org", body="secure www.example.org") == (
        True,
        "HTTP 200, body matches",
    )
    assert await nginx.secure(nginx.tls, "soon.example.org") == (True, "HTTP 200")
    ok, detail = await nginx.secure(nginx.tls, "soon.example.org", cert_expiry="14d")
    assert not ok and detail.startswith("certificate expires 2") and detail.endswith(", in 5 days (floor 14 days)")
    ok, detail = await nginx.secure(nginx.tls, "www.example.org", cert_expiry="14d")
    assert ok and detail.startswith("HTTP 200, certificate expires 2")
    ok, detail = await nginx.secure(nginx.tls, "www.example.org", sni="other.example.org")
    assert not ok and "certificate is not valid for 'other.example.org'" in detail
    ok, detail = await nginx.ask("https", nginx.tls, host="www.example.org")
    assert not ok and detail.startswith("certificate verify failed: ")
    assert await nginx.ask("https", nginx.tls, verify=False) == (True, "HTTP 200")
    assert await nginx.ask("https", nginx.plain) == (False, "TLS handshake failed: wrong version number")
    assert await nginx.ask("http", nginx.tls) == (False, "HTTP 400, expected 200")


async def test_client_certificates(nginx: Nginx) -> None:
    assert await nginx.secure(nginx.clients, "www.example.org") == (False, "HTTP 400, expected 200")
    own = str(nginx.authority.issue("prober"))
    assert await nginx.secure(nginx.clients, "www.example.org", cert_file=own, body="CN=prober") == (
        True,
        "HTTP 200, body matches",
    )


async def test_nginx_notices_nothing(nginx: Nginx) -> None:
    """Hundreds of probes leave nginx no complaint and no open connection, however they end."""
    log, pid = nginx.folder / "error.log", int((nginx.folder / "nginx.pid").read_text())
    before, files = log.stat().st_size, open_files(pid)
    for _ in range(100):
        assert (await nginx.ask("http", nginx.plain, path="/health"))[0]
        assert (await nginx.ask("http", nginx.plain, path="/chunked", body="begin"))[0]
        assert (await nginx.secure(nginx.tls, "www.example.org"))[0]
        assert (await nginx.ask("tcp", nginx.plain))[0]
    deadline = time.monotonic() + 60
    while open_files(pid) > files and time.monotonic() < deadline:
        time.sleep(0.05)
    assert open_files(pid) <= files
    complaints = [line for line in log.read_bytes()[before:].splitlines() if b"[info]" not in line]
    assert not complaints


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
