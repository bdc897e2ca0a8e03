"""A netlink socket: it sends batches of requests and reads dumps.

It carries messages and their answers, and does not know what they mean. It blocks, so call it from a thread. It never
repeats a request and never reads what it did not ask for. After any error the caller closes it and opens another.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from anycastlb.core.model import DriverError

NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE = 1, 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 0x1, 0x4, 0x10, 0x300
SOL_NETLINK, NETLINK_CAP_ACK = 270, 10
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
_LENGTH_TYPE_FLAGS = struct.Struct("=IHH")
_ERROR = struct.Struct("=IHHIIi")
_ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr (length with this header, type); the payload follows, and zeros up to a multiple of four bytes."""
_FLAGS_AT = 6

CHUNK = 200
"""Messages in one send. Up to 237 answers fit the default receive buffer, so none is lost even if all fail."""
CHUNK_BYTES = 128 * 1024
"""Bytes in one send; the default send buffer holds 208 KiB."""
BUFFER = 64 * 1024
"""The kernel never puts more than 32 KiB into one datagram of a dump."""
TIMEOUT = 10.0
"""Seconds without an answer after which the kernel is taken to have dropped the request."""

Request = tuple[int, bytes]
"""A command and its attributes."""
Datagram = tuple[bytes, int]
"""Messages of a dump, and where the last of them ends."""


class Overrun(DriverError):
    """Answers were lost (the receive buffer was full): the operations were done, their outcome is unknown."""


class DumpInterrupted(DriverError):
    """What was listed has changed meanwhile, so that the list may be wrong: ask again."""


