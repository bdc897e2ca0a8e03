"""The names of pools, backends and gateways as HAProxy may have them.

HAProxy takes letters, digits and ``- _ . :``. Ours may have brackets too, so these are escaped by ``_``, which is
escaped itself. Everything is reversible, and no name begins as a section of the configuration's own does: with
``_a``. Pure.
"""

from __future__ import annotations

import re
from hashlib import sha256

from anycastlb.core.model import Retry

ESCAPES = {"_": "__", "[": "_b", "]": "_e"}
ORIGINALS = {escape: letter for letter, escape in ESCAPES.items()}
COMMON = Retry()


def escaped(name: str) -> str:
    """The name of a pool, backend or gateway in the configuration of HAProxy."""
    return re.sub(r"[_\[\]]", lambda match: ESCAPES[match[0]], name)


def original(name: str) -> str:
    """The name that was ``escaped``. The part that tells sections of one pool apart is left out."""
    return re.sub(r"__|_b|_e|_r.*", lambda match: ORIGINALS.get(match[0], ""), name)


def section(pool: str, retry: Retry) -> str:
    """The section of HAProxy for a pool, whose requests are repeated as ``retry`` says."""
    if retry == COMMON:
        return escaped(pool)
    return f"{escaped(pool)}_r{sha256(repr((retry.attempts, retry.on)).encode()).hexdigest()[:8]}"
