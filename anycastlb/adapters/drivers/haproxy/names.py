"""Which texts may stand in the configuration of HAProxy. Everything else that documents say is only ever data. Pure."""

from __future__ import annotations

import re

from anycastlb.core.model import AnycastlbError

NAME = re.compile(r"[A-Za-z0-9._:-]{1,200}")
"""Of sections and servers: HAProxy's own rule."""
GATEWAY = re.compile(r"[A-Za-z0-9._:\[\]-]{1,200}")
TOKEN = re.compile(r"[A-Za-z0-9._-]{1,200}")
"""Of headers, cookies and parameters of a query: what needs no quotes as an argument."""
FILE = re.compile(r"/?[A-Za-z0-9._:@%+=/-]{1,4000}")
FILE_NAME = re.compile(r"(?!\.)[A-Za-z0-9._:@%+=-]{1,200}")


class UnsafeName(AnycastlbError):
    """A text that cannot be a part of HAProxy's configuration."""


def checked(text: str, pattern: re.Pattern[str] = NAME, what: str = "a name") -> str:
    """The text itself. Raises ``UnsafeName``."""
    if not pattern.fullmatch(text):
        raise UnsafeName(f"expected {what} that HAProxy's configuration can hold ({pattern.pattern}), not {text!r}")
    return text
