"""The commands that write: ipvsadm's and meradm's letters as the requests they become, and the line they end with."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.recording import Recorder, error, recording
from tests.support.serving import command, inside

WEB = {
    "vip": "192.0.2.10",
    "port": 80,
    "check": {"type": "http", "path": "/health", "interval": "1s"},
    "backends": {"web1": {"address": "10.1.0.1"}, "10.1.0.2:8080": {"weight": 5}, "w6": {"address": "fd00::1"}},
}
MARK = {"vip": "192.0.2.11", "fwmark": 100}
STORED = {
    "services/web": {**WEB, "backends": {"web1": {"address": "10.1.0.1"}, "w6": {"address": "fd00::1"}}},
    "services/web/backends/10.1.0.2:8080": {"weight": 5},
    "services/all": MARK,
}
NOTHING: dict[str, Any] = {"edits": [], "changes": [], "problems": []}
STATUS: dict[str, Any] = {"node": {"name": "lb1"}, "vips": [], "problems": []}


@pytest.fixture
async def node() -> AsyncIterator[Recorder]:
    answers: dict[str, tuple[int, Any]] = {
        "GET /v1/services": (200, {"web": WEB, "all": MARK}),
        "GET /v1/services/web": (200, WEB),
        "GET /v1/services/all": (200, MARK),
        "GET /v1/export": (200, {"catalog": STORED}),
        "GET /v1/status": (200, STATUS),
        "POST /v1/plan": (200, NOTHING),
    }
    async with recording(answers) as recorder:
        yield recorder


async def run(node: Recorder, *words: str, stdin: str = "") -> str:
    code, out, err = await inside(*words, "--api", node.url, stdin=stdin)
    assert (code, err) == (0, "")
    return out


SERVICES: list[tuple[str, dict[str, Any]]] = [
    (
        "tcp 192.0.2.10:80 -s mh -b mh-port,mh-fallback",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "scheduler": "mh",
         "scheduler_flags": ["mh-port", "mh-fallback"]},
    ),
    ("-t 192.0.2.10:80 -s wlc", {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "scheduler": "wlc"}),
    ("UDP 192.0.2.10:53 -o", {"vip": "192.0.2.10", "port": 53, "protocol": "udp", "one_packet": True}),
    ("-u 192.0.2.10:53 --ops", {"vip": "192.0.2.10", "port": 53, "protocol": "udp", "one_packet": True}),
    ("-u 192.0.2.10:53 --no-ops", {"vip": "192.0.2.10", "port": 53, "protocol": "udp", "one_packet": False}),
    ("--sctp-service 192.0.2.10:9", {"vip": "192.0.2.10", "port": 9, "protocol": "sctp"}),
    ("tcp [2001:DB8::10]:80", {"vip": "2001:db8::10", "port": 80, "protocol": "tcp"}),
    (
        "tcp 192.0.2.10:80 [2001:db8::10]:80",
        {"vip": ["192.0.2.10", "2001:db8::10"], "port": 80, "protocol": "tcp"},
    ),
    (
        "-t 192.0.2.10:80 -t [2001:db8::10]:80",
        {"vip": ["192.0.2.10", "2001:db8::10"], "port": 80, "protocol": "tcp"},
    ),
    ("-f 100 192.0.2.11 -s wrr", {"vip": "192.0.2.11", "fwmark": 100, "scheduler": "wrr"}),
    ("tcp 192.0.2.10:21 -p", {"vip": "192.0.2.10", "port": 21, "protocol": "tcp", "persistence": {"timeout": "300s"}}),
    (
        "tcp 192.0.2.10:0 -p 600 -M 255.255.255.0",
        {"vip": "192.0.2.10", "port": 0, "protocol": "tcp",
         "persistence": {"timeout": "600s", "netmask": "255.255.255.0"}},
    ),
    (
        "tcp 192.0.2.10:80 -p10m -M 64",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "persistence": {"timeout": "10m", "netmask": 64}},
    ),
    (
        "tcp 192.0.2.10:80 --forward-method masq --min-backends 50%",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "forward": "nat", "announce": {"min_backends": "50%"}},
    ),
    ("tcp 192.0.2.10:80 -g", {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "forward": "dr"}),
    (
        "tcp 192.0.2.10:80 -i --tun-type gue --tun-port 6081",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "forward": "gue", "tunnel_port": 6081},
    ),
    (
        "tcp 192.0.2.10:80 --check-http /health",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "check": {"type": "http", "path": "/health"}},
    ),
    (
        "tcp 192.0.2.10:80 --check dns name=www.example.org interval=500ms port=53 rise=2 recursion=false",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp",
         "check": {"type": "dns", "name": "www.example.org", "interval": "500ms", "port": 53, "rise": 2,
                   "recursion": False}},
    ),
    (
        "tcp 192.0.2.10:80 --set drain=2m --set announce.communities=[\"65001:1\"] --set backends={\"a\":{}}",
        {"vip": "192.0.2.10", "port": 80, "protocol": "tcp", "drain": "2m",
         "announce": {"communities": ["65001:1"]}, "backends": {"a": {}}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("words", "document"), SERVICES, ids=[words for words, _ in SERVICES])
async def test_service_add(node: Recorder, words: str, document: dict[str, Any]) -> None:
    out = await run(node, "service", "add", "new", *words.split())
    assert node.written == [("PUT", "/v1/services/new", document)]
    assert node.asked[-1].headers["If-None-Match"] == "*"
    assert out.startswith("service new: added: vip ")
    assert out.count("\n") == 1


SERVERS: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("web 10.1.0.9:8080 -w 100 -f tunnel", {"10.1.0.9:8080": {"address": "10.1.0.9", "port": 8080, "weight": 100,
                                                              "forward": "tunnel"}}),
    ("web 10.1.0.9", {"10.1.0.9": {"address": "10.1.0.9"}}),
    ("web -r 10.1.0.9:80 -m -w 1", {"10.1.0.9:80": {"address": "10.1.0.9", "port": 80, "weight": 1, "forward": "nat"}}),
    ("-t 192.0.2.10:80 -r 10.1.0.9:80 -g", {"10.1.0.9:80": {"address": "10.1.0.9", "port": 80, "forward": "dr"}}),
    ("web 10.1.0.9:80 -f ROUTE", {"10.1.0.9:80": {"address": "10.1.0.9", "port": 80, "forward": "dr"}}),
    ("web 10.1.0.9:80 -f masq", {"10.1.0.9:80": {"address": "10.1.0.9", "port": 80, "forward": "nat"}}),
    ("web 10.1.0.9 -i", {"10.1.0.9": {"address": "10.1.0.9", "forward": "tunnel"}}),
    ("web 10.1.0.9 -i --tun-type gre", {"10.1.0.9": {"address": "10.1.0.9", "forward": "gre"}}),
    ("web 10.1.0.9 --tun-type ipip", {"10.1.0.9": {"address": "10.1.0.9", "forward": "tunnel"}}),
    ("web [fd00::9]:80", {"[fd00::9]:80": {"address": "fd00::9", "port": 80}}),
    ("web fd00::9", {"fd00::9": {"address": "fd00::9"}}),
    ("web a=10.1.0.8 b=10.1.0.9:81", {"a": {"address": "10.1.0.8"}, "b": {"address": "10.1.0.9", "port": 81}}),
    ("web 10.1.0.9 --name blue", {"blue": {"address": "10.1.0.9"}}),
    ("web 10.1.0.8-10:80", {f"10.1.0.{n}:80": {"address": f"10.1.0.{n}", "port": 80} for n in (8, 9, 10)}),
    ("web 10.1.0.9 -x 100 -y 50 --fallback", {"10.1.0.9": {"address": "10.1.0.9", "max_connections": 100,
                                                           "min_connections": 50, "fallback": True}}),
    ("web 10.1.0.9 --check-tcp", {"10.1.0.9": {"address": "10.1.0.9", "check": {"type": "tcp"}}}),
    ("web 10.1.0.9 --check tcp address=10.9.0.1 send=PING", {"10.1.0.9": {"address": "10.1.0.9", "check": {
        "type": "tcp", "address": "10.9.0.1", "send": "PING"}}}),
    ("web 10.1.0.9:80 -w 2 -f route --health-endpoint http://:8080/health --health-period 5s --health-timeout 1s "
     "--health-up 2 --health-down 1",
     {"10.1.0.9:80": {"address": "10.1.0.9", "port": 80, "weight": 2, "forward": "dr",
                      "check": {"type": "http", "port": 8080, "path": "/health", "interval": "5s", "timeout": "1s",
                                "rise": 2, "fall": 1}}}),
    ("web 10.1.0.9 --health-endpoint=", {"10.1.0.9": {"address": "10.1.0.9", "check": {"type": "none"}}}),
    ("web 10.1.0.9 --set override=7", {"10.1.0.9": {"address": "10.1.0.9", "override": 7}}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "documents"), SERVERS, ids=[words for words, _ in SERVERS])
async def test_server_add(node: Recorder, words: str, documents: dict[str, dict[str, Any]]) -> None:
    out = await run(node, "server", "add", *words.split())
    assert node.written == [
        ("PUT", f"/v1/services/web/backends/{name}", document) for name, document in documents.items()
    ]
    assert [line.split(": added: ")[0] for line in out.splitlines()] == [f"server web/{name}" for name in documents]


@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("service edit web -s wlc", ("PATCH", "/v1/services/web", {"scheduler": "wlc"})),
        ("service update web --scheduler-flags=", ("PATCH", "/v1/services/web", {"scheduler_flags": []})),
        ("service edit web tcp 192.0.2.12:81", ("PATCH", "/v1/services/web", {"vip": "192.0.2.12", "port": 81,
                                                                               "protocol": "tcp"})),
        ("service edit web --unset drain --unset announce.med", ("PATCH", "/v1/services/web", {
            "drain": None, "announce": {"med": None}})),
        ("service edit web --health-period 5s", ("PATCH", "/v1/services/web", {"check": {"interval": "5s"}})),
        ("service edit web --check-http /", ("PATCH", "/v1/services/web", {"check": {"type": "http", "path": "/"}})),
        ("service edit web --check-tcp", ("PATCH", "/v1/services/web", {"check": {"path": None, "type": "tcp"}})),
        ("service set web -M 24", ("PATCH", "/v1/services/web", {"persistence": {"netmask": 24}})),
        ("server edit web web1 -w 0", ("PATCH", "/v1/services/web/backends/web1", {"weight": 0})),
        ("server edit web 10.1.0.1 -w 7", ("PATCH", "/v1/services/web/backends/web1", {"weight": 7})),
        ("server edit web 10.1.0.1:80 -w 7", ("PATCH", "/v1/services/web/backends/web1", {"weight": 7})),
        ("server edit web 10.1.0.2:8080 -m", ("PATCH", "/v1/services/web/backends/10.1.0.2:8080", {"forward": "nat"})),
        ("server edit web [fd00:0::1]:80 --no-fallback", ("PATCH", "/v1/services/web/backends/w6", {
            "fallback": False})),
        ("server edit -t 192.0.2.10:80 -r 10.1.0.1:80 -w 3", ("PATCH", "/v1/services/web/backends/web1", {
            "weight": 3})),
        ("server edit web web1 --unset weight", ("PATCH", "/v1/services/web/backends/web1", {"weight": None})),
        ("server del web 10.1.0.1:80", ("DELETE", "/v1/services/web/backends/web1", None)),
        ("server delete web -r 10.1.0.2", ("DELETE", "/v1/services/web/backends/10.1.0.2:8080", None)),
        ("server drain web web1", ("POST", "/v1/services/web/backends/web1/drain", None)),
        ("server undrain web 10.1.0.1", ("POST", "/v1/services/web/backends/web1/undrain", None)),
        ("service del web", ("DELETE", "/v1/services/web", None)),
        ("service remove -t 192.0.2.10:80", ("DELETE", "/v1/services/web", None)),
        ("service del -f 100", ("DELETE", "/v1/services/all", None)),
        ("drain", ("POST", "/v1/nodes/lb1/drain", None)),
        ("drain lb2 --reason fan", ("POST", "/v1/nodes/lb2/drain", {"reason": "fan"})),
        ("undrain lb2", ("POST", "/v1/nodes/lb2/undrain", None)),
        ("confirm", ("POST", "/v1/confirm", None)),
    ],
)  # fmt: skip
async def test_one_change_is_one_request_and_one_line(
    node: Recorder, words: str, written: tuple[str, str, Any]
) -> None:
    out = await run(node, *words.split())
    assert node.written == [written]
    assert out.count("\n") == 1


async def test_several_servers_in_one_call_and_none_if_one_is_not_there(node: Recorder) -> None:
    out = await run(node, "server", "drain", "web", "web1", "10.1.0.2:8080", "w6", "10.1.0.1")
    assert [path for _, path, _ in node.written] == [
        f"/v1/services/web/backends/{name}/drain" for name in ("web1", "10.1.0.2:8080", "w6")
    ]
    assert out.splitlines()[0] == "server web/web1: draining"
    node.asked.clear()
    code, _, err = await inside("server", "del", "web", "web1", "10.1.0.77", "--api", node.url)
    assert (code, node.written) == (1, [])
    assert err == "Error: web has no backend 10.1.0.77: `anycastlb server list web` shows those it has\n"


async def test_the_line_says_what_changed(node: Recorder) -> None:
    after = {**WEB, "scheduler": "wlc", "check": {"type": "tcp", "interval": "1s"}}
    node.answers["PATCH /v1/services/web"] = (200, {"changed": True, "document": after})
    out = await run(node, "service", "edit", "web", "-s", "wlc", "--check-tcp")
    assert out == "service web: changed: check.type http → tcp, check.path /health → default, scheduler → wlc\n"
    node.answers["PATCH /v1/services/web"] = (200, {"changed": False, "document": WEB})
    assert await run(node, "service", "edit", "web", "-s", "mh") == "service web: unchanged\n"
    node.answers["POST /v1/services/web/backends/web1/drain"] = (200, {"changed": False, "document": {}})
    assert await run(node, "server", "drain", "web", "web1") == "server web/web1: unchanged\n"


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ("service add new tcp 192.0.2.12:80", {"services/new": {"vip": "192.0.2.12", "port": 80, "protocol": "tcp"}}),
        (
            "service edit all --set drain=1m --unset fwmark",
            {"services/all": {"vip": "192.0.2.11", "drain": "1m"}},
        ),
        (
            "service del web",
            {"services/web": None, "services/web/backends/10.1.0.2:8080": None},
        ),
        ("server add web 10.1.0.9", {"services/web/backends/10.1.0.9": {"address": "10.1.0.9"}}),
        ("server edit web 10.1.0.2 -w 9", {"services/web/backends/10.1.0.2:8080": {"weight": 9}}),
        (
            "server del web w6 10.1.0.2",
            {
                "services/web": {**WEB, "backends": {"web1": {"address": "10.1.0.1"}}},
                "services/web/backends/10.1.0.2:8080": None,
            },
        ),
        (
            "server edit web web1 w6 -w 9",
            {
                "services/web": {
                    **WEB,
                    "backends": {
                        "web1": {"address": "10.1.0.1", "weight": 9},
                        "w6": {"address": "fd00::1", "weight": 9},
                    },
                }
            },
        ),
        (
            "server drain web 10.1.0.2",
            {"services/web/backends/10.1.0.2:8080": {"weight": 5, "drain": True}},
        ),
    ],
)
async def test_a_dry_run_asks_for_the_plan_and_writes_nothing(
    node: Recorder, words: str, proposed: dict[str, Any]
) -> None:
    out = await run(node, *words.split(), "--dry-run")
    assert node.written == [("POST", "/v1/plan?mode=merge", {"catalog": proposed})]
    assert out == "no document would change\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("service add", "Missing argument"),
        ("service add web", "where? Expected PROTOCOL ADDRESS:PORT"),
        ("service add web tcp", "where?"),
        ("service add web 192.0.2.10:80", "where?"),
        ("service add web tcp 192.0.2.10", "expected one port for all addresses"),
        ("service add web tcp 192.0.2.10:80 192.0.2.11:81", "expected one port for all addresses"),
        ("service add web tcp 192.0.2.10:80 -u 192.0.2.10:80", "one protocol"),
        ("service add web -f 1 -f 2 192.0.2.10", "one firewall mark"),
        ("service add web -f 1 192.0.2.10:80", "has no port"),
        ("service add web tcp nonsense:80", "'nonsense:80' is no address"),
        ("service add web tcp 192.0.2.10:99999", "a port up to 65535"),
        ("service add web tcp 192.0.2.10:80 -o --no-ops", "not both"),
        ("service add web tcp 192.0.2.10:80 -g -m", "one way of forwarding"),
        ("service add web tcp 192.0.2.10:80 -m --tun-type gue", "one way of forwarding"),
        ("service add web tcp 192.0.2.10:80 --check-tcp --check-http /", "one check"),
        ("service add web tcp 192.0.2.10:80 --set nonsense", "expected field=value"),
        ("service add web tcp 192.0.2.10:80 --set port=1 --set port.x=2", "has a value of its own"),
        ("service edit web", "nothing to change was given"),
        ("service del", "which service?"),
        ("service del -t 192.0.2.99:80", "no services on tcp 192.0.2.99:80"),
        ("service list nope", "there is no service 'nope'"),
        ("server add", "of which service?"),
        ("server add web", "which backend?"),
        ("server add web 10.1.0.1 10.1.0.1", "cannot both be called 10.1.0.1"),
        ("server add web a=10.1.0.1-3", "one name for one address"),
        ("server add web 10.1.0.9-3", "is no range"),
        ("server add web 10.1.0.9 --health-endpoint ftp://x", "expected a URL like"),
        ("server add web 10.1.0.9 --health-endpoint http://:port/", "expected a URL like"),
        ("server add web 10.1.0.9 -f carrier-pigeon", "'carrier-pigeon' is not one of"),
        ("server edit web web1", "nothing to change was given"),
        ("server edit -t 192.0.2.10:80 -t 192.0.2.11:80 web1 -w 1", "one service at a time"),
        ("server drain web", "which backend?"),
        ("completion powershell", "is not one of"),
        ("import", "Missing argument"),
        ("import /nonexistent/dump.json", "cannot be read"),
    ],
)
async def test_a_wrong_word_is_one_line_and_writes_nothing(node: Recorder, words: str, told: str) -> None:
    extra = () if words.startswith("completion") else ("--api", node.url)
    code, out, err = await inside(*words.split(), *extra)
    assert (code, out, err.count("\n"), node.written) == (1, "", 1, [])
    assert err.startswith("Error: ")
    assert told in err


async def test_what_is_there_already_is_not_overwritten(node: Recorder) -> None:
    taken = (412, error("it is there already"))
    node.answers |= {"PUT /v1/services/web": taken, "PUT /v1/services/web/backends/10.1.0.1": taken}
    code, _, err = await inside("service", "add", "web", "tcp", "192.0.2.10:80", "--api", node.url)
    assert (code, err) == (1, "Error: there is a service web already: `anycastlb service edit web` changes it\n")
    code, _, err = await inside("server", "add", "web", "10.1.0.1", "--api", node.url)
    assert (code, err.count("\n")) == (1, 1)
    assert "`anycastlb server edit web 10.1.0.1` changes it" in err


async def test_a_refused_document_names_every_problem(node: Recorder) -> None:
    problems = [{"key": "services/web", "path": path, "expected": "expected a number"} for path in ("port", "fwmark")]
    told = error("the document has problems", mend="mend them", problems=problems)
    node.answers["PATCH /v1/services/web"] = (422, told)
    code, out, err = await inside("service", "edit", "web", "--set", "port=x", "--api", node.url)
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "Error: the document has problems: mend them",
        "  services/web: port: expected a number",
        "  services/web: fwmark: expected a number",
    ]


# ---------------------------------------------------------------- asking first


LIVE = {
    "vips": [{"vip": "192.0.2.10", "announced": True, "leaving": False, "rejected": "", "open": True, "services": [
        {"service": "web", "backends": [{"backend": "web1", "up": True, "weight": 100},
                                        {"backend": "web2", "up": True, "weight": 0}]}]}]
}  # fmt: skip


async def test_deleting_live_backends_asks_on_a_terminal_only(node: Recorder) -> None:
    node.answers["GET /v1/status"] = (200, {**STATUS, **LIVE})
    words = ("service", "del", "web", "--api", node.url)
    assert (await command(*words))[0] == 0, "nobody is there to be asked"
    assert len(node.written) == 1
    for answer, more, wrote in ((b"n\n", (), 0), (b"y\n", (), 1), (b"", ("-y",), 1)):
        node.asked.clear()
        code, told = await typed(answer, *words, *more)
        assert (code, len(node.written)) == (0 if wrote else 1, wrote), told
        assert ("has 1 live backend; delete it?" in told) is (not more)


async def typed(answer: bytes, *words: str) -> tuple[int, str]:
    """A command with a terminal as its standard input, and what is typed there."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "anycastlb", *words,
        stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, answer)
    out, _ = await process.communicate()
    os.close(ours)
    assert process.returncode is not None
    return process.returncode, out.decode()


