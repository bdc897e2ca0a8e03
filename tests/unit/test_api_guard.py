"""Who may do what through the API, and what no peer can do to it: over real sockets, as real users, with real TLS."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anycastlb import settings
from anycastlb.client.transport import security
from anycastlb.core.model import SettingsError
from anycastlb.doctor.collect.startup import at_start
from anycastlb.doctor.diagnosis import preflight
from anycastlb.serving.api.http import connection, handshakes, limits, listener, local_users, tls, tokens
from anycastlb.serving.api.server import Api
from tests import support
from tests.lab.barrage import noise
from tests.support import scene
from tests.support.authority import Authority
from tests.support.serving import Served
from tests.support.waiting import eventually

NODE = '[node]\nname = "lb1"\nvip_ranges = ["192.0.2.0/24", "2001:db8::/32"]\n[api]\n'
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
WHOAMI = b"GET /v1/whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CONFIRM = b"POST /v1/confirm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Guarded:
    """A running API and what the test holds of it."""

    served: Served
    api: Api
    address: tuple[str, int]

    @property
    def place(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def events(self, kind: str) -> list[str]:
        events = [record.event for record in self.served.journal.records()]
        return [f"{event.subject} {event.by}: {event.reason}" for event in events if event.kind == kind]

    async def ask(
        self, path: str = "/v1/whoami", method: str = "GET", body: bytes = b"", tls: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        given = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body)), **headers}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in given.items())
        return parsed(await self.raw(head.encode() + b"\r\n" + body, tls))

    async def raw(self, data: bytes, tls: Any = None, patience: float = 10.0) -> bytes:
        """What comes back until the other end hangs up."""
        reader, writer = await asyncio.open_connection(*self.address, ssl=tls, server_hostname="lb1" if tls else None)
        answer = b""
        try:
            writer.write(data)
            async with asyncio.timeout(patience):
                while piece := await reader.read(65536):
                    answer += piece
        except (TimeoutError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()
        return answer

    async def as_user(self, uid: int, data: bytes, place: str = "", gid: int = 0, *more: str) -> tuple[int, Any]:
        """The same from a process of another user."""
        helper = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(support.__file__).with_name("local_user.py")),
            *(str(uid), str(gid or uid), place or self.place, *more),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await helper.communicate(data)
        if helper.returncode:
            return 0, err.decode() or str(helper.returncode)
        return parsed(out)[:2] if out else (0, "")


def parsed(answer: bytes) -> tuple[int, Any, dict[str, str]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    told = json.loads(body or b"null") if "json" in headers.get("Content-Type", "json") else body.decode()
    return int(first.split()[1]), told, headers


@asynccontextmanager
async def guarded(text: str = "", listen: str = "127.0.0.1", **given: Any) -> AsyncIterator[Guarded]:
    served = Served(scene.trouble(), settings=settings.parse(NODE + text), held=True)
    api = served.api((listen, 0), **given)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(api.run())
        await eventually(lambda: len(api.listeners) == 1 + ("socket" in given))
        assert api.address is not None
        try:
            yield Guarded(served, api, api.address)
        finally:
            running.cancel()


# ---------------------------------------------------------------- where it listens


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('listen = "0.0.0.0:4672"', "every address would include its VIPs"),
        ('listen = ":4672"', "every address would include its VIPs"),
        ('listen = ["127.0.0.1:1", "[::]:4672"]', "every address would include its VIPs"),
        ('listen = ["127.0.0.1:1", "192.0.2.7:4672"]', "192.0.2.7 lies in node.vip_ranges (192.0.2.0/24)"),
        ('listen = "[::ffff:192.0.2.7]:4672"', "lies in node.vip_ranges (192.0.2.0/24)"),
        ('listen = "[2001:db8::1]:4672"', "lies in node.vip_ranges (2001:db8::/32)"),
        ('listen = "10.0.0.1:4672"', "set tls_cert_file and tls_key_file, or listen on 127.0.0.1"),
        ('listen = "lb1.example:4672"', 'an IP address and port such as "10.0.0.1:4672"'),
        ('tls_key_file = "/x"', "tls_cert_file beside it"),
        ('tls_writers = "deploy"', "tls_client_ca_file beside it"),
        ("rate = 0", "greater than or equal to 1"),
    ],
)
def test_where_it_must_not_listen_is_told_with_line_and_mend(line: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.parse(NODE + line)
    assert any(problem.line == 5 and told in str(problem) for problem in caught.value.problems), caught.value


def test_addresses_of_the_node_with_tls_are_fine() -> None:
    given = settings.parse(NODE + 'listen = ["localhost:1", "10.0.0.1:2", "[fe80::1%eth0]:3"]\ntls_cert_file = "/x"')
    assert given.api.listen == (("127.0.0.1", 1), ("10.0.0.1", 2), ("fe80::1%eth0", 3))
    assert given.api.apart == (("10.0.0.1", 2), ("fe80::1%eth0", 3))


async def test_a_socket_that_cannot_be_made_is_told_and_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("something else")
    served = Served(scene.calm())
    api = served.api(socket=path)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(api.run())
        await eventually(lambda: api.address is not None and len(served.journal.records()) == 2)
        downs = [record.event.reason for record in served.journal.records() if record.event.after == "down"]
        assert len(downs) == 1 and "set another [api] socket in node.toml" in downs[0]
        path.unlink()
        await eventually(lambda: len(api.listeners) == 2)
        assert path.stat().st_mode & 0o777 == 0o660
        running.cancel()
    assert not path.exists(), "removed at the end"


# ---------------------------------------------------------------- whose process it is


async def test_the_own_user_just_writes(tmp_path: Path) -> None:
    async with guarded(socket=tmp_path / "s") as api:
        status, view, _ = await api.ask()
        assert (status, view["rights"]) == (200, "write")
        assert view["name"].startswith(f"uid {os.geteuid()} (") and view["name"].endswith(" on 127.0.0.1")
        status, view = await api.as_user(os.geteuid(), WHOAMI, str(tmp_path / "s"), os.getegid())
        assert (status, view["rights"]) == (200, "write")
        assert view["name"].endswith("through the socket")


@as_root
@pytest.mark.parametrize("listen", ["127.0.0.1", "::1"])
async def test_another_local_user_reads_and_cannot_write(listen: str) -> None:
    async with guarded(listen=listen) as api:
        status, view = await api.as_user(NOBODY, WHOAMI)
        assert (status, view["rights"]) == (200, "read"), view
        assert view["name"].startswith(f"uid {NOBODY} (")
        status, view = await api.as_user(NOBODY, CONFIRM)
        assert (status, api.served.held) == (403, True)
        assert all(view["error"].values())
        (told,) = api.events("denied")
        assert told.startswith("POST /v1/confirm uid 65534")
        assert (await api.ask("/v1/confirm", "POST"))[0] == 200, "and root may"


@as_root
async def test_who_hangs_up_at_once_is_not_taken_for_root() -> None:
    """The kernel shows uid 0 for a socket that its process has closed."""
    async with guarded() as api:
        for _ in range(10):
            await api.as_user(NOBODY, CONFIRM, "", NOBODY, "hang-up")
        await asyncio.sleep(0.2)
        assert api.served.held


@pytest.fixture
def entered() -> Iterator[Path]:
    """A directory that every user may enter. Those above ``tmp_path`` are closed whenever another pytest starts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@as_root
