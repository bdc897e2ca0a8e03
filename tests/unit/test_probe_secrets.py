"""Secrets of checks: filled in from files right before they are sent, and shown nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from anycastlb.adapters.checks import PARAMS, types
from anycastlb.core.catalog.check import DocumentPath, parse_check
from anycastlb.core.model import Check, Result, SettingsError
from anycastlb.settings import ChecksSettings, parse
from tests.support.checks import run

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
SECRET = r"s3cret\word-of-the-shop"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "shop"
    file.write_text(f"{SECRET}\n")
    return file


def settings(secrets: Any) -> ChecksSettings:
    return ChecksSettings.model_validate({"secrets": secrets})


def check(port: int, **document: object) -> Check:
    where = DocumentPath("services/web", "check", PARAMS, {})
    return parse_check(where, {"type": "http", **document}, ip_address("127.0.0.1"), port, through=False)


@asynccontextmanager
async def backend(answer: bytes = OK) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and what came."""
    came: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(65536))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], came


SENT: dict[str, tuple[dict[str, Any], bytes]] = {
    "a header": ({"headers": {"Authorization": "Bearer ${secret:shop}"}}, f"Authorization: Bearer {SECRET}".encode()),
    "a body": ({"method": "POST", "send": "a=${secret:shop}&b"}, f"a={SECRET}&b".encode()),
    "over TCP": ({"type": "tcp", "send": "AUTH ${secret:shop}\\r\\n", "expect": "200"}, f"AUTH {SECRET}\r\n".encode()),
    "within others": ({"type": "all", "checks": [{"type": "http", "headers": {"X-Key": "${secret:shop}"}}]},
                      f"X-Key: {SECRET}".encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", SENT)
async def test_a_secret_is_sent_and_the_check_has_its_name_only(name: str, file: Path) -> None:
    document, expected = SENT[name]
    made = types(settings({"shop": str(file)}))
    async with backend() as (port, came):
        asked = check(port, **document)
        assert (await run(asked, made)).ok
        assert expected in came[0]
        assert SECRET not in repr(asked) and made[asked.type].lean(asked) is None


async def test_a_file_that_is_replaced_counts_at_the_next_probe(file: Path) -> None:
    made = types(settings({"shop": str(file)}))
    async with backend() as (port, came):
        asked = check(port, headers={"X-Key": "${secret:shop}"})
        await run(asked, made)
        file.write_text("another")
        await run(asked, made)
    assert [b"X-Key: another\r\n" in request for request in came] == [False, True]


ECHOES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "its beginning": (f"{SECRET} is wrong".encode(), {"type": "tcp", "expect": "OK"}),
    "cut off": (f"{'x' * 40} {SECRET} is wrong".encode(), {"type": "tcp", "expect": "OK"}),
    "as no HTTP": (SECRET.encode(), {"type": "http", "method": "POST"}),
    "in a redirect": (f"HTTP/1.1 302 X\r\nLocation: ftp://x/{SECRET}\r\n\r\n".encode(),
                      {"type": "http", "method": "POST", "redirects": 1}),
    "of an agent": (f"down #{SECRET}\n".encode(), {"type": "agent"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ECHOES)
async def test_an_echo_is_not_shown(name: str, file: Path) -> None:
    answer, document = ECHOES[name]
    made = types(settings({"shop": str(file)}))
    async with backend(answer) as (port, came):
        result: Result = await run(check(port, send="${secret:shop}\\n", **document), made)
    assert SECRET.encode() in came[0]
    assert not [part for part in ("s3cret", "word", "shop-") if part in result.detail]
    if name != "cut off":
        assert "(secret shop)" in result.detail


async def test_a_fault_of_a_probe_does_not_tell_it_either(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(check: Check, params: Any) -> Any:
        raise RuntimeError(f"cannot send {params.headers}")

    monkeypatch.setattr("anycastlb.adapters.checks.probe.web.start", broken)
    asked = check(1, headers={"X-Key": "${secret:shop}"})
    result = await run(asked, types(settings({"shop": str(file)})))
    assert result.detail.startswith("the probe failed: RuntimeError: cannot send") and "(secret shop)" in result.detail


@pytest.mark.parametrize(
    ("secrets", "told"),
    [
        ({}, "no secret 'shop'; name its file in [checks.secrets] of node.toml"),
        ({"shop": "/nowhere/shop"}, "cannot be read from /nowhere/shop: No such file or directory"),
        ({"shop": "EMPTY"}, "expected one line of printable text"),
        ({"shop": {"file": "FILE", "networks": "10.1.0.0/16"}}, "may not be sent to 127.0.0.1"),
    ],
)
async def test_what_cannot_be_filled_in_is_not_sent(secrets: Any, told: str, file: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    text = json.dumps(secrets).replace("EMPTY", str(tmp_path / "empty")).replace("FILE", str(file))
    async with backend() as (port, came):
        result = await run(check(port, headers={"X-Key": "${secret:shop}"}), types(settings(json.loads(text))))
    assert not result.ok and told in result.detail and "not tried" in result.detail
    assert came == []


def test_the_settings() -> None:
    least = '[node]\nvip_ranges = ["192.0.2.0/24"]\n[checks.secrets]\n'
    secrets = parse(least + 'shop = "/x"\ndb = {file = "/y", networks = ["10.1.0.0/16"]}').checks.secrets
    assert secrets["shop"].file == "/x" and str(secrets["db"].networks[0]) == "10.1.0.0/16"
    for wrong in ('shop = "x"', '"a b" = "/x"', "shop = 1", "shop = {networks = []}"):
        with pytest.raises(SettingsError, match="secrets"):
            parse(least + wrong)
