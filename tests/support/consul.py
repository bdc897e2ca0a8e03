"""A real Consul server on loopback ports that were free, and the hand that registers instances with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.lab.process import freeze, thaw
from tests.support.ports import free_ports

ROOT_TOKEN = "5f0c1c9e-2f3a-4b5e-9d3c-000000000001"


class Agent:
    """One real Consul server on loopback. ``keep``: its data outlives a ``kill``, unless it is to start ``empty``."""

    def __init__(self, program: str, directory: Path, keep: bool = False, **config: Any) -> None:
        self.directory = directory
        self.keep = keep
        self.token = ""
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.port, self.https, server, serf = free_ports(4)
        ports = {"http": self.port, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1}
        tls = "verify_incoming_https" in config
        document = {
            "server": True, "bootstrap_expect": 1, "node_name": "test", "data_dir": str(directory / "data"),
            "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "disable_update_check": True, "log_level": "WARN",
            "performance": {"raft_multiplier": 1}, "ports": ports | ({"https": self.https} if tls else {}),
        }  # fmt: skip
        (directory / "consul.json").write_text(json.dumps(document | config))

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, empty: bool = False) -> None:
        if empty or not self.keep:
            shutil.rmtree(self.directory / "data", ignore_errors=True)
        log = (self.directory / "consul.log").open("ab")
        argv = [self._program, "agent", f"-config-file={self.directory / 'consul.json'}"]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + 180
        while not self._leads():
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"Consul does not start: {(self.directory / 'consul.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        assert self._process is not None
        thaw(self._process.pid)

    def put(self, key: str, value: str | bytes) -> None:
        assert self.call("PUT", f"/v1/kv/{quote(key)}", value) == b"true"

    def delete(self, key: str, below: bool = False) -> None:
        self.call("DELETE", f"/v1/kv/{quote(key)}" + ("?recurse" if below else ""))

    def emptied(self) -> None:
        """It runs, keeps its data, and has none: no key, no session, no service, no node but its own."""
        self.keep = True
        if self._process is None:
            self.start()
        self.delete("", below=True)
        for session in json.loads(self.call("GET", "/v1/session/list")):
            self.call("PUT", f"/v1/session/destroy/{session['ID']}")
        for service in json.loads(self.call("GET", "/v1/agent/services")):
            self.call("PUT", f"/v1/agent/service/deregister/{quote(service, safe='')}")
        for node in json.loads(self.call("GET", "/v1/catalog/nodes")):
            if node["Node"] != "test":
                self.call("PUT", "/v1/catalog/deregister", json.dumps({"Node": node["Node"]}))

    def call(self, method: str, path: str, body: str | bytes = b"") -> bytes:
        # Consul counts the connections of each client by its address: a test's are not counted with those of its node.
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=("127.0.0.2", 0))
        try:
            raw = body.encode() if isinstance(body, str) else body
            connection.request(method, path, raw, {"X-Consul-Token": self.token} if self.token else {})
            response = connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise OSError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
            return answer
        finally:
            connection.close()

    def _leads(self) -> bool:
        try:
            self.put("ready", "1")
            self.delete("ready")
        except (OSError, AssertionError):
            return False
        return True


@contextmanager
def under_acl(program: str, folder: Path) -> Iterator[Agent]:
    """A Consul that denies what no policy allows; the agent speaks with the token that may everything."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": ROOT_TOKEN}}
    agent = Agent(program, folder, acl=acl, primary_datacenter="dc1")
    agent.token = ROOT_TOKEN
    agent.start()
    yield agent
    agent.kill()


class Registry:
    """The hand that registers instances with an agent."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def register(self, number: int, service: str = "web", status: str = "passing", **fields: Any) -> None:
        """Instance ``web<number>`` at 10.1.0.<number>, with one check that is set by hand."""
        name = f"{service}{number}"
        document = {
            "ID": name, "Name": service, "Address": f"10.1.0.{number}", "Port": 8080,
            "Check": {"CheckID": f"check-{name}", "TTL": "1h", "Status": status}, **fields,
        }  # fmt: skip
        self.agent.call("PUT", "/v1/agent/service/register", json.dumps(document))
        self.set(number, status, service)  # only what is set outlives a restart of the agent

    def deregister(self, *numbers: int, service: str = "web") -> None:
        """All of them in one transaction of the catalog, as when a server forgets them, then at the agent."""
        operations = [
            {"Service": {"Verb": "delete", "Node": "test", "Service": {"Service": service, "ID": f"{service}{number}"}}}
            for number in numbers
        ]
        self.agent.call("PUT", "/v1/txn", json.dumps(operations))
        for number in numbers:
            self.agent.call("PUT", f"/v1/agent/service/deregister/{service}{number}")

    def set(self, number: int, status: str, service: str = "web") -> None:
        body = json.dumps({"Status": status})
        self.agent.call("PUT", f"/v1/agent/check/update/check-{service}{number}", body)

    def put(self, document: Any, service: str = "web") -> None:
        self.agent.put(f"anycastlb/services/{service}", json.dumps(document))