async def test_the_members_of_the_group_write(entered: Path) -> None:
    """daemon (1): by its process through the socket, by the user database over the loopback."""
    async with guarded('group = "daemon"', socket=entered / "s") as api:
        assert (await api.as_user(NOBODY, WHOAMI, str(entered / "s"), 1))[1]["rights"] == "write"
        assert (await api.as_user(1, WHOAMI))[1]["rights"] == "write"
        assert (await api.as_user(NOBODY, WHOAMI))[1]["rights"] == "read"
        refused = await api.as_user(NOBODY, CONFIRM, str(entered / "s"))
        assert "PermissionError" in refused[1], "the file's mode keeps others out"
        (entered / "s").chmod(0o666)
        status, view = await api.as_user(NOBODY, CONFIRM, str(entered / "s"))
        assert (status, api.served.held) == (403, True)
        assert "a member of the group daemon" in view["error"]["expected"]


@pytest.mark.parametrize(("loopback", "status", "rights"), [("read", 200, "read"), ("none", 401, None)])
async def test_the_loopback_may_be_worth_less(loopback: str, status: int, rights: str | None) -> None:
    async with guarded(f'loopback = "{loopback}"') as api:
        found, view, headers = await api.ask()
        assert (found, view.get("rights")) == (status, rights)
        assert ("WWW-Authenticate" in headers) == (status == 401)
        assert (await api.ask("/v1/confirm", "POST"))[0] in (401, 403)
        assert api.served.held
        assert (await api.ask("/healthz"))[0] == 200


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, remote: str, state: str = "01", uid: int = 1000, inode: int = 77) -> str:
    return (
        f"   1: {local} {remote} {state} 00000000:00000000 00:00000000 00000000  {uid}  0 {inode} 1 0 20 4 30 10 -1\n"
    )


