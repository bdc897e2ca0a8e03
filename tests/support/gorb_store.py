"""What ``consul kv export`` prints of GORB's keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

SERVICE = {"host": "192.0.2.10", "port": 80, "protocol": "tcp", "method": "wrr", "flags": "", "persistent": False}


def exported(store: Mapping[str, Any]) -> str:
    """The export of these keys and values: texts as they are, and all else as JSON."""
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in store.items()}
    rows = [
        {"key": key, "flags": 0, "value": base64.b64encode(value.encode()).decode()} for key, value in values.items()
    ]
    return json.dumps(rows, indent="\t")
