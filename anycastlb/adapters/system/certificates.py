"""Have libraries read no certificates of the system while they are imported.

aiohttp makes two TLS contexts when it is imported, for connections that are given none, and reads the system's
certificates for each: 45 ms of CPU and 3 MB. Each connection that anycastlb makes is given a context of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "SSL_CERT_FILE"
"""Where OpenSSL looks for the system's certificates, if it is set."""


@contextmanager
def unread_certificates() -> Iterator[None]:
    """A TLS context that is made meanwhile knows no authority."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = os.devnull
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before