def spelt(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed)) + f":{port:04X}"


@pytest.mark.parametrize(
    ("client", "server", "line", "uid"),
    [
        ("127.0.0.1", "127.0.0.1", {}, 1000),
        ("::1", "::1", {}, 1000),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", {}, 1000),
        ("127.0.0.1", "127.0.0.1", {"uid": 0, "inode": 0, "state": "06"}, None),
        ("127.0.0.1", "127.0.0.1", {"uid": 0, "inode": 0, "state": "05"}, None),
        ("127.0.0.1", "127.0.0.1", {"uid": 0, "state": "02"}, None),
        ("127.0.0.1", "127.0.0.1", {"uid": 1000, "state": "08"}, 1000),
        ("127.0.0.2", "127.0.0.1", {"uid": 0}, None),
    ],
)
def test_the_owner_is_read_from_the_kernels_table(client: str, server: str, line: Any, uid: int | None) -> None:
    ours = row(spelt(server, 4672), spelt(client, 5000), uid=0)
    table = HEAD + ours + "garbage\n" + row(spelt(client, 5000), spelt(server, 4672), **line)
    asked = "::1" if server == "::1" else "127.0.0.1"
    assert local_users.owner(table, (asked, 5000), (asked, 4672)) == uid


# ---------------------------------------------------------------- tokens


async def test_tokens_give_the_rights_of_their_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read, write = tmp_path / "read", tmp_path / "write"
    read.write_text("# who only looks\n\ngrafana secret-of-grafana\nsecret-without-name\n")
    write.write_text("deploy secret-of-deploy\n")
    text = f'read_token_file = "{read}"\nwrite_token_file = "{write}"\nloopback = "none"'
    async with guarded(text) as api:

        async def bearer(secret: str, path: str = "/v1/whoami", method: str = "GET") -> tuple[int, Any]:
            return (await api.ask(path, method, Authorization=f"Bearer {secret}"))[:2]

        assert await bearer("secret-of-grafana") == (200, {"name": "token grafana", "rights": "read"})
        assert (await bearer("secret-without-name"))[1]["name"] == "token of line 4 of read_token_file"
        assert (await bearer("secret-of-grafana", "/v1/confirm", "POST"))[0] == 403
        assert (await bearer("secret-of-wrong", "/v1/confirm", "POST"))[0] == 401
        assert api.served.held
        assert [told.split(":")[0] for told in api.events("denied")] == [
            "POST /v1/confirm token grafana",
            "POST /v1/confirm 127.0.0.1",
        ]
        assert (await bearer("secret-of-deploy", "/v1/confirm", "POST"))[0] == 200
        assert any("token deploy" in told for told in api.events("confirm"))
        for wrong in (
            "Bearer",
            "Bearer ",
            "Basic c2VjcmV0",
            "secret-of-deploy",
            "Bearer secret-of-deploy x",
            "Bearer é",
        ):
            assert (await api.ask(Authorization=wrong))[0] == 401, wrong
        told = [str(record) for record in api.served.journal.records()]
    assert "secret-of" not in caplog.text + "".join(told)


