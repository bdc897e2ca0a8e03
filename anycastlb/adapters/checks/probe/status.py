"""The web check that looks at nothing but the status, as a plain exchange for the lean engine.

The request is made once. An answer whose head is plain and came in one piece is read by one regular expression, which
matches only what ``h11`` takes too, with the same status; whatever it does not match is given to ``h11``
(docs/decisions/0015). So the outcome is always the one of ``probe.web``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import h11

from anycastlb.adapters.checks.probe import web
from anycastlb.adapters.checks.probe.http1 import Conversation
from anycastlb.adapters.checks.probe.outcome import Down, Exchange, Found
from anycastlb.adapters.checks.probe.params import TlsParams, WebParams
from anycastlb.core.model import Check

FIELD = rb"(?:(?!content-length:|transfer-encoding:)[a-z0-9-]+:[\t -~]*\r\n)*"
LENGTH = rb"content-length:[ \t]*[0-9]{1,18}[ \t]*\r\n"
PLAIN_HEAD = re.compile(
    rb"HTTP/1\.[01] ([2-5][0-9]{2})(?: [\t -~]*)?\r\n" + FIELD + rb"(?:" + LENGTH + FIELD + rb")?\r\n", re.IGNORECASE
)
"""The head of an answer about which there cannot be two opinions: printable ASCII, at most one plain length."""


def lean_web(check: Check) -> Exchange | None:
    """None if the check is more than one request and the status of its answer."""
    params = check.params
    assert isinstance(params, WebParams)
    if isinstance(params, TlsParams) or params.body is not None or params.redirects or params.proxy is not None:
        return None
    way, hop = web.start(check, params)
    given = (hop.method, web.target_of(way, hop, params), web.headers_of(hop, params), hop.body)
    try:
        request = Conversation(*given).request
    except h11.LocalProtocolError:
        return None  # the coroutine says what is wrong with the request
    return Exchange(request, lambda: StatusReader(params, lambda: Conversation(*given)))


class StatusReader:
    """Reads one answer as far as its status."""

    __slots__ = ("_conversation", "_params", "_start")

    def __init__(self, params: WebParams, start: Callable[[], Conversation]) -> None:
        self._params, self._start = params, start
        self._conversation: Conversation | None = None
        """Since the first piece was not plain."""

    def feed(self, data: bytes) -> Found | None:
        if self._conversation is None:
            if match := PLAIN_HEAD.match(data):
                return self._judged(int(match[1]))
            self._conversation = self._start()
        answer = self._conversation.feed(data)
        return self._judged(answer.status) if answer else None

    def end(self) -> Found:
        raise (self._conversation or self._start()).closed()

    def _judged(self, status: int) -> Found:
        if status in self._params.expect:
            return Found(f"HTTP {status}")
        raise Down(f"HTTP {status}, expected {self._params.expect}")
