"""Read the TSIG key (RFC 8945) that signs our requests to a name server, from a file as name servers' tools write it.

The secret is in that file and in memory; it never appears in a message or a log line.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

import dns.exception
import dns.name
import dns.tsig

from anycastlb.core.model import DriverError

ALGORITHMS = {
    "hmac-md5": dns.tsig.HMAC_MD5,
    "hmac-md5.sig-alg.reg.int": dns.tsig.HMAC_MD5,
    "hmac-sha1": dns.tsig.HMAC_SHA1,
    "hmac-sha224": dns.tsig.HMAC_SHA224,
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}
EXPECTED = (
    'expected one key as tsig-keygen writes it (key "NAME" { algorithm hmac-sha256; secret "..."; };), '
    "as keymgr -t does, or NAME ALGORITHM SECRET in one line"
)
COMMENT = re.compile(r"(#|//).*$", re.MULTILINE)
BIND = re.compile(r'key\s+"?(?P<name>[^\s"{]+)"?\s*\{(?P<body>[^}]*)\}')
KNOT = re.compile(
    r"id:\s*(?P<name>\S+)\s+algorithm:\s*(?P<algorithm>\S+)\s+secret:\s*(?P<secret>\S+)",
)
PLAIN = re.compile(r"(?P<name>\S+)\s+(?P<algorithm>[\w.-]+)\s+(?P<secret>\S+)")
COLONS = re.compile(r"(?P<algorithm>[\w.-]+):(?P<name>[^\s:]+):(?P<secret>\S+)")


def read(path: str | Path) -> dns.tsig.Key:
    """Raises ``DriverError``."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise DriverError(f"dns.tsig_key_file: {exc}; {EXPECTED}") from exc
    try:
        return parse(text)
    except ValueError as exc:
        raise DriverError(f"dns.tsig_key_file {path}: {exc}") from None


def parse(text: str) -> dns.tsig.Key:
    """Raises ``ValueError``, without the secret."""
    text = text if COLONS.fullmatch(text.strip()) else COMMENT.sub("", text)
    name, algorithm, secret = _parts(text)
    if algorithm.lower().rstrip(".") not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r:.40}; expected one of {', '.join(ALGORITHMS)}")
    try:
        key = base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("the secret is no base64; copy the file anew")
    try:
        return dns.tsig.Key(dns.name.from_text(name), key, ALGORITHMS[algorithm.lower().rstrip(".")])
    except dns.exception.DNSException:
        raise ValueError(f"the key's name {name!r:.80} is no domain name") from None


def _parts(text: str) -> tuple[str, str, str]:
    """Name, algorithm and secret."""
    keys = list(BIND.finditer(text))
    if len(keys) == 1:
        body = keys[0]["body"]
        algorithm = re.search(r'algorithm\s+"?([\w.-]+)"?\s*;', body)
        secret = re.search(r'secret\s+"?([^\s";]+)"?\s*;', body)
        if algorithm and secret:
            return keys[0]["name"], algorithm[1], secret[1]
    elif not keys:
        for pattern in (KNOT, COLONS, PLAIN):
            match = pattern.search(text) if pattern is KNOT else pattern.fullmatch(text.strip())
            if match:
                return match["name"], match["algorithm"], match["secret"]
    raise ValueError(f"{len(keys)} keys in it; {EXPECTED}" if len(keys) > 1 else f"no key in it; {EXPECTED}")