POOL = {"port": 80, "backends": {"b1": {"address": "10.1.0.1"}}}
WEB = {"vip": "192.0.2.30", **POOL}
GATEWAY = {"vip": "192.0.2.31", "port": 80, "protocol": "http"}
RULES = [{"backendRefs": [{"name": "web"}]}]
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/v1/services/web", WEB),
    ("PATCH", "/v1/services/web", {"drain": "5s"}),
    ("PUT", "/v1/services/web/backends/b2", {"address": "10.1.0.2"}),
    ("POST", "/v1/services/web/backends/b2/drain", None),
    ("POST", "/v1/services/web/backends/b2/undrain", None),
    ("DELETE", "/v1/services/web/backends/b2", None),
    ("PUT", "/v1/services", {"more": {**WEB, "port": 81}}),
    ("DELETE", "/v1/services", ["more"]),
    ("PUT", "/v1/defaults", {"drain": "6s"}),
    ("DELETE", "/v1/defaults", None),
    ("PUT", "/v1/gateways/edge", GATEWAY),
    ("PUT", "/v1/routes/all", {"gateways": ["edge"], "hostnames": ["*"], "rules": RULES}),
    ("DELETE", "/v1/routes/all", None),
    ("POST", "/v1/import", {"catalog": {"services/shop": POOL}}),
    ("POST", "/v1/nodes/lb1/drain", None),
    ("POST", "/v1/nodes/lb1/undrain", None),
    ("PUT", "/service/gorb", {"host": "192.0.2.32", "port": 80}),
    ("PUT", "/service/gorb/b1", {"host": "10.1.0.3", "port": 80}),
    ("PATCH", "/service/gorb/b1", {"weight": 0}),
    ("DELETE", "/service/gorb/b1", None),
    ("DELETE", "/service/gorb", None),
    ("PUT", "/__erulb__/upstream", {"up1": {"10.1.0.1:5000": "weight=10"}}),
    ("DELETE", "/__erulb__/upstream", ["up1"]),
    ("DELETE", "/v1/services/web", None),
]
"""Every way to write, in an order in which each changes something."""


async def test_every_change_is_an_event_with_the_name_of_its_caller(tmp_path: Path) -> None:
    (tmp_path / "write").write_text("deploy secret-of-deploy\n")
    async with guarded(f'write_token_file = "{tmp_path}/write"') as api:
        for method, path, document in WRITES:
            before, told = dict(api.served.store._entries), len(api.events("write"))
            body = b"" if document is None else json.dumps(document).encode()
            headers = {"Authorization": "Bearer secret-of-deploy", "Content-Type": "application/json"}
            status, view, _ = await api.ask(path, method, body, **headers)
            assert 200 <= status < 300, (method, path, view)
            keys = {**before, **api.served.store._entries}.keys()
            changed = {key for key in keys if before.get(key) != api.served.store._entries.get(key)}
            new = api.events("write")[told:]
            assert {event.split()[0] for event in new} == {key for key in changed if not key.startswith("locks/")}
            assert new and all(f" token deploy: {method} {path}" in event for event in new), new


async def test_tokens_are_read_again_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "write"
    file.write_text("old-secret")
    async with guarded(f'write_token_file = "{file}"') as api:

        async def works(secret: str) -> bool:
            api.api.reread()  # else it looks once a second
            return (await api.ask(Authorization=f"Bearer {secret}"))[0] == 200

        assert await works("old-secret")
        (tmp_path / "next").write_text("# rotated\nnew-secret")
        (tmp_path / "next").rename(file)
        assert (await works("new-secret"), await works("old-secret")) == (True, False)
        file.write_bytes(b"\xff\xfe")
        assert not await works("new-secret")
        file.unlink()
        assert not await works("new-secret")
        file.write_text("two words too-many\nnew-secret")
        assert await works("new-secret")
        told = "".join(api.events("api"))
        assert "it is not UTF-8" in told and "No such file" in told and "line 1 is no token" in told


async def test_hang_up_reads_tokens_again_at_once(tmp_path: Path) -> None:
    file = tmp_path / "write"
    file.write_text("old-secret")
    found = tokens.Tokens({"write": str(file)}, Served(scene.calm()).journal, every=3600)
    assert found.find("old-secret") is not None
    file.write_text("new-secret")
    assert found.find("new-secret") is None, "not looked at again within the hour"
    found.reread()
    assert found.find("new-secret") is not None


def test_a_secret_that_everybody_can_read_is_a_finding(tmp_path: Path) -> None:
    file = tmp_path / "write"
    file.write_text("secret")
    given = settings.parse(NODE + f'write_token_file = "{file}"')
    for mode, found in ((0o644, True), (0o640, False)):
        file.chmod(mode)
        assert any(finding.mend == f"chmod o= {file}" for finding in preflight(at_start(given))) is found


# ---------------------------------------------------------------- TLS


