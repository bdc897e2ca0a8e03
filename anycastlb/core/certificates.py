"""How this product verifies certificates: the same on every Python, wherever it speaks TLS.

The rules are OpenSSL's own: the chain must end at a self-signed authority of the given file (or of the system), every
certificate in it must be valid now, and the name must fit. Python 3.13 adds two rules to the contexts that
``ssl.create_default_context`` makes: it refuses certificates without key identifiers (``VERIFY_X509_STRICT``), which
private authorities often omit, and trusts any listed certificate as the end of a chain
(``VERIFY_X509_PARTIAL_CHAIN``). An upgrade of Python must neither take a backend down nor trust more than before, so
every context of ours sets these flags (docs/SECURITY.md).
"""

from __future__ import annotations

import ssl

VERIFY_FLAGS = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
"""OpenSSL's default. Set it on every context: ``context.verify_flags = VERIFY_FLAGS``."""
