"""The API over a directory: what is written there is what the file source reads."""

from __future__ import annotations

import json
from pathlib import Path

from anycastlb.adapters.sources.file import FileSource
from anycastlb.adapters.sources.file_store import FileStore
from anycastlb.core.model import Snapshot
from tests.support.serving import go, serving

WEB = {"vip": "192.0.2.10", "port": 80}


async def test_documents_over_http_are_files(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "dns.toml").write_text('vip = "192.0.2.11"\nport = 53\n')
    async with serving(Snapshot(), store=FileStore(str(tmp_path))) as served:
        assert (await go(served, "PUT", "/v1/services/web", WEB)).status == 201
        assert json.loads((tmp_path / "services" / "web.json").read_text()) == WEB
        assert (await go(served, "PUT", "/v1/services/web/backends/b1", {"address": "10.0.0.1"})).status == 201
        assert (await go(served, "PATCH", "/v1/services/dns", {"drain": "5s"})).status == 200
        assert not (tmp_path / "services" / "dns.toml").exists(), "changed, it is JSON, and not there twice"
        assert (await go(served, "PUT", "/v1/services/bad", {"vip": "192.0.2.12"})).status == 422
        tree = await FileSource(tmp_path).read(None)
        assert set(tree.entries) == {"services/web", "services/web/backends/b1", "services/dns"}
        assert json.loads(tree.entries["services/dns"].value) == {"vip": "192.0.2.11", "port": 53, "drain": "5s"}
        (tmp_path / "services" / "web.json").write_text(json.dumps({**WEB, "port": 81}))
        assert (await go(served, "GET", "/v1/services/web")).view["port"] == 81, "written by hand, and seen at once"
        assert (await go(served, "DELETE", "/v1/services/web")).status == 200
        assert set((await FileSource(tmp_path).read(None)).entries) == {"services/dns"}