def client(authority: Authority, certificate: Path | None = None) -> ssl.SSLContext:
    own = str(certificate) if certificate else None
    context = security(str(authority.file), own, own)
    assert context is not None
    return context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_certificates_of_clients_give_rights_by_their_names(tmp_path: Path) -> None:
    servers, clients, foreign = Authority(tmp_path, "Servers"), Authority(tmp_path, "Clients"), Authority(tmp_path)
    text = (
        f'tls_cert_file = "{servers.issue("lb1")}"\ntls_client_ca_file = "{clients.file}"\n'
        'tls_writers = ["deploy", "ops.example"]\nloopback = "none"'
    )
    async with guarded(text, secure=True) as api:
        assert (await api.ask(tls=client(servers)))[0] == 401, "none"
        assert (await api.ask("/healthz", tls=client(servers)))[0] == 200
        reader = client(servers, clients.issue("looker"))
        assert (await api.ask(tls=reader))[1] == {"name": "certificate looker", "rights": "read"}
        assert (await api.ask("/v1/confirm", "POST", tls=reader))[0] == 403
        for names in (("deploy",), ("somebody", "ops.example")):
            found = (await api.ask(tls=client(servers, clients.issue(*names))))[1]
            assert found == {"name": f"certificate {names[0]}", "rights": "write"}
        assert await api.raw(WHOAMI, client(servers, foreign.issue("deploy"))) == b"", "of another authority"
        assert (await api.raw(WHOAMI))[:7] != b"HTTP/1.", "plain HTTP"
        assert api.served.held
        assert (await api.ask(tls=reader, Host="any.name"))[0] == 200, "TLS proves the name"
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(servers.file)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((OSError, ssl.SSLError)):
            await api.ask("/healthz", tls=old)


async def test_a_certificate_is_replaced_while_it_runs(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "First"), Authority(tmp_path, "Second")
    file = first.issue("lb1")
    async with guarded(f'tls_cert_file = "{file}"', secure=True) as api:
        assert (await api.ask("/healthz", tls=client(first)))[0] == 200
        file.write_text("no certificate")
        api.api.reread()  # else it looks once a second
        assert (await api.ask("/healthz", tls=client(first)))[0] == 200, "the old one stays"
        assert "the old one stays" in "".join(api.events("api"))
        second.issue("lb1").rename(file)
        api.api.reread()
        assert (await api.ask("/healthz", tls=client(second)))[0] == 200


async def test_a_certificate_that_cannot_be_read_does_not_stop_the_node(tmp_path: Path) -> None:
    served = Served(scene.calm(), settings=settings.parse(NODE + f'tls_cert_file = "{tmp_path}/none.pem"'))
    api = served.api(secure=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(api.run())
        await eventually(lambda: bool(served.journal.records()))
        assert "none.pem cannot be used: No such file" in served.journal.records()[0].event.reason
        Authority(tmp_path).issue("lb1").rename(tmp_path / "none.pem")
        await eventually(lambda: api.address is not None)
        running.cancel()


# ---------------------------------------------------------------- where a request comes from


@pytest.mark.parametrize("host", ["localhost:4672", "LB1", "lb1.:80", "127.0.0.1:9", "[::1]:9", "lb1.example.net"])
async def test_known_hosts(host: str) -> None:
    async with guarded('names = "lb1.example.net"') as api:
        assert (await api.ask(Host=host))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "lb1.evil", "127.0.0.1.evil", "[x]"])
async def test_a_name_made_to_lead_here_is_refused(host: str) -> None:
    async with guarded() as api:
        status, view, _ = await api.ask("/v1/status", Host=host)
        assert status in (400, 403)
        if status == 403:
            assert "[api] names" in view["error"]["mend"]


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site"])
async def test_a_browser_that_says_it_is_elsewhere_cannot_write(site: str) -> None:
    async with guarded() as api:
        status, view, _ = await api.ask("/v1/confirm", "POST", Sec_Fetch_Site=site)
        assert (status, view["error"]["where"], api.served.held) == (403, "Sec-Fetch-Site", True)
        assert (await api.ask("/v1/confirm", "POST", Sec_Fetch_Site="same-origin"))[0] == 200