# ---------------------------------------------------------------- dumps


async def test_export_and_import_of_the_same_file(node: Recorder, tmp_path: Path) -> None:
    out = await run(node, "export")
    assert json.loads(out) == {"catalog": STORED}
    assert yaml.safe_load(await run(node, "export", "-o", "yaml")) == {"catalog": STORED}
    for name in ("dump.json", "dump.yaml"):
        file = tmp_path / name
        assert await run(node, "export", str(file)) == f"{file}: 3 documents, 2 services\n"
        edits = [{"key": "services/all", "verb": "create", "before": None, "after": MARK}]
        node.answers["POST /v1/import"] = (200, {**NOTHING, "edits": edits})
        node.asked.clear()
        out = await run(node, "import", str(file))
        assert node.written == [("POST", "/v1/import?mode=merge", {"catalog": STORED})]
        assert out.splitlines() == [
            "create services/all  vip 192.0.2.11, fwmark 100", "imported: 1 document changed of 3"
        ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.json", "dump.yaml"]


async def test_a_dump_through_a_pipe(node: Recorder) -> None:
    node.answers["POST /v1/import"] = (200, NOTHING)
    await run(node, "import", "-", stdin=json.dumps({"catalog": STORED}))
    assert node.written == [("POST", "/v1/import?mode=merge", {"catalog": STORED})]


async def test_an_import_that_replaces_looks_at_the_plan_first(node: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    file.write_text(json.dumps(WEB))
    gone = {"key": "services/all", "verb": "delete", "before": MARK, "after": None}
    plan = {**NOTHING, "edits": [gone]}
    node.answers |= {"POST /v1/plan": (200, plan), "POST /v1/import": (200, plan)}
    out = await run(node, "import", "--replace", str(file))
    body = {"catalog": {"services/web": WEB}}
    assert node.written == [("POST", "/v1/plan?mode=replace", body), ("POST", "/v1/import?mode=replace", body)]
    assert out.splitlines()[0] == "delete services/all"
    node.asked.clear()
    code, told = await typed(b"n\n", "import", "--replace", str(file), "--api", node.url)
    assert code == 1
    assert "this deletes 1 document (services/all); go on?" in told
    assert [path for _, path, _ in node.written] == ["/v1/plan?mode=replace"]
    node.asked.clear()
    out = await run(node, "import", "--dry-run", str(file))
    assert [path for _, path, _ in node.written] == ["/v1/plan?mode=merge"]
    assert "delete services/all" in out


async def test_a_proposed_directory_is_planned_with_its_backends_and_defaults(node: Recorder, tmp_path: Path) -> None:
    (tmp_path / "services" / "web" / "backends").mkdir(parents=True)
    (tmp_path / "drain").mkdir()
    (tmp_path / "drain" / "lb1").write_text("")
    (tmp_path / "defaults.toml").write_text('forward = "dr"\n')
    (tmp_path / "services" / "web.yaml").write_text("vip: 192.0.2.10\nport: 80\n")
    (tmp_path / "services" / "web" / "backends" / "web1").write_text("address=10.1.0.1 weight=7")
    change = {"verb": "create", "table": "addresses", "object": "address 192.0.2.10", "before": None,
              "after": {"interface": "lo"}, "why": "web", "refused": "", "flows": 3}  # fmt: skip
    edit = {"key": "services/web", "verb": "update", "before": {"port": 81}, "after": {"port": 80}}
    node.answers["POST /v1/plan"] = (200, {"edits": [edit], "changes": [change], "problems": []})
    code, out, err = await inside("plan", str(tmp_path), "--api", node.url)
    assert (code, err) == (2, "")
    assert node.written == [("POST", "/v1/plan?mode=merge", {"catalog": {
        "defaults": {"forward": "dr"}, "services/web": {"vip": "192.0.2.10", "port": 80},
        "services/web/backends/web1": {"address": "10.1.0.1", "weight": "7"}}})]  # fmt: skip
    assert out.splitlines() == [
        "update services/web  port 81 → 80",
        "",
        "On this node:",
        "1 change, in this order",
        "1 create address 192.0.2.10  interface lo  (web)  carries 3 flows now",
    ]
    code, out, _ = await inside("plan", str(tmp_path), "-o", "json", "--api", node.url)
    assert (code, json.loads(out)["changes"][0]["flows"]) == (2, 3)


async def test_a_plan_that_changes_nothing_ends_with_0_and_one_with_problems_with_1(
    node: Recorder, tmp_path: Path
) -> None:
    (tmp_path / "web.json").write_text(json.dumps(WEB))
    code, out, _ = await inside("plan", "--replace", str(tmp_path), "--api", node.url)
    assert (code, out) == (0, "no document would change\n")
    assert node.written[0][1] == "/v1/plan?mode=replace"
    problem = {"key": "services/web", "path": "port", "expected": "a number"}
    node.answers["POST /v1/plan"] = (200, {**NOTHING, "problems": [problem]})
    code, out, _ = await inside("plan", str(tmp_path / "web.json"), "--api", node.url)
    assert code == 1
    assert "! PROBLEM services/web: port: a number" in out


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "expected a directory"),
        ({"a.json": "{"}, "a.json: expected a JSON object"),
        ({"a.json": "[]"}, "expected a JSON object"),
        ({"a.yaml": "a: b: c"}, "expected a YAML object"),
        ({"dump.json": '{"no": "dump"}'}, "expected a dump"),
        ({"a.json": '{"vip": "192.0.2.1"}', "a.yaml": "vip: 192.0.2.1"}, "services/a stands in another"),
        ({"services/web.json": "nonsense"}, "services/web.json: expected a JSON object"),
    ],
)
async def test_files_that_are_no_documents(node: Recorder, tmp_path: Path, files: dict[str, str], told: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    given = [str(tmp_path)] if len(files) < 2 else [str(tmp_path / name) for name in files]
    code, out, err = await inside("plan", *given, "--api", node.url)
    assert (code, out, node.written) == (1, "", [])
    assert told in err
