"""What the web checks (``http``, ``https``) and ``tcp`` are made of: byte streams, TLS, HTTP/1.1.

Written by hand and small, because a probe is one bounded exchange on a socket that ``dial`` made (so that it takes its
lane), closed at once whatever happens: no session, no pool, no transport that outlives it.
"""

from __future__ import annotations

from anycastlb.probing.probe import Refused, probe

__all__ = ["Refused", "probe"]
