"""Real primary name servers on loopback ports that were free: Knot, and BIND where it is installed."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import pytest

from tests.lab.namespaces import Namespace
from tests.lab.process import GIVE_UP, freeze, thaw
from tests.support.ports import free_port

ZONE = "example.net"
SECRET = base64.b64encode(b"a secret that is not in any log!").decode()
OTHER = base64.b64encode(b"a secret of somebody else's!!!!!").decode()
ZONE_FILE = """$ORIGIN example.net.
$TTL 300
@ SOA ns.example.net. hostmaster.example.net. 1 3600 600 86400 5
@ NS ns
ns A 127.0.0.1
taken.lb A 10.9.9.9
alias.lb CNAME ns
text.lb TXT "somebody's"
"""
KNOT = """
server:
    listen: {address}@{port}
    rundir: {directory}
    pidfile: {directory}/knot.pid
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {directory}
key:
  - id: writer
    algorithm: hmac-sha256
    secret: {secret}
  - id: reader
    algorithm: hmac-sha256
    secret: {other}
acl:
  - id: may
    key: writer
    action: update
zone:
  - domain: {zone}
    storage: {directory}
    file: zone
    zonefile-sync: -1
    journal-content: none
    acl: [may]
"""
NAMED = """
key writer {{ algorithm hmac-sha256; secret "{secret}"; }};
key reader {{ algorithm hmac-sha256; secret "{other}"; }};
options {{
    directory "{directory}";
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    managed-keys-directory "{directory}";
    listen-on port {port} {{ {address}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    empty-zones-enable no;
    max-records-per-type 100;
}};
controls {{ }};
zone "{zone}" {{ type primary; file "zone"; allow-update {{ key writer; }}; }};
"""


class NameServer:
    """One primary of ``ZONE``. Its writer may update; its reader may only ask. ``namespace``: where it runs."""

    def __init__(
        self,
        program: str,
        directory: Path,
        address: str = "127.0.0.1",
        port: int = 0,
        namespace: Namespace | None = None,
    ) -> None:
        self.directory, self.address, self._namespace = directory, address, namespace
        self.port = port or free_port()
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.key_file = self.keep("writer", SECRET)
        form = NAMED if program.endswith("named") else KNOT
        text = form.format(address=address, port=self.port, directory=directory, secret=SECRET, other=OTHER, zone=ZONE)
        if "max-records-per-type" in text and not self._checked(text):
            text = text.replace("    max-records-per-type 100;\n", "")  # older than 9.18.28
        (directory / "conf").write_text(text)
        (directory / "zone").write_text(ZONE_FILE)

    def keep(self, name: str, secret: str, algorithm: str = "hmac-sha256") -> str:
        """A key file as tsig-keygen writes it."""
        path = self.directory / f"{name}.key"
        path.write_text(f'key "{name}" {{\n\talgorithm {algorithm};\n\tsecret "{secret}";\n}};\n')
        return str(path)

    def start(self) -> None:
        options = ["-f", "-c", "conf"] if self._program.endswith("named") else ["-c", "conf"]
        argv = [self._program, *options]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._namespace.argv(*argv) if self._namespace else argv,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 180
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{self._program} does not start: {(self.directory / 'log').read_text()[-2000:]}")
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

    def dig(self, name: str, kind: str = "A", timeout: float = GIVE_UP) -> list[str]:
        """What anybody is told."""
        query = dns.message.make_query(f"{name}.{ZONE}", kind)
        with self._namespace.inside() if self._namespace else nullcontext():
            answer = dns.query.udp(query, self.address, timeout=timeout, port=self.port)
        return sorted(record.to_text() for rrset in answer.answer for record in rrset)

    def ttl(self, name: str, kind: str = "A") -> int:
        query = dns.message.make_query(f"{name}.{ZONE}", kind)
        return int(dns.query.udp(query, self.address, timeout=GIVE_UP, port=self.port).answer[0].ttl)

    def update(self, name: str, records: Mapping[str, str]) -> None:
        """Somebody else with the key: these records, by type; with an empty text none of that type."""
        key = dns.tsig.Key("writer", base64.b64decode(SECRET), dns.tsig.HMAC_SHA256)
        message = dns.update.UpdateMessage(ZONE, keyring=key)
        for kind, text in records.items():
            message.delete(name, kind)
            if text:
                message.add(name, 60, kind, text)
        answer = dns.query.tcp(message, self.address, timeout=GIVE_UP, port=self.port)
        assert answer.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(answer.rcode())

    def _checked(self, text: str) -> bool:
        probe = self.directory / "probe"
        probe.write_text(text)
        checker = str(Path(self._program).with_name("named-checkconf"))
        for path in (checker, "/usr/bin/named-checkconf"):
            if Path(path).exists():
                return subprocess.run([path, str(probe)], capture_output=True, check=False).returncode == 0
        return False

    def _answers(self) -> bool:
        try:
            return bool(self.dig("ns", timeout=2.0))
        except (OSError, dns.exception.DNSException):
            return False
