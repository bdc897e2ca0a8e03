"""What HAProxy's answers say. Everything that is not as HAProxy 2.6 and 3.0 write it raises ``UnknownAnswer``. Pure."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from anycastlb.adapters.drivers.haproxy.errors import UnknownAnswer
from anycastlb.core.model import HttpServer, HttpServerKey, ServerState

SERVERS = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight "
"""How the second line of ``show servers state`` begins."""
PORT = 18
"""Its column, counted from 0."""
ALERT = re.compile(r"^\[ALERT\]\s+\(\d+\) : (.*(?:\n(?!\[).*)*)", re.MULTILINE)
"""One alert of HAProxy's, with the lines that go on with it."""
MAINT, DRAIN = 0x01 | 0x02 | 0x20 | 0x40, 0x08 | 0x10
"""Bits of ``srv_admin_state``: whatever holds all requests back, and all but those of known clients."""


@dataclass(frozen=True, slots=True)
class Info:
    """The process that answers."""

    pid: int
    version: tuple[int, int]
    description: str
    stopping: bool
    """It is the worker from before a reload, which only ends what it has."""

    @property
    def deletes_servers(self) -> bool:
        """``del server`` is safe: before 3.0 it frees a server that a request still waits for."""
        return self.version >= (3, 0)


def statistics(answer: str, names: Sequence[str]) -> list[list[str]]:
    """The columns of these names in each row of ``show stat``."""
    rows = csv.reader(answer.removeprefix("# ").splitlines())
    header = next(rows, [])
    try:
        places = [header.index(name) for name in names]
        return [[row[place] for place in places] for row in rows if row]
    except (IndexError, ValueError) as exc:
        raise UnknownAnswer(f"HAProxy listed its statistics as {answer[:200]!r}") from exc


def count(text: str) -> int:
    """A number of ``show stat``, which leaves empty what it does not count."""
    if text and not text.isdecimal():
        raise UnknownAnswer(f"HAProxy counted {text[:80]!r}")
    return int(text or "0")


def info(answer: str) -> Info:
    fields = dict(line.partition(": ")[::2] for line in answer.splitlines())
    version = re.match(r"(\d+)\.(\d+)", fields.get("Version", ""))
    if version is None or not fields.get("Pid", "").isdigit():
        raise UnknownAnswer(f"HAProxy answered show info with {_shown(answer)}")
    stopping = fields.get("Stopping", "0") != "0"
    return Info(int(fields["Pid"]), (int(version[1]), int(version[2])), fields.get("description", ""), stopping)


def map_sizes(answer: str) -> dict[str, int]:
    """How many entries each map has, by its file: ``show map``."""
    sizes = {}
    for line in answer.splitlines():
        if line.startswith("#"):
            continue
        found = re.match(r"-?\d+ \(([^)]+)\) .* entry_cnt=(\d+)$", line)
        if found is None:
            raise UnknownAnswer(f"HAProxy listed a map as {_shown(line)}")
        sizes[found[1]] = int(found[2])
    return sizes


def entries(answer: str) -> Iterator[tuple[str, str]]:
    """The keys and values of a map, in HAProxy's order. A key may be there more than once."""
    for line in answer.splitlines():
        parts = line.split(" ", 2)
        if len(parts) != 3 or not parts[0].startswith("0x"):
            raise UnknownAnswer(f"HAProxy listed an entry of a map as {_shown(line)}")
        yield parts[1], parts[2]


def servers(answer: str) -> dict[HttpServerKey, HttpServer]:
    """Every server, without its ``maxconn``, which HAProxy does not list here."""
    version, heading, *lines = [*answer.splitlines(), "", ""]
    if version != "1" or not heading.startswith(SERVERS):
        raise UnknownAnswer(f"HAProxy listed its servers as {_shown(answer)}")
    rows = {}
    for line in lines:
        columns = line.split(" ")
        if len(columns) > PORT:
            key, row = _server(columns[1], columns[3], columns[4], columns[6], columns[7], columns[PORT])
            rows[key] = row
        elif line:
            raise UnknownAnswer(f"HAProxy listed a server as {_shown(line)}")
    return rows


@lru_cache(maxsize=65_536)
def _server(
    section: str, server: str, address: str, admin: str, weight: str, port: str
) -> tuple[HttpServerKey, HttpServer]:
    """Most servers are as they were at the last look."""
    try:
        row = HttpServer(ip_address(address), int(port), int(weight), _state(int(admin)))
    except ValueError as exc:
        raise UnknownAnswer(
            f"HAProxy listed server {section}/{server} with {address}, {admin}, {weight}, {port}"
        ) from exc
    return HttpServerKey(section, server), row


def _state(admin: int) -> ServerState:
    return "maint" if admin & MAINT else "drain" if admin & DRAIN else "ready"


def files(answer: str) -> list[str]:
    """The files of certificates, or lists of them: ``show ssl cert`` and ``show ssl crt-list``."""
    lines = [line for line in answer.splitlines() if line and not line.startswith(("#", "*"))]
    if wrong := [line for line in lines if not line.startswith("/")]:
        raise UnknownAnswer(f"HAProxy listed a file as {_shown(wrong[0])}")
    return [line.split(" ")[0] for line in lines]


def fingerprint(answer: str) -> str:
    """Of a certificate, SHA-1 in lower case; empty if there is none yet."""
    found = re.search(r"^SHA1 FingerPrint: ([0-9A-F]{40})$", answer, re.MULTILINE)
    if found is None and "Filename: " not in answer:
        raise UnknownAnswer(f"HAProxy answered show ssl cert with {_shown(answer)}")
    return found[1].lower() if found else ""


@dataclass(frozen=True, slots=True)
class Processes:
    """``show proc`` of the master."""

    reloads: int
    failed: int
    """Reloads since the last one that worked."""
    workers: tuple[tuple[int, int], ...]
    """Each worker's pid, and how many reloads it is old."""

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(pid for pid, _ in self.workers)

    def reloaded(self, before: Processes) -> bool | None:
        """Has the reload worked that was asked for when the processes were these? None: it is not over."""
        if self.failed and self.reloads > before.reloads:
            return False
        return any(age == 0 and pid not in before.pids for pid, age in self.workers) or None


def processes(answer: str) -> Processes:
    found = re.search(r"^\d+\s+master\s+(\d+) \[failed: (\d+)\]", answer, re.MULTILINE)
    if found is None:
        raise UnknownAnswer(f"HAProxy's master answered show proc with {_shown(answer)}")
    workers = re.findall(r"^(\d+)\s+worker\s+(\d+)\s", answer, re.MULTILINE)
    return Processes(int(found[1]), int(found[2]), tuple((int(pid), int(age)) for pid, age in workers))


def alerts(output: str) -> str:
    """What HAProxy has against its configuration, in its own words and in one line."""
    said = [" ".join(alert.split()) for alert in ALERT.findall(output)]
    telling = [alert for alert in said if "Error(s) found" not in alert and "Fatal errors found" not in alert]
    return "; ".join(telling or said)[:1000] or " ".join(output.split())[:1000]


def _shown(text: str) -> str:
    return repr(text[:80])
