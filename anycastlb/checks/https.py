"""``https``: up if a request over TLS is answered as ``http`` expects it, by a server whose certificate is good.

The certificate is verified (chain, dates, name) unless ``verify`` is false, and may be asked for more life than it has
(``cert_expiry``). A new connection and a full handshake each time.
"""

from __future__ import annotations

from anycastlb import probing
from anycastlb.checks import Down, Found
from anycastlb.model import Check, Lane
from anycastlb.probing.params import TlsParams


class Params(TlsParams):
    """Every field has a default: ``GET /``, expecting 200, the certificate verified against the CAs of the system."""


async def probe(check: Check, lane: Lane | None) -> Found:
    params = check.params
    assert isinstance(params, Params)
    try:
        return Found(await probing.probe(check, params, lane))
    except probing.Refused as exc:
        raise Down(str(exc)) from exc
