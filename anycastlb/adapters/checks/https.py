"""``https``: up if a request over TLS is answered as ``http`` expects it, by a server whose certificate is good.

The certificate is verified (chain, dates, name) unless ``verify`` is false, and may be asked for more life than it has
(``cert_expiry``). A new connection and a full handshake each time.
"""

from __future__ import annotations

from anycastlb.adapters.checks.probe.outcome import Found
from anycastlb.adapters.checks.probe.params import TlsParams
from anycastlb.adapters.checks.probe.web import probe_web
from anycastlb.core.model import Check, ProbePath


class Params(TlsParams):
    """Every field has a default: ``GET /``, expecting 200, the certificate verified against the CAs of the system."""


async def probe(check: Check, probe_path: ProbePath | None) -> Found:
    return await probe_web(check, probe_path)
