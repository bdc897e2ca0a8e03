"""A HAProxy in memory: the fake behind ``Runtime``, for speed and for faults.

It starts with the files that the driver writes, answers the commands that the driver uses as HAProxy does, and forgets
in a reload what HAProxy forgets. It passes the same contract tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import get_args

from anycastlb.adapters.certificates import fingerprint
from anycastlb.adapters.drivers.haproxy.answers import SERVERS
from anycastlb.adapters.drivers.haproxy.entries import OF_PATTERNS
from anycastlb.adapters.drivers.haproxy.errors import Away
from anycastlb.adapters.drivers.haproxy.installation import MAPS, Installation
from anycastlb.core.model import HttpServer, HttpServerKey, ServerState

ADMIN: Mapping[ServerState, int] = {"ready": 0, "maint": 1, "drain": 8}
SERVER = re.compile(r"  server (\S+) (\S+):(\d+) weight (\d+)(?: maxconn (\d+))?( disabled)?")
DONE = ""


@dataclass
class _Worker:
    """What one worker has, from its files and from commands since."""

    pid: int
    description: str = ""
    sections: frozenset[str] = frozenset()
    maps: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    servers: dict[HttpServerKey, HttpServer] = field(default_factory=dict)
    certificates: dict[str, str] = field(default_factory=dict)
    """Files, and their contents."""
    lists: dict[str, list[str]] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    """Certificates that were set and not committed."""


class MemoryHaproxy:
    """Stands until it is started. ``refuses`` is what it has against a configuration, by its text."""

    def __init__(
        self,
        installation: Installation,
        version: str = "3.0.11",
        on_end: Callable[[], None] = lambda: None,
        refuses: Callable[[str], str] = lambda text: "",
    ) -> None:
        self.files, self.version, self.on_end, self.refuses = installation, version, on_end, refuses
        self.worker: _Worker | None = None
        self.busy: set[HttpServerKey] = set()
        """Servers with a connection."""
        self.reloads = 0
        self.stopped = False
        """It answers nothing, as after SIGSTOP."""
        self.hidden = False
        """Its socket was removed: only who was connected before is answered."""
        self.connected = False
        """The driver is, and hears of its end."""

    # ------------------------------------------------------------ as systemd and the operator have it

    def start(self) -> None:
        self.reloads += 1
        self.worker = self._started(self.reloads)

    def kill(self) -> None:
        self.worker = None
        was_connected, self.connected = self.connected, False
        if was_connected:
            self.on_end()

    # ------------------------------------------------------------ as the driver has it

    async def connect(self) -> None:
        self._listen()
        self.connected = True

    async def ask(self, commands: Sequence[str]) -> list[str]:
        await self.connect()
        return [self._answer(command) for command in commands]

    async def probe(self) -> int:
        if self.hidden:
            raise Away("its socket is not there")
        return self._listen().pid

    def gone(self) -> bool:
        return self.worker is None

    def _listen(self) -> _Worker:
        if self.worker is None:
            raise Away("nobody has started it")
        if self.stopped:
            raise Away("it does not answer", silent=True)
        return self.worker

    async def check(self, config: Path) -> str:
        return self._check(config)

    async def reload(self) -> str:
        self._listen()
        if why := self._check(self.files.config):
            return why
        self.start()
        return ""

    def close(self) -> None:
        self.connected = False

    # ------------------------------------------------------------ files

    def _check(self, config: Path) -> str:
        text = config.read_text()
        lists = set(re.findall(r"crt-list (\S+)", text))
        missing = [path for path in lists if not Path(path).exists()]
        missing += [file for path in lists - {*missing} for file in _lines(path) if not Path(file).exists()]
        return f"cannot open {missing[0]}" if missing else self.refuses(text)

    def _started(self, pid: int) -> _Worker:
        text = self.files.config.read_text()
        said = re.search(r'^  description "(.*)"$', text, re.MULTILINE)
        worker = _Worker(pid, said[1] if said else "", frozenset(re.findall(r"^backend (\S+)", text, re.MULTILINE)))
        for name in ("site", *MAPS):
            path = str(self.files.map(name))
            worker.maps[path] = [_entry(line) for line in _lines(path)]
        for path in re.findall(r"crt-list (\S+)", text):
            worker.lists[path] = _lines(path)
            worker.certificates |= {file: Path(file).read_text() for file in worker.lists[path]}
        section = ""
        for line in text.splitlines():
            section = line.split()[1] if line.startswith("backend ") else section
            if found := SERVER.fullmatch(line):
                name, address, port, weight, maxconn, disabled = found.groups()
                row = HttpServer(ip_address(address.strip("[]")), int(port), int(weight), maxconn=int(maxconn or 0))
                worker.servers[HttpServerKey(section, name)] = replace(row, state="maint") if disabled else row
        return worker

    # ------------------------------------------------------------ commands

    def _answer(self, command: str) -> str:
        line, _, payload = command.partition(" <<\n")
        words = shlex.split(line)
        name = "_" + "_".join(words[:2])
        verbs: Mapping[str, Callable[[_Worker, list[str], str], str]] = {
            "_show_info": self._show_info, "_show_map": self._show_map, "_show_servers": self._show_servers,
            "_show_ssl": self._show_ssl, "_add_map": self._add_map, "_set_map": self._set_map,
            "_del_map": self._del_map, "_clear_map": self._clear_map, "_add_server": self._add_server,
            "_set_server": self._set_server, "_set_maxconn": self._set_maxconn, "_del_server": self._del_server,
            "_new_ssl": self._new_ssl, "_set_ssl": self._set_ssl, "_commit_ssl": self._commit_ssl,
            "_add_ssl": self._add_ssl, "_del_ssl": self._del_ssl,
        }  # fmt: skip
        assert self.worker, "it was connected to"
        return verbs[name](self.worker, words[2:], payload) if name in verbs else f"Unknown command: '{line}'"

    def _show_info(self, worker: _Worker, words: list[str], payload: str) -> str:
        return f"Version: {self.version}\nPid: {worker.pid}\ndescription: {worker.description}\nStopping: 0"

    def _show_map(self, worker: _Worker, words: list[str], payload: str) -> str:
        if not words:
            return "\n".join(
                f"{place} ({path}) pattern loaded from file. curr_ver=0 next_ver=0 entry_cnt={len(entries)}"
                for place, (path, entries) in enumerate(worker.maps.items())
            )
        if words[0] not in worker.maps:
            return "Unknown map identifier. Please use #<id> or <file>."
        return "\n".join(f"0x{place:x} {key} {value}" for place, (key, value) in enumerate(worker.maps[words[0]]))

    def _add_map(self, worker: _Worker, words: list[str], payload: str) -> str:
        for line in payload.splitlines() or [" ".join(words[1:])]:
            key, value = _entry(line)
            if self._is_bad_regex(words[0], key):
                return f"regex '{key}' is invalid (error=missing closing parenthesis, erroffset=1)."
            worker.maps[words[0]].append((key, value))
        return DONE

    def _is_bad_regex(self, path: str, key: str) -> bool:
        regexes = [str(self.files.map(name)) for name in MAPS if name.startswith(OF_PATTERNS)]
        return path in regexes and key.count("(") - key.count(r"\(") != key.count(")") - key.count(r"\)")

    def _set_map(self, worker: _Worker, words: list[str], payload: str) -> str:
        path, key, value = words
        entries = worker.maps[path]
        if key not in dict(entries):
            return "entry not found."
        worker.maps[path] = [(one, value if one == key else old) for one, old in entries]
        return DONE

    def _del_map(self, worker: _Worker, words: list[str], payload: str) -> str:
        path, key = words
        if key not in dict(worker.maps[path]):
            return "Key not found."
        worker.maps[path] = [entry for entry in worker.maps[path] if entry[0] != key]
        return DONE

    def _clear_map(self, worker: _Worker, words: list[str], payload: str) -> str:
        worker.maps[words[0]] = []
        return DONE

    def _show_servers(self, worker: _Worker, words: list[str], payload: str) -> str:
        lines = ["1", f"{SERVERS}..."]
        for key, row in worker.servers.items():
            if words[1:] in ([], [key.section]):
                first = f"1 {key.section} 1 {key.server} {row.address} 2 {ADMIN[row.state]} {row.weight}"
                lines.append(f"{first} {row.weight} 0 1 0 0 0 0 0 0 - {row.port} - 0 0 - - 0")
        return "\n".join(lines)

    def _add_server(self, worker: _Worker, words: list[str], payload: str) -> str:
        key = _key(words[0])
        if key.section not in worker.sections:
            return "No such backend."
        if key in worker.servers:
            return "Already exists a server with the same name in backend."
        address, _, port = words[1].rpartition(":")
        options = dict(zip(words[2::2], map(int, words[3::2]), strict=True))
        row = HttpServer(ip_address(address.strip("[]")), int(port), options.get("weight", 1), "maint")
        worker.servers[key] = replace(row, maxconn=options.get("maxconn", 0))
        return "New server registered."

    def _set_server(self, worker: _Worker, words: list[str], payload: str) -> str:
        key, what, value, *more = _key(words[0]), *words[1:]
        row = worker.servers.get(key)
        if row is None:
            return "No such server."
        if what == "state" and value in get_args(ServerState):
            states: Mapping[str, ServerState] = {"ready": "ready", "maint": "maint", "drain": "drain"}
            worker.servers[key] = replace(row, state=states[value])
        elif what == "weight" and 0 <= int(value) <= 256:
            worker.servers[key] = replace(row, weight=int(value))
        elif what == "addr":
            worker.servers[key] = replace(row, address=ip_address(value), port=int(more[1]))
            return f"IP changed from '{row.address}' to '{value}', port changed by 'stats socket command'"
        else:
            return f"'set server <srv> {what}' expects something else than '{value}'."
        return DONE

    def _set_maxconn(self, worker: _Worker, words: list[str], payload: str) -> str:
        key = _key(words[1])
        worker.servers[key] = replace(worker.servers[key], maxconn=int(words[2]))
        return DONE

    def _del_server(self, worker: _Worker, words: list[str], payload: str) -> str:
        key = _key(words[0])
        if worker.servers[key].state != "maint":
            return "Only servers in maintenance mode can be deleted."
        if key in self.busy:
            return "Server still has connections attached to it, cannot remove it."
        del worker.servers[key]
        return "Server deleted."

    def _show_ssl(self, worker: _Worker, words: list[str], payload: str) -> str:
        known: Mapping[str, Sequence[str]] = (
            worker.lists if words[0] == "crt-list" else dict.fromkeys(worker.certificates, ())
        )
        if len(words) == 1:
            return "\n".join(["# filename", *known])
        if words[1] not in known:
            return "Can't display the certificate: Not found or the certificate is a bundle!"
        if words[0] == "crt-list":
            return "\n".join([f"# {words[1]}", *known[words[1]]])
        return f"Filename: {words[1]}\nSHA1 FingerPrint: {fingerprint(worker.certificates[words[1]]).upper()}"

    def _new_ssl(self, worker: _Worker, words: list[str], payload: str) -> str:
        if words[1] in worker.certificates:
            return f"Certificate '{words[1]}' already exists!"
        worker.certificates[words[1]] = ""
        return f"New empty certificate store '{words[1]}'!"

    def _set_ssl(self, worker: _Worker, words: list[str], payload: str) -> str:
        if words[1] not in worker.certificates:
            return "Can't replace a certificate which is not referenced by the configuration!"
        if "BEGIN CERTIFICATE" not in payload:
            return f"unable to load certificate from file '{words[1]}'. Can't load the payload"
        worker.pending[words[1]] = payload
        return f"Transaction created for certificate {words[1]}!"

    def _commit_ssl(self, worker: _Worker, words: list[str], payload: str) -> str:
        if words[1] not in worker.pending:
            return "No ongoing transaction! !"
        worker.certificates[words[1]] = worker.pending.pop(words[1])
        return f"Committing {words[1]}\nSuccess!"

    def _add_ssl(self, worker: _Worker, words: list[str], payload: str) -> str:
        _, path, file = words
        if path not in worker.lists:
            return "didn't find the specified filename"
        worker.lists[path].append(file)
        return f"Inserting certificate '{file}' in crt-list '{path}'.\nSuccess!"

    def _del_ssl(self, worker: _Worker, words: list[str], payload: str) -> str:
        kind, path, *file = words
        if kind == "crt-list":
            worker.lists[path].remove(file[0])
            return f"Entry '{file[0]}' deleted in crtlist '{path}'!"
        if any(path in used for used in worker.lists.values()):
            return f"Can't remove the certificate: certificate '{path}' in use, can't be deleted!"
        del worker.certificates[path]
        return f"Certificate '{path}' deleted!"


def _key(text: str) -> HttpServerKey:
    section, _, server = text.partition("/")
    return HttpServerKey(section, server)


def _entry(line: str) -> tuple[str, str]:
    key, _, value = line.partition(" ")
    return key, value


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
