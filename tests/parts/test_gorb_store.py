"""What a real Consul exports of GORB's keys is what the converter reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from anycastlb.cli import formats
from tests.support.consul import Agent
from tests.support.gorb_store import SERVICE, exported


def test_an_export_of_consul_is_read(agent: Agent, require: Callable[[str], str]) -> None:
    backend = {"host": "10.1.0.1", "port": 80, "vsid": "web"}
    store = {"lb/services/web": SERVICE, "lb/services/wéb": {}, "lb/backends/b1": backend, "lb/gorblock": "gorb"}
    for key, value in {**store, "other/services/no": SERVICE}.items():
        agent.put(key, value if isinstance(value, str) else json.dumps(value))
    argv = [require("consul"), "kv", "export", f"-http-addr={agent.address}", "lb/"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    documents, notes = formats.read(text)
    assert documents.keys() == {"services/web", "services/web/backends/b1"}
    assert notes == ["service 'wéb': nothing here can have that name; left out"]
    assert formats.read(exported(dict(sorted(store.items())))) == (documents, notes)
