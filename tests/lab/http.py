"""HTTP as the lab speaks it: one request, one connection, from inside a namespace, and no library in between."""

from __future__ import annotations

import socket

from tests.lab.namespaces import Namespace
from tests.lab.process import GIVE_UP


def get(
    namespace: Namespace, host: str, port: int, path: str = "/", timeout: float = GIVE_UP, name: str = ""
) -> tuple[int, str]:
    """Status and body. ``name``: what it asks for, if not for the address. Raises ``OSError`` (``ConnectionError``,
    ``TimeoutError``) when there is no whole answer."""
    return request(namespace, "GET", host, port, path, timeout=timeout, name=name)


def request(
    namespace: Namespace,
    method: str,
    host: str,
    port: int,
    path: str,
    body: bytes = b"",
    timeout: float = GIVE_UP,
    name: str = "",
) -> tuple[int, str]:
    with connect(namespace, host, port, timeout) as sock:
        name = name or (f"[{host}]" if ":" in host else host)
        lines = f"{method} {path} HTTP/1.0\r\nHost: {name}\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(lines.encode() + body)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    head, gap, rest = answer.partition(b"\r\n\r\n")
    words = head.split()
    if not gap or len(words) < 2:
        raise ConnectionError(f"{host} port {port} answered no HTTP: {answer[:60]!r}")
    return int(words[1]), rest.decode(errors="replace")


def connect(namespace: Namespace, host: str, port: int, timeout: float, own_port: int = 0) -> socket.socket:
    """``own_port``: of the client; 0: any."""
    sock = open_socket(namespace, host, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        if own_port:  # a port that bind(2) chooses may be one that was used a moment ago
            sock.bind(("", own_port))
        sock.connect((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def open_socket(namespace: Namespace, host: str, kind: socket.SocketKind) -> socket.socket:
    with namespace.inside():
        return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
