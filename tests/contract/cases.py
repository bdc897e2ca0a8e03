"""The check types that go through the contract suite (``test_checks.py``), gathered from the ``cases_*`` modules.

A module ``tests/contract/cases_<what>.py`` holds ``CASES``, a tuple of ``Case``. Each case is one check type with one
set of parameters; the suite runs it against a good server and against every bad server of its transport, and soaks it.
"""

from __future__ import annotations

import importlib
import pkgutil
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal

import tests.contract
from anycastlb.adapters.checks import TYPES
from anycastlb.core.model import Check


@dataclass(frozen=True)
class Case:
    """One check type with one set of parameters."""

    name: str
    type: str
    good: Callable[[str], AbstractAsyncContextManager[int]]
    """``good(host)``: a server that this check finds healthy; yields its port."""
    detail: str
    """A regular expression: what the check says of the good server, whole."""
    params: Mapping[str, Any] = field(default_factory=dict)
    transport: Literal["tcp", "udp"] = "tcp"
    content: bool = True
    """False: the type does not look at answers, so that only ``refused`` and ``black-holed`` are down for it."""
    unheard: bool = False
    """True: it cannot tell a black hole from a healthy server either (UDP without a reply)."""
    tls: Callable[[], ssl.SSLContext] | None = None
    """The bad servers of this case talk inside TLS, with this context."""
    hosts: tuple[str, ...] = ("127.0.0.1", "::1")

    def up(self, server: str) -> bool:
        """May this check call the bad server healthy?"""
        return not self.content and server != "refused" and (server != "black-holed" or self.unheard)

    def check(self, port: int, host: str = "127.0.0.1", timeout: float = 0.4) -> Check:
        params = TYPES[self.type].params.model_validate(dict(self.params))
        return Check(self.type, ip_address(host), port, params, 1.0, timeout, 1, 1)


def cases() -> tuple[Case, ...]:
    names = sorted(m.name for m in pkgutil.iter_modules(tests.contract.__path__) if m.name.startswith("cases_"))
    found = [case for name in names for case in importlib.import_module(f"tests.contract.{name}").CASES]
    assert len({case.name for case in found}) == len(found), "two cases of one name"
    return tuple(found)
