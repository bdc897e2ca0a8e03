"""What ``ipvsadm --save`` prints (``-S``, better ``-Sn``) to service documents. Its long options are read too.

Pure. ``port_of`` turns a port's name into its number, for output saved without ``-n``; names of hosts cannot be used.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from anycastlb.core.catalog.scheduler import CANONICAL, FLAGS
from anycastlb.core.catalog.schema import SCHEDULERS
from anycastlb.core.importers.documents import (
    Documents,
    Note,
    Real,
    UnreadableInput,
    Virtual,
    address,
    document,
    number,
    prefix,
    weight,
)
from anycastlb.core.model import Address

PortOf = Callable[[str, str], int | None]
"""(name, protocol) -> port; None if it is not known."""
Key: TypeAlias = tuple[str, str]
"""Protocol and the service's address as it was written; ``fwmark`` and the mark with its family."""

COMMANDS = {
    "-A": "add", "--add-service": "add", "-E": "add", "--edit-service": "add",
    "-a": "server", "--add-server": "server", "-e": "server", "--edit-server": "server",
    "-C": "clear", "--clear": "clear",
}  # fmt: skip
PROTOCOLS = {
    "-t": "tcp", "--tcp-service": "tcp", "-u": "udp", "--udp-service": "udp",
    "--sctp-service": "sctp", "-f": "fwmark", "--fwmark-service": "fwmark",
}  # fmt: skip
METHODS = {"-g": "dr", "--gatewaying": "dr", "-i": "tunnel", "--ipip": "tunnel", "-m": "nat", "--masquerading": "nat"}
VALUED = {
    "-s": "scheduler", "--scheduler": "scheduler", "-b": "flags", "--sched-flags": "flags",
    "-M": "netmask", "--netmask": "netmask", "--pe": "engine", "-r": "server", "--real-server": "server",
    "-w": "weight", "--weight": "weight", "-x": "upper", "--u-threshold": "upper", "-y": "lower",
    "--l-threshold": "lower", "--tun-type": "type", "--tun-port": "tun-port",
}  # fmt: skip
SWITCHES = {
    "-o": "ops", "--ops": "ops", "-6": "ipv6", "--ipv6": "ipv6", "--tun-nocsum": "nocsum", "--tun-csum": "csum",
    "--tun-remcsum": "remcsum", "-n": "numeric", "--numeric": "numeric",
}  # fmt: skip
MAX_LINE = 4096
"""Characters of a line; ipvsadm writes some hundred."""
PERSISTENT = ("-p", "--persistent")
DEFAULT_PERSISTENCE = 360
NAMES = '; save with numbers: "ipvsadm -Sn"'


@dataclass(slots=True)
class _Line:
    number: int
    command: str
    protocol: str = ""
    service: str = ""
    forward: str = "dr"
    persistence: int = 0
    options: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.protocol, self.service + (" -6" if "ipv6" in self.options and self.protocol == "fwmark" else "")


def convert(text: str, port_of: PortOf = lambda name, protocol: None) -> tuple[Documents, list[Note]]:
    """The documents, and what could not be carried over. A line that cannot be read costs only what it is about.

    Raises ``UnreadableInput`` if no service is left by that.
    """
    notes: list[Note] = []
    services: dict[Key, Virtual | None] = {}
    """None: a service that cannot be carried over."""
    unread: list[UnreadableInput] = []
    for place, words in enumerate(text.split("\n"), 1):
        try:
            if (line := _line(place, words, notes)) is not None:
                _take(line, services, port_of, notes)
        except UnreadableInput as exc:
            unread.append(exc)
            notes.append(Note(exc.line, f"{exc.what}; left out"))
    kept = [service for service in services.values() if service is not None]
    if unread and not kept:
        raise unread[0]
    for service in kept:  # a server that is there again takes the place of the one before
        service.reals = list({(real.address, real.port): real for real in service.reals}.values())
    if kept:
        notes.append(Note(0, "ipvsadm knows no health checks: TCP services get a check of type tcp; set yours"))
    return {f"services/{service.name}": document(service) for service in kept}, sorted(notes)


def _take(line: _Line, services: dict[Key, Virtual | None], port_of: PortOf, notes: list[Note]) -> None:
    """Do to the services what a line says. Raises ``UnreadableInput``."""
    if line.command == "clear":
        services.clear()
        notes.clear()
    elif line.command == "add":
        before = services.get(line.key)
        services[line.key] = made = _service(line, port_of, notes)
        if made and before:
            made.reals = before.reals
    elif line.key not in services:
        raise UnreadableInput(line.number, f"expected service {line.service} to be added before its servers are")
    elif (service := services[line.key]) is not None:
        service.reals.append(_server(line, service, port_of, notes))


def _line(place: int, text: str, notes: list[Note]) -> _Line | None:
    """What a line says, if anything. Raises ``UnreadableInput``."""
    if len(text) > MAX_LINE:
        raise UnreadableInput(place, f"expected at most {MAX_LINE} characters in a line, not {len(text)}")
    try:
        words = shlex.split(text, comments=True)
    except ValueError as exc:
        raise UnreadableInput(place, f"expected a line of ipvsadm -S: {exc}") from None
    if words and words[0].rsplit("/", 1)[-1] == "ipvsadm":
        del words[0]
    if not words:
        return None
    if words[0] in COMMANDS:
        return _parsed(place, words)
    if words[0] in ("--set", "--start-daemon", "--stop-daemon", "-Z", "--zero"):
        notes.append(Note(place, f"{' '.join(words)[:80]}: nothing like it in a catalog; left out"))
        return None
    raise UnreadableInput(place, f"expected -A or -a, as ipvsadm -S prints them, not {words[0]!r:.60}")


