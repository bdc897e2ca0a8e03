"""Mutate good values (a field at or beyond its ends, another type, another shape) and the bytes they are written in."""

from __future__ import annotations

import json
import marshal
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import yaml

NUMBERS = (0, 1, -1, 2, 7, 80, 100, 255, 256, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**63, -(2**63), 10**30,
           0.5,
           -0.0, 1e-300, 1e300, 1.5)  # fmt: skip
TEXTS = ("", " ", "0", "1", "-1", "80", "1e9", "50%", "0%", "101%", "0.0001%", "weight 1", "weight 99999999999",
         "2s", "0s",
         "1ms", "86401s", "1d", "1h1h", "999999999999h", "1.1.1s", "inf", "nan", "never", "true", "null", "192.0.2.1",
         "192.0.2.1/24", "010.0.0.1", "::1", "::ffff:192.0.2.1", "fe80::1%eth0", "0.0.0.0", "255.255.255.255",
         "2001:db8::1",
         "a/b", "..", "\x00", "\n", "\ud800", "\u202e", "é" * 100, "x" * 300, "1" * 5000, "${secret:x}", "re:(((",
         "re:a{999}",
         "\\x0", "hex:0", "http://[::1", "65535:65535", "0:0:0", "history", "tcp", "udp", "sctp", "fwmark", "mh",
         "wrr", "sh",
         "tunnel", "dr", "nat", "gue", "gre", "all", "any", "none", "http", "https", "dns", "icmp", "grpc",
         "command", "agent",
         "forward", "direct", "keep", "withdraw")  # fmt: skip
WORDS = ("vip", "port", "protocol", "scheduler", "scheduler_flags", "forward", "check", "backends", "announce",
         "slow_start",
         "drain", "type", "interval", "timeout", "rise", "fall", "path", "expect", "address", "weight",
         "min_backends", "when",
         "fail", "damping", "suppress", "half_life", "longest", "communities", "med", "hold_up", "hold_down",
         "persistence",
         "netmask", "one_packet", "fwmark", "backends_from", "dns", "consul", "checks", "headers", "send", "via",
         "max_failed",
         "override", "fallback", "max_connections", "tunnel_port", "reopen", "last", "prot", "")  # fmt: skip
TOKENS = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\\u", b"\xff", b"\x00", b"\n", b"NaN", b"Infinity",
          b"1e999", b"-",
          b"\xef\xbb\xbf", b"// x\n", b"'", b"&a", b"*a", b"<<: *a", b"- ", b"[[", b"= ", b"0x", b"9" * 400,
          b"[" * 300)  # fmt: skip


MAX_TEXT = 256 * 1024
"""Characters of a document. What is larger is cut off, as a full disk does it."""


class Mutator:
    """Makes mutants with the chances that ``chance`` gives."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def value(self) -> Any:
        """Any value."""
        pick = self.chance.random()
        if pick < 0.35:
            return self.chance.choice(NUMBERS)
        if pick < 0.8:
            return self.chance.choice(TEXTS)
        if pick < 0.88:
            return self.chance.choice([None, True, False])
        if pick < 0.95:
            return [self.value() for _ in range(self.chance.choice([0, 1, 2, 20]))]
        return {self.word(): self.value() for _ in range(self.chance.choice([0, 1, 3]))}

    def word(self) -> str:
        return self.chance.choice(WORDS) if self.chance.random() < 0.9 else self.chance.choice(TEXTS)

    def mutant(self, good: Any) -> Any:
        """The value with some of its parts changed; itself is not touched."""
        document = marshal.loads(marshal.dumps(good))
        for _ in range(self.chance.choice([1, 1, 1, 2, 3, 8])):
            document = self._changed(document)
        return document

    def as_yaml(self, document: Any) -> bytes:
        """As YAML."""
        text = json.dumps(document)
        with suppress(RecursionError):  # what is nested too deeply for the library stays in JSON, which is YAML too
            text = yaml.safe_dump(json.loads(text))
        return self.damaged(text[: MAX_TEXT // 16].encode(errors="replace"))

    def _changed(self, document: Any) -> Any:
        if not isinstance(document, (dict, list)) or not document or self.chance.random() < 0.05:
            return self.value()
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = self.chance.choice(keys)
        act = self.chance.random()
        if act < 0.45 and isinstance(document[key], (dict, list)):
            document[key] = self._changed(document[key])
        elif act < 0.7:
            document[key] = self.value()
        elif act < 0.78:
            del document[key]
        elif act < 0.95 and isinstance(document, dict):
            document[self.word()] = self.value()
        elif act < 0.97:
            document[key] = self._deep(document[key])
        elif isinstance(document, dict):
            document |= {f"b{n}": document[key] for n in range(self.chance.choice([2, 20]))}
        else:
            document *= self.chance.choice([2, 20])
        return document

    def _deep(self, value: Any) -> Any:
        for _ in range(self.chance.choice([3, 40, 200])):
            value = {"a": value} if self.chance.random() < 0.5 else [value]
        return value

    def damaged(self, good: bytes) -> bytes:
        """The bytes, at times with some cut out, repeated, or put in."""
        data = good
        for _ in range(self.chance.choice([0, 0, 0, 1, 1, 2, 5])):
            at = self.chance.randrange(len(data) + 1)
            before, after = data[:at], data[at:]
            data = self.chance.choice(
                [
                    before + after[self.chance.choice([1, 4, 100]) :],
                    before + self.chance.choice(TOKENS) + after,
                    before + bytes([self.chance.randrange(256)]) + after[1:],
                    before + after[:50] + after,
                    before,
                ]
            )
        return data

    def written(self, document: Any) -> bytes:
        """As JSON, as a hand or a program may write it."""
        indent = 2 if self.chance.random() < 0.03 else None
        text = json.dumps(document, ensure_ascii=self.chance.random() < 0.5, indent=indent)
        return self.damaged(text[:MAX_TEXT].encode(errors="surrogatepass"))


@contextmanager
def may_raise(*errors: type[Exception]) -> Iterator[None]:
    """These are how the product says that something is not what it should be: each in words."""
    try:
        yield
    except errors as exc:
        assert str(exc) and len(str(exc)) < 20_000, repr(exc)
