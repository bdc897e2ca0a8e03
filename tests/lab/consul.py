"""The lab's Consul: one real server with its data on disk, so that it can be killed and come back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.lab.http import request
from tests.lab.namespaces import LabError, Namespace
from tests.lab.process import Process
from tests.lab.topology import CONSUL, ROLES

PORT = 8500


class ConsulServer:
    address = f"http://{CONSUL}:{PORT}"

    def __init__(self, program: str, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.program = program
        settings = directory / "consul.json"
        settings.write_text(
            json.dumps({**json.loads((ROLES / "consul.json").read_text()), "data_dir": str(directory / "consul")})
        )
        argv = [program, "agent", f"-config-file={settings}"]
        self.process = Process("consul", namespace, argv, directory / "consul.log")

    def start(self) -> None:
        self.process.start()

    def ready(self) -> None:
        """Wait until it has a leader: writes are taken."""
        self.process.until(self._leads, "Consul has a leader")

    def _leads(self) -> bool:
        try:
            status, body = request(self.namespace, "GET", CONSUL, PORT, "/v1/status/leader")
            return status == 200 and len(body.strip()) > 2 and self._call("PUT", "/v1/kv/lab/ready", b"1") == "true"
        except (OSError, LabError):
            return False

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.end()

    def put(self, key: str, value: Any) -> None:
        """``consul kv put``: bytes and text as they are, anything else as JSON."""
        raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        if self._call("PUT", f"/v1/kv/{quote(key)}", raw) != "true":
            raise LabError(f"Consul refused the value of {key}")

    def delete(self, key: str, below: bool = False) -> None:
        self._call("DELETE", f"/v1/kv/{quote(key)}" + ("?recurse" if below else ""))

    def value(self, key: str) -> bytes | None:
        status, body = request(self.namespace, "GET", CONSUL, PORT, f"/v1/kv/{quote(key)}")
        return base64.b64decode(json.loads(body)[0]["Value"] or "") if status == 200 else None

    def everything(self) -> bytes:
        """All values that it has, one a line, with their keys."""
        entries = json.loads(self._call("GET", "/v1/kv/?recurse"))
        return b"\n".join(one["Key"].encode() + b" " + base64.b64decode(one["Value"] or "") for one in entries)

    def _call(self, method: str, path: str, body: bytes = b"") -> str:
        status, answer = request(self.namespace, method, CONSUL, PORT, path, body)
        if status != 200:
            raise LabError(f"Consul answered {method} {path} with {status}: {answer[:200]}")
        return answer.strip()
