"""Tables of services, what counts as unhealthy, where the node is looked for, and what a shell is offered."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anycastlb.cli import edits, ipvsadm_options
from anycastlb.cli.location import Location
from anycastlb.cli.render import exit_code, style, tables
from anycastlb.core.model import Feed, Snapshot, Speaker
from anycastlb.serving.views.status import status_view
from tests.support import scene
from tests.support.recording import recording
from tests.support.serving import command, inside, serving

GOLDEN = Path(__file__).parent / "golden"


def view(snapshot: Snapshot) -> dict[str, Any]:
    return status_view(snapshot, scene.NOW, scene.SOURCE)


@pytest.mark.parametrize("name", ["trouble", "calm", "subtle"])
def test_the_list_of_services(name: str) -> None:
    text = style.plain(tables.listed(view(getattr(scene, name)())))
    file = GOLDEN / f"list-{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


async def test_service_list_server_list_and_list_are_that_table() -> None:
    async with serving(scene.trouble()) as served:
        for words in (("service", "list"), ("server", "list"), ("list",), ("service", "ls"), ("services", "list")):
            code, out, err = await inside(*words, "--api", served.url)
            assert (code, err, out) == (0, "", (GOLDEN / "list-trouble.txt").read_text())
        code, out, _ = await inside("service", "list", "mail", "--api", served.url)
        assert [line.split()[0] for line in out.splitlines()] == ["ID", "->", "mail", "->"]
        code, out, _ = await inside("service", "list", "api", "--api", served.url)
    assert out.startswith("! PROBLEM services/api: ")


async def test_service_show_is_the_state_and_the_document() -> None:
    document = {"vip": "192.0.2.10", "port": 80}
    answers = {"GET /v1/services/web": (200, document), "GET /v1/status": (200, view(scene.calm()))}
    async with recording(answers) as node:
        code, out, _ = await inside("service", "show", "web", "--api", node.url)
    table, _, rest = out.partition("\n\n")
    assert code == 0
    assert table + "\n" == (GOLDEN / "list-calm.txt").read_text()
    assert rest == "vip: 192.0.2.10\nport: 80\n"


# ---------------------------------------------------------------- unhealthy


def well() -> Snapshot:
    snapshot = scene.calm()
    judged = {key: replace(one, up=True) for key, one in snapshot.decision.backends.items()}
    return replace(snapshot, decision=replace(snapshot.decision, backends=judged))


def test_a_node_that_is_well_has_no_troubles() -> None:
    assert list(exit_code.troubles(view(well()))) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cycle": 0}, "has not looked at itself"),
        ({"at": scene.NOW - 100}, "has not looked at itself"),
        ({"speaker": Speaker()}, "BGP bridge is not connected"),
        ({"actual": replace(well().actual, routes={})}, "192.0.2.10 is withdrawn"),
        ({"inputs": replace(well().inputs, stopping=True)}, "stopping"),
        ({"inputs": replace(well().inputs, feed=Feed(False, 0.0, loaded=True))}, "source is not connected"),
    ],
)
def test_each_trouble_by_itself(change: dict[str, Any], told: str) -> None:
    troubles = list(exit_code.troubles(view(replace(well(), **change))))
    assert any(told in one for one in troubles), troubles


def test_all_troubles_at_once() -> None:
    troubles = list(exit_code.troubles(view(scene.trouble())))
    for told in ("a catalog is held", "BGP session 2001:db8:0:1::1 is down", "web/web3 is down",
                 "192.0.2.11 is withdrawn", "services/api is quarantined",
                 "tcp 192.0.2.12:25 was refused"):  # fmt: skip
        assert any(told in one for one in troubles), told
    assert not any("192.0.2.13" in one for one in troubles), "what leaves is meant to"


# ---------------------------------------------------------------- where the node is


def test_the_socket_of_the_settings_if_it_is_there_else_the_address(tmp_path: Path) -> None:
    config, path = tmp_path / "node.toml", tmp_path / "api.sock"
    config.write_text(f'[api]\nsocket = "{path}"\nlisten = "127.0.0.1:5"\n')
    where = Location(config=str(config))
    assert where.url == "http://127.0.0.1:5"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert where.url == f"unix://{path}"
        assert replace(where, api="192.0.2.1:80").url == "http://192.0.2.1:80"
        assert replace(where, api="https://lb1.example.org").url == "https://lb1.example.org"
        assert replace(where, socket="/run/x.sock", api="192.0.2.1:80").url == "unix:///run/x.sock"
    config.write_text('[api]\nsocket = ""\nlisten = "127.0.0.1:6"\n')
    assert where.url == "http://127.0.0.1:6"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ('listen = ["10.0.0.1:443", "[::1]:5"]', "http://[::1]:5"),
        ('listen = ["10.0.0.1:443"]\ntls_cert_file = "/x.pem"', "https://10.0.0.1:443"),
        ('listen = ":443"\ntls_cert_file = "/x.pem"', "https://127.0.0.1:443"),
        ('listen = ["10.0.0.1:443", "127.0.0.1:5"]\ntls_cert_file = "/x.pem"', "http://127.0.0.1:5"),
    ],
)
def test_of_several_addresses_the_loopback_and_tls_elsewhere(tmp_path: Path, settings: str, url: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f'[api]\nsocket = ""\n{settings}\n')
    assert Location(config=str(config)).url == url


async def test_a_command_over_a_unix_socket_with_a_token_from_the_environment(tmp_path: Path) -> None:
    path, secret = tmp_path / "api.sock", tmp_path / "token"
    secret.write_text("s3cret\n")
    answers = {"GET /v1/export": (200, {"catalog": {}})}
    async with recording(answers, socket=path) as node:
        code, _, err = await command("export", "--socket", str(path), ANYCASTLB_TOKEN_FILE=str(secret))
        assert (code, err) == (0, "")
        code, _, err = await command("export", ANYCASTLB_API=f"unix://{path}")
        assert (code, err) == (0, "")
        code, _, err = await command("export", "--socket", str(path), "--token-file", str(tmp_path / "none"))
        assert (code, err.count("\n")) == (1, 1)
        assert "token file" in err
    assert [request.headers.get("Authorization") for request in node.asked] == ["Bearer s3cret", None]


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.10:80", ("192.0.2.10", 80)),
        ("192.0.2.10", ("192.0.2.10", None)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("2001:DB8::1", ("2001:db8::1", None)),
        ("192.0.2.10:0", ("192.0.2.10", 0)),
    ],
)
def test_addresses(text: str, found: tuple[str, int | None]) -> None:
    assert ipvsadm_options.endpoint(text) == found
    assert ipvsadm_options.endpoint(ipvsadm_options.written(*found)) == found


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"weight": 100}, {"weight": 50}, "weight 100 → 50"),
        ({}, {"drain": True}, "drain → true"),
        ({"drain": True}, {}, "drain true → default"),
        (None, {"vip": ["192.0.2.1", "192.0.2.2"], "check": {"type": "http"}}, "vip 192.0.2.1 192.0.2.2, "
         "check.type http"),
        ({"check": {"path": "/a"}}, {"check": {"path": "/b"}}, "check.path /a → /b"),
        ({"a": []}, {"a": ""}, ""),
        ({"check": {}}, {"check": {"type": "tcp"}}, "check none → default, check.type → tcp"),
    ],
)  # fmt: skip
def test_a_difference_in_words(before: dict[str, Any] | None, after: dict[str, Any], told: str) -> None:
    assert edits.difference(before, after) == told


# ---------------------------------------------------------------- completion


async def offered(*words: str, **environment: str) -> list[str]:
    """What a shell that uses our completion would offer for the last word."""
    line = " ".join(("anycastlb", *words))
    code, out, err = await command(
        **environment, _ANYCASTLB_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words))
    )
    assert (code, err) == (0, "")
    return [text.partition(",")[2] for text in out.splitlines() if text]


async def test_names_come_from_the_running_node() -> None:
    async with serving(scene.trouble()) as served:
        here = {"ANYCASTLB_API": served.url}
        assert await offered("why", "w", **here) == ["web"]
        assert await offered("why", "192.0.2.11", **here) == ["192.0.2.11"]
        assert await offered("why", "web/web1", **here) == ["web/web1", "web/web1-v6"]
        assert await offered("ser", **here) == ["server", "service"]
    answers: dict[str, tuple[int, Any]] = {
        "GET /v1/services": (200, {"web": {}, "dns": {}}),
        "GET /v1/services/web": (200, {"backends": {"web1": {}, "web2": {}}}),
        "GET /v1/nodes": (200, {"nodes": [{"name": "lb1"}, {"name": "lb2"}]}),
    }
    async with recording(answers) as node:
        here = {"ANYCASTLB_API": node.url}
        assert await offered("service", "edit", "w", **here) == ["web"]
        assert await offered("server", "drain", "d", **here) == ["dns"]
        assert await offered("server", "drain", "web", "web", **here) == ["web1", "web2"]
        assert await offered("drain", "lb", **here) == ["lb1", "lb2"]


async def test_without_a_node_nothing_is_offered_and_nothing_said() -> None:
    async with recording() as gone:
        pass
    assert await offered("why", "w", ANYCASTLB_API=gone.url) == []
    assert await offered("service", "edit", "w", "--config", "/nonexistent", ANYCASTLB_API="") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_of_each_shell(shell: str, tmp_path: Path) -> None:
    code, out, err = await command("completion", shell)
    assert (code, err) == (0, "")
    assert f"_ANYCASTLB_COMPLETE={shell}_complete" in out
    if shell == "bash":
        file = tmp_path / "completion"
        file.write_text(out)
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", f". {file} && complete -p anycastlb"], capture_output=True, text=True
        )
        assert "_anycastlb_completion" in done.stdout, done.stderr


async def test_bash_itself_completes_a_name(tmp_path: Path) -> None:
    """The whole way: bash, our script, a process of ours, the node."""
    script, program = tmp_path / "completion", tmp_path / "anycastlb"
    script.write_text((await command("completion", "bash"))[1])
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m anycastlb "$@"\n')
    program.chmod(0o755)
    ask = (
        f". {script}; COMP_WORDS=(anycastlb why w); COMP_CWORD=2; _anycastlb_completion anycastlb; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    async with serving(scene.trouble()) as served:
        env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ANYCASTLB_API": served.url}
        done = await asyncio.to_thread(
            subprocess.run, ["bash", "-c", ask], capture_output=True, text=True, env=env, cwd=Path(__file__).parents[2]
        )
    assert (done.stdout, done.stderr) == ("web\n", "")