async def test_what_needs_no_rights_and_what_needs_some() -> None:
    async with guarded('loopback = "none"') as api:
        answers = {path: (await api.ask(path))[0] for path in ("/healthz", "/readyz", "/", "/web/x.js")}
        assert answers == {"/healthz": 200, "/readyz": 503, "/": 200, "/web/x.js": 404}
        for path in ("/metrics", "/v1/status", "/v1/nothing", "/web", "/%68ealthz/../metrics"):
            assert (await api.ask(path))[0] == 401, path
        for path in ("/web/../v1/status", "/web/%2e%2e/v1/status", "/web/..%2fv1/status"):
            assert (await api.ask(path))[0] in (401, 404), path
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await api.ask("/healthz", method))[0] == 401, method


async def test_a_plan_needs_only_the_right_to_read() -> None:
    async with guarded('loopback = "read"') as api:
        assert (await api.ask("/v1/plan", "POST"))[0] in (200, 400, 415), "not refused for want of rights"
        assert (await api.ask("/v1/import", "POST"))[0] == 403


# ---------------------------------------------------------------- how much


async def test_too_many_requests_of_one_caller() -> None:
    async with guarded("rate = 1") as api:
        answers = [await api.ask() for _ in range(4)]
        assert [answer[0] for answer in answers] == [200, 200, 429, 429]
        assert int(answers[-1][2]["Retry-After"]) >= 1
        assert "[api] rate" in answers[-1][1]["error"]["expected"]
        assert (await api.ask("/healthz"))[0] == 200
        assert (await api.ask("/healthz"))[0] == 200
        assert (await api.ask(Authorization="Bearer x"))[0] == 401, "somebody else"


def test_an_allowance_grows_back_and_is_each_callers_own() -> None:
    allowance = limits.Allowance(10, 2)
    assert [allowance.take("a", 0), allowance.take("a", 0), allowance.take("b", 0)] == [0, 0, 0]
    assert allowance.take("a", 0) == pytest.approx(0.1)
    assert allowance.take("a", 0.1) == 0
    for number in range(limits.KNOWN + 10):
        allowance.take(str(number), 0.2)
    assert len(allowance._left) == limits.KNOWN


async def test_too_many_requests_at_work() -> None:
    async with guarded("max_requests = 2") as api:
        slow = [await asyncio.open_connection(*api.address) for _ in range(2)]
        for _, writer in slow:
            writer.write(b"POST /v1/confirm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabc")
        (front,) = api.api.listeners
        await eventually(lambda: front.load.requests == 2)
        status, view, headers = await api.ask()
        assert (status, headers["Retry-After"]) == (429, "1")
        assert "[api] max_requests" in view["error"]["expected"]
        assert (await api.ask("/healthz"))[0] == 200
        for _, writer in slow:
            writer.transport.abort()
        await eventually(lambda: front.load.requests == 0)
        assert (await api.ask())[0] == 200
        assert not [told for told in api.events("api") if "internal" in told]
        assert api.served.held, "half a request is none"


async def test_the_socket_answers_whatever_is_at_work_over_tcp(entered: Path) -> None:
    async with guarded("max_requests = 2\nrate = 1", socket=entered / "s") as api:
        (tcp,) = [listener for listener in api.api.listeners if listener.kind != "unix"]
        tcp.load.requests = 2
        assert [(await api.ask())[0] for _ in range(3)] == [429] * 3
        reader, writer = await asyncio.open_unix_connection(str(entered / "s"))
        writer.write(WHOAMI)
        status, who, _ = parsed(await reader.read())
        assert (status, who["rights"]) == (200, "write")
        writer.close()


async def test_too_many_readers_of_events() -> None:
    async with guarded("max_streams = 1") as api:
        api.api.listeners[0].load.streams = 1
        assert (await api.ask("/v1/events", Accept="text/event-stream"))[0] == 429
        assert (await api.ask("/v1/events"))[0] == 200
        assert (await api.ask("/v1/status", Accept="text/event-stream"))[0] == 200, "no stream is to be had there"
        api.api.listeners[0].load.streams = 0
        reader, writer = await asyncio.open_connection(*(api.api.address or ("", 0)))
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        assert api.api.listeners[0].load.streams == 1
        writer.transport.abort()
        await eventually(lambda: api.api.listeners[0].load == limits.Load())