def _parsed(place: int, words: list[str]) -> _Line:
    line = _Line(place, COMMANDS[words[0]])
    rest = iter(words[1:])
    waiting = next(rest, None)
    while waiting is not None:
        word, _, glued = waiting.partition("=") if waiting.startswith("--") else (waiting, "", "")
        waiting = None
        if word in PROTOCOLS or word in VALUED:
            value = glued or next(rest, None)
            if not value:
                raise UnreadableInput(place, f"expected a value after {word}")
            if word in PROTOCOLS:
                line.protocol, line.service = PROTOCOLS[word], value
            else:
                line.options[VALUED[word]] = value
        elif word in METHODS:
            line.forward = METHODS[word]
        elif word in SWITCHES:
            line.options[SWITCHES[word]] = ""
        elif word in PERSISTENT:
            waiting = glued or next(rest, None)
            line.persistence = DEFAULT_PERSISTENCE
            if waiting is not None and not waiting.startswith("-"):
                line.persistence = number(waiting, place, "seconds of persistence", 1)
                waiting = None
        else:
            raise UnreadableInput(place, f"expected an option of ipvsadm -S, not {word!r:.60}")
        if waiting is None:
            waiting = next(rest, None)
    if line.command != "clear" and not line.protocol:
        raise UnreadableInput(place, "expected a service: -t, -u, --sctp-service or -f and its address")
    return line


def _service(line: _Line, port_of: PortOf, notes: list[Note]) -> Virtual | None:
    if line.protocol == "fwmark":
        mark = number(line.service, line.number, "a firewall mark", 1, 2**32 - 1)
        notes.append(Note(line.number, f"fwmark {mark}: a service needs its VIP, which ipvsadm does not say; left out"))
        return None
    vip, port = _endpoint(line.service, line, port_of)
    scheduler = line.options.get("scheduler", "wlc")
    if scheduler not in SCHEDULERS:
        notes.append(Note(line.number, f"scheduler {scheduler!r:.40} is not known here; the service is left out"))
        return None
    if "engine" in line.options:
        notes.append(Note(line.number, f"--pe {line.options['engine']:.40}: persistence by address instead"))
    one_packet = "ops" in line.options
    if one_packet and line.protocol != "udp":
        notes.append(Note(line.number, f"-o: one-packet scheduling is for UDP, not {line.protocol}; left out"))
    return Virtual(
        line.protocol,
        (vip,),
        port,
        scheduler,
        flags=_flags(scheduler, line, notes),
        one_packet=one_packet and line.protocol == "udp",
        persistence=line.persistence,
        netmask=prefix(line.options["netmask"], line.number) if "netmask" in line.options else None,
    )


def _flags(scheduler: str, line: _Line, notes: list[Note]) -> tuple[str, ...]:
    flags = []
    for flag in filter(None, line.options.get("flags", "").split(",")):
        flag = CANONICAL.get((scheduler, flag), flag)
        if flag in ("flag-1", "flag-2", "flag-3") or FLAGS.get(flag) == scheduler:
            flags.append(flag)
        else:
            notes.append(Note(line.number, f"-b {flag:.40}: no flag of {scheduler}; left out"))
    return tuple(sorted(set(flags)))


def _server(line: _Line, service: Virtual, port_of: PortOf, notes: list[Note]) -> Real:
    if "server" not in line.options:
        raise UnreadableInput(line.number, "expected a server: -r and its address")
    host, port = _endpoint(line.options["server"], line, port_of, service.port)
    forward, options = line.forward, line.options
    kind = options.get("type", "ipip")
    if forward == "tunnel" and kind != "ipip":
        if kind not in ("gue", "gre"):
            raise UnreadableInput(line.number, f"expected a tunnel type: ipip, gue or gre, not {kind!r:.40}")
        forward = kind
        for switch in ("csum", "remcsum"):
            if switch in options:
                notes.append(Note(line.number, f"--tun-{switch}: {kind} is sent without checksums here"))
    elif kind != "ipip":
        notes.append(Note(line.number, f"--tun-type {kind:.20}: only with -i, which is not given; {forward} instead"))
    tunnel_port = None
    if forward == "gue":
        tunnel_port = number(options.get("tun-port", ""), line.number, "a GUE port (--tun-port)", 1, 65535)
    upper = number(options.get("upper", "0"), line.number, "a number of connections (-x)")
    lower = number(options.get("lower", "0"), line.number, "a number of connections (-y)")
    if lower > upper:
        notes.append(Note(line.number, f"-y {lower} is above -x {upper}, which the kernel refuses; left out"))
        lower = 0
    share = weight(number(options.get("weight", "1"), line.number, "a weight (-w)"), line.number, notes)
    if not share:
        notes.append(Note(line.number, "-w 0: no new flows, and so it stays; if it was only down, give it its weight"))
    return Real(host, port, forward, share, tunnel_port, upper, lower)


def _endpoint(text: str, line: _Line, port_of: PortOf, default: int | None = None) -> tuple[Address, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    host_address = address(host, line.number, NAMES)
    if not port:
        return host_address, 0 if default is None else default
    if port.isascii() and port.isdigit():
        return host_address, number(port, line.number, "a port", 0, 65535)
    known = port_of(port, line.protocol)
    if known is None:
        raise UnreadableInput(line.number, f"expected a port, not {port!r:.60}{NAMES}")
    return host_address, known
