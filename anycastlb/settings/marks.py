"""Firewall marks in ``node.toml``: one, or a range."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from anycastlb.core.fields import shown


def mark_range(value: Any) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", str(value))
    if match:
        low, high = int(match[1]), int(match[2] or match[1])
        if 1 <= low <= high < 2**32:
            return low, high
    raise ValueError(f'a mark such as 7 or a range such as "100-199", not {shown(value)}')


MarkRange = Annotated[Any, BeforeValidator(mark_range)]
