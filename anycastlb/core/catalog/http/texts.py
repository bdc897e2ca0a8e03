"""The texts in the documents of the HTTP tier, each with its own letters, so that it can only ever be data for HAProxy.

Pure. What is not taken raises ValueError, which says what was expected.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from anycastlb.core.fields import LABELS, Duration, shown
from anycastlb.core.http import patterns

OWN_HEADERS = frozenset({
    "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
    "upgrade",
})  # fmt: skip
"""Headers that no rule may change: where a message ends and where it goes depends on them."""


def pattern_text(text: str) -> str:
    patterns.pattern(text)
    return text


def path_text(text: str) -> str:
    """A path as it stands in a request."""
    if re.fullmatch(r"/[!-~]*", text) and not re.search("[?#]", text):
        return text
    raise ValueError(
        f"a path as it is sent, such as /blog: it begins with / and has no space, ? or #, and %XX stands for what is "
        f"not ASCII; not {shown(text)}"
    )


def _hostname(text: str) -> str:
    """Raises ValueError."""
    host = text.lower().removesuffix(".")
    if text == "*":
        return text
    if ":" in host:
        try:
            return f"[{IPv6Address(host.removeprefix('[').removesuffix(']'))}]"
        except ValueError:
            pass
    elif len(host) <= 253 and re.fullmatch(LABELS, host.removeprefix("*.")):
        return host
    raise ValueError(f'a host name without a port, such as "shop.example", "*.shop.example" or "*", not {shown(text)}')


def _one_host(text: str) -> str:
    host = _hostname(text)
    if "*" in host:
        raise ValueError(f"one host name, not {shown(text)}")
    return host


def _lower(text: str) -> str:
    return text.lower()


def _changeable(name: str) -> str:
    if name in OWN_HEADERS:
        raise ValueError(f"a header that a rule may change, not {name}, by which requests are told apart")
    return name


def named_once(changes: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [change if isinstance(change, str) else change.name for change in changes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"each header once, not {twice} twice")
    return changes


Regex = Annotated[str, AfterValidator(pattern_text)]
Path = Annotated[str, Field(max_length=1024), AfterValidator(path_text)]
Hostname = Annotated[str, Field(max_length=260), AfterValidator(_hostname)]
Host = Annotated[str, Field(max_length=260), AfterValidator(_one_host)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$"), AfterValidator(_lower)]
ChangeableName = Annotated[HeaderName, AfterValidator(_changeable)]
HeaderValue = Annotated[str, Field(pattern=r"^[!-~]([ -~]*[!-~])?$", max_length=4096)]
"""Printable ASCII, without spaces around it."""
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Of a parameter of the query, or of a cookie."""
Method = Annotated[str, Field(pattern=r"^[A-Z]{1,20}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Timeout = Annotated[Duration, Field(ge=0.001, le=86400)]
