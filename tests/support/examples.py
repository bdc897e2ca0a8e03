"""How many random examples are tried, if ``make laws`` says it."""

from __future__ import annotations

import os

EXAMPLES = int(os.environ.get("ANYCASTLB_EXAMPLES", "0"))
"""0: as many as fit in the suite, which is another number for each kind of test."""