class Netlink:
    """A socket of one netlink protocol, which says in ``_head`` how its messages begin."""

    def __init__(self, protocol: int) -> None:
        """Raises ``DriverError``."""
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except OSError as exc:
            raise DriverError(f"cannot open a netlink socket: {exc.strerror}") from exc
        try:
            self._tune()
            self._socket.bind((0, 0))
        except OSError as exc:
            self.close()
            raise DriverError(f"cannot use a netlink socket: {exc.strerror}") from exc

    def _head(self, command: int) -> tuple[int, int, bytes]:
        """The type of a request's message, its flags beside ``NLM_F_REQUEST``, and what goes before its payload."""
        raise NotImplementedError

    def _tune(self) -> None:
        seconds, rest = divmod(TIMEOUT, 1)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(rest * 1_000_000))
        )
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, option, 4 * 1024 * 1024)
            except PermissionError:
                return  # the chunks are small enough for the default buffers

    def close(self) -> None:
        self._socket.close()

    def _message(self, flags: int, command: int, payload: bytes, sequence: int) -> bytes:
        kind, _, head = self._head(command)
        length = HEADER.size + len(head) + len(payload)
        return HEADER.pack(length, kind, NLM_F_REQUEST | flags, sequence, 0) + head + payload

    def _send(self, data: bytes | bytearray) -> None:
        try:
            self._socket.send(data)
        except OSError as exc:
            raise DriverError(f"netlink send: {exc.strerror}") from exc

    def _receive(self, flags: int = 0) -> bytes:
        """One datagram."""
        try:
            return bytes(self._view[: self._socket.recv_into(self._buffer, 0, flags)])
        except BlockingIOError as exc:
            raise DriverError(f"netlink: the kernel did not answer within {TIMEOUT:g} s") from exc
        except OSError as exc:
            if exc.errno == errno.ENOBUFS:
                raise Overrun("netlink: the kernel's answers overran the receive buffer and some were lost") from exc
            raise DriverError(f"netlink receive: {exc.strerror}") from exc

    def exchange(self, requests: Sequence[Request]) -> tuple[dict[int, int], set[int]]:
        """Send all requests; one that is refused does not stop the others.

        Returns the refused ones, as index -> errno, and the indexes whose outcome is unknown (answers lost).
        """
        refused: dict[int, int] = {}
        unknown: set[int] = set()
        start = 0
        while start < len(requests):
            end = self._send_chunk(requests, start)
            try:
                self._answers(start, end, refused)
            except Overrun:
                unknown.update(index for index in range(start, end) if index not in refused)
            start = end
        return refused, unknown

    def _send_chunk(self, requests: Sequence[Request], start: int) -> int:
        """One send from ``requests[start]`` on; only its last message asks for an answer. Returns where it ended."""
        first = self._sequence + 1 - start
        parts: list[bytes] = []
        size = length = flags = 0
        index = start
        for index, (command, payload) in enumerate(requests[start : start + CHUNK], start):
            kind, more, head = self._head(command)
            following = HEADER.size + len(head) + len(payload)
            if size + following > CHUNK_BYTES and parts:
                index -= 1
                break
            length, flags = following, NLM_F_REQUEST | more
            size += length
            parts += HEADER.pack(length, kind, flags, first + index & 0xFFFFFFFF, 0), head, payload
        chunk = bytearray().join(parts)
        struct.pack_into("=H", chunk, size - length + _FLAGS_AT, flags | NLM_F_ACK)
        self._sequence = first + index
        self._send(chunk)
        return index + 1

    def _answers(self, start: int, end: int, refused: dict[int, int]) -> None:
        """Read up to the answer of the chunk's last message; note the errors in ``refused``."""
        last = self._sequence
        flags = 0
        lost: Overrun | None = None
        while True:
            try:
                data = self._receive(flags)
            except Overrun as exc:
                lost, flags = exc, socket.MSG_DONTWAIT  # all answers are queued by now: read what is left of them
                continue
            except DriverError:
                if lost:
                    raise lost from None
                raise
            for offset, _, kind in messages(data):
                if kind != NLMSG_ERROR:
                    continue
                _, _, _, sequence, _, error = _ERROR.unpack_from(data, offset)
                behind = last - sequence & 0xFFFFFFFF
                if behind >= end - start:
                    continue  # the answer to something older
                if error:
                    refused[end - 1 - behind] = -error
                if not behind and not lost:
                    return

    def ask(self, command: int, payload: bytes = b"") -> bytes:
        """The one answer to a request. Raises ``NetlinkRefused``."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._send(self._message(0, command, payload, self._sequence))
        data = self._receive()
        _, kind, _, _, _, error = _ERROR.unpack_from(data)
        if kind == NLMSG_ERROR:
            raise NetlinkRefused(-error)
        return data

    def dump(self, command: int, payload: bytes = b"") -> Iterator[tuple[bytes, int, int]]:
        """Every message of a dump as (datagram, start of its payload, end). Raises ``NetlinkRefused``."""
        skipped = HEADER.size + len(self._head(command)[2])
        for data, size in self.datagrams(command, payload):
            for start, end, _ in messages(data, size):
                yield data, start + skipped, end

    def datagrams(self, command: int, payload: bytes = b"", like: Sequence[Datagram] = ()) -> Iterator[Datagram]:
        """A dump as it comes. Equal answers of one socket are equal bytes, for all dumps have the same sequence number.

        ``like``: an earlier answer; what is the same bytes in both is not looked through, and is the same object.
        Raises ``NetlinkRefused``, and ``DumpInterrupted`` after the last.
        """
        self._send(self._message(NLM_F_DUMP, command, payload, sequence=0))
        done = interrupted = False
        before = iter(like)
        while not done:
            data = self._receive()
            at, size = 0, len(data)
            if (known := next(before, None)) is not None and known[0] == data:
                done = known[1] < size
                yield known
                continue
            while at + HEADER.size <= size:
                length, kind, flags = _LENGTH_TYPE_FLAGS.unpack_from(data, at)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    code = struct.unpack_from("=i", data, at + HEADER.size)[0] if length >= 20 else 0
                    if code < 0:
                        raise NetlinkRefused(-code)
                    done, size = True, at
                elif length < HEADER.size:
                    raise DriverError(f"netlink: a message of {length} bytes in a dump")
                interrupted |= bool(flags & NLM_F_DUMP_INTR)
                at += length + 3 & ~3
            if size:
                yield data, size
        if interrupted:
            raise DumpInterrupted("netlink: what the kernel listed has changed meanwhile")


class NetlinkRefused(DriverError):
    """The kernel refused a whole request, with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(f"netlink: {os.strerror(number)}")
        self.number = number


def messages(data: bytes, size: int | None = None) -> Iterator[tuple[int, int, int]]:
    """(start, end, type) of every netlink message of a datagram, or of its first ``size`` bytes."""
    at, last = 0, (len(data) if size is None else size) - HEADER.size
    while at <= last:
        length, kind, _ = _LENGTH_TYPE_FLAGS.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield at, at + length, kind
        at += length + 3 & ~3


def attribute_head(kind: int, length: int) -> bytes:
    """The header of an attribute with a payload of ``length`` bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + length, kind)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute. An attribute that nests others has these as its payload."""
    return attribute_head(kind, len(payload)) + payload + b"\0" * (-len(payload) % 4)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(type, start, end) of the payload of every attribute in ``data[start:end]``; stops at the first broken one."""
    while start + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & 0x3FFF, start + 4, start + length
        start += length + 3 & ~3