@pytest.mark.parametrize("path", ["/v1/events", "/v1/%65vents", "/%76%31/events?after=0"])
async def test_a_stream_is_counted_however_it_is_asked_for(path: str) -> None:
    """What routing takes for the events is counted as a stream of them, and HEAD is none."""
    async with guarded("max_streams = 1") as api:
        load, head = api.api.listeners[0].load, "HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        answer = await api.raw(f"HEAD {path} {head}Connection: close\r\n\r\n".encode())
        assert parsed(answer)[0] == 200
        assert load == limits.Load()
        reader, writer = await asyncio.open_connection(*(api.api.address or ("", 0)))
        writer.write(f"GET {path} {head}\r\n".encode())
        assert (await reader.readline()).split()[1] == b"200"
        assert (load.streams, load.requests) == (1, 0)
        assert parsed(await api.raw(f"GET {path} {head}Connection: close\r\n\r\n".encode()))[0] == 429
        writer.transport.abort()
        await eventually(lambda: load == limits.Load())


async def test_a_slow_body_and_a_slow_head_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ORDINARY", limits.Body(seconds=0.1))
    async with guarded() as api:
        answer = await api.raw(b"POST /v1/confirm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabc")
        assert parsed(answer)[0] == 408
        monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.1)
        for begun in (b"", b"GET /v1/st", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
            assert await api.raw(begun) == b""
        assert api.served.held


async def test_who_never_reads_is_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(listener, "LOOK_INTERVAL", 0.05)
    async with guarded("rate = 1000000", socket=tmp_path / "s") as api:
        requests = api.served.meters.requests
        for place in (api.address, str(tmp_path / "s")):
            before = requests.counts.total()
            with socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET) as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.connect(place)
                deaf.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(
                    deaf, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300
                )
                await eventually(lambda before=before: requests.counts.total() > before)  # type: ignore[misc]
                await eventually(lambda: not any(front.connections for front in api.api.listeners))
        assert (await api.ask())[0] == 200


async def test_idle_connections_keep_nobody_out() -> None:
    async with guarded("max_connections = 16") as api:
        idle = [await asyncio.open_connection(*api.address) for _ in range(300)]
        (front,) = api.api.listeners
        assert (await api.ask("/healthz"))[0] == 200
        assert (await api.ask())[0] == 200
        assert front.connections <= 16
        for _, writer in idle:
            writer.transport.abort()
        await eventually(lambda: front.connections == 0)


def test_the_pace_of_handshakes_is_that_of_the_key(tmp_path: Path) -> None:
    def paced(file: Path) -> float:
        return handshakes.pace(tls.load(settings.parse(NODE + f'tls_cert_file = "{file}"').api))

    authority = Authority(tmp_path)
    curve, large = paced(authority.issue("lb1")), paced(authority.issue("lb1", rsa_bits=4096))
    assert handshakes.SLOWEST <= large < curve / 2 <= handshakes.FASTEST / 2


