"""What can go wrong with HAProxy as a whole."""

from __future__ import annotations

from anycastlb.core.model import AnycastlbError


class HaproxyError(AnycastlbError):
    """HAProxy could not be asked, or its answer is none that we know."""


class Away(HaproxyError):
    """HAProxy is not running, does not answer in time, or closed the connection. ``silent``: it did not answer."""

    def __init__(self, text: str, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class Unfinished(HaproxyError):
    """HAProxy was asked to reload, and nobody knows yet what has become of that."""


class UnknownAnswer(HaproxyError):
    """HAProxy said something that this version of anycastlb does not understand."""