async def test_a_flood_of_handshakes_is_made_at_the_pace_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty clients greet at once from one address: few get their handshake, and the others wait or are closed."""
    rate = 5.0
    monkeypatch.setattr(handshakes, "FASTEST", rate)
    authority, loop = Authority(tmp_path), asyncio.get_running_loop()
    async with guarded(f'tls_cert_file = "{authority.issue("lb1")}"', secure=True) as api:
        began = loop.time()

        async def greet() -> bool:
            try:
                _, writer = await asyncio.open_connection(*api.address, ssl=client(authority), server_hostname="lb1")
            except OSError:
                return False
            writer.transport.abort()
            return True

        greeted = await asyncio.gather(*(greet() for _ in range(60)))
        took = loop.time() - began
        assert 2 * rate <= sum(greeted) <= 2 * rate + rate * took + 1
        assert sum(greeted) <= 2 * rate + handshakes.MAX_WAITING_OF_ONE + rate * took and not all(greeted)
        assert (await api.ask("/healthz", tls=client(authority)))[0] == 200, "afterwards nobody waits any more"


async def test_one_peer_takes_not_every_place_in_the_queue() -> None:
    queue = handshakes.Handshakes(handshakes.SLOWEST)
    async with asyncio.TaskGroup() as tasks:
        turns = [tasks.create_task(queue.turn("192.0.2.1")) for _ in range(200)]
        await asyncio.sleep(0)
        made = [turn for turn in turns if turn.done() and turn.result()]
        assert len(made) == 2 * handshakes.SLOWEST
        assert sum(not turn.done() for turn in turns) == handshakes.MAX_WAITING_OF_ONE, "all others are refused"
        near = [tasks.create_task(queue.turn(f"2001:db8::{n:x}")) for n in range(100)]
        other = tasks.create_task(queue.turn("192.0.2.2"))
        await asyncio.sleep(0)
        assert sum(turn.done() for turn in near) == 100 - handshakes.MAX_WAITING_OF_ONE, "one network is one peer"
        assert not other.done()
        for turn in [*turns, *near]:
            turn.cancel()
        assert await other


async def test_connections_that_never_greet_keep_nobody_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with guarded(f'tls_cert_file = "{authority.issue("lb1")}"\nmax_connections = 16', secure=True) as api:
        idle = [await asyncio.open_connection(*api.address) for _ in range(100)]
        assert (await api.ask("/healthz", tls=client(authority)))[0] == 200
        assert api.api.listeners[0].connections <= 16
        for _, writer in idle:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("method", "path", "size"),
    [
        ("POST", "/v1/confirm", 512 * 1024),
        ("PUT", "/v1/services/web", 512 * 1024),
        ("PUT", "/v1/services", 8 * 1024 * 1024),
        ("POST", "/v1/import", 8 * 1024 * 1024),
        ("POST", "/v1/plan", 8 * 1024 * 1024),
    ],
)
async def test_the_size_of_a_body(method: str, path: str, size: int) -> None:
    async with guarded() as api:
        assert (await api.ask(path, method, b"x" * size))[0] != 413
        for more in ({}, {"Expect": "100-continue"}):
            answer = await api.raw(
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size + 1}\r\n".encode()
                + "".join(f"{name}: {value}\r\n" for name, value in more.items()).encode()
                + b"\r\n"
            )
            answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert parsed(answer)[0] == 413
            assert str(size) in parsed(answer)[1]["error"]["expected"]
        chunks = b"1000\r\n" + b"x" * 4096 + b"\r\n"
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        assert parsed(await api.raw(head + chunks * (size // 4096 + 1) + b"0\r\n\r\n"))[0] == 413


async def test_a_packed_body_is_refused() -> None:
    async with guarded() as api:
        assert (await api.ask("/v1/confirm", "POST", b"x", Content_Encoding="gzip"))[0] == 415
        assert api.served.held


@pytest.mark.parametrize(
    ("noise", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v1/confirm HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (b"POST /v1/confirm HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_what_is_no_request_is_answered_in_the_one_shape(
    noise: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded() as api:
        found, view, _ = parsed(await api.raw(noise))
        assert found == status
        assert all(view["error"].values())
        assert api.served.held
    assert "Traceback" not in caplog.text


async def test_pipelined_requests_are_each_judged() -> None:
    async with guarded('loopback = "read"') as api:
        read = WHOAMI.replace(b"Connection: close\r\n", b"")
        write = CONFIRM.replace(b"Connection: close\r\n", b"")
        answer = await api.raw(read + write + read + WHOAMI)
        statuses = [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [200, 403, 200, 200]
        assert api.served.held


async def test_a_flood_of_refusals_is_a_few_events() -> None:
    async with guarded('loopback = "none"') as api:
        for _ in range(40):
            await api.ask("/v1/confirm", "POST")
        assert 5 <= len(api.events("denied")) <= 20


# ---------------------------------------------------------------- everything at once


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_random_requests_leave_it_healthy(caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(4)
    before = 0
    async with guarded("max_connections = 64\nrate = 1000000") as api:
        assert (await api.ask("/healthz"))[0] == 200
        await eventually(lambda: api.api.listeners[0].connections == 0)
        catalog, before = (await api.served.store.read(None)).entries, descriptors()

        async def one(number: int) -> None:
            try:
                data, patience = noise(dice)
                await api.raw(data, patience=patience)
            except OSError:
                return

        for start in range(0, 1000, 50):
            await asyncio.gather(*(one(start + number) for number in range(50)))
        assert (await api.ask("/healthz"))[0] == 200
        assert (await api.ask())[0] == 200
        await eventually(lambda: api.api.listeners[0].connections == 0)
        await eventually(lambda: descriptors() <= before)
        assert (await api.served.store.read(None)).entries == catalog
        assert api.served.held
    assert "Traceback" not in caplog.text
