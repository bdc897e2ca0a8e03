"""JSON documents: merging a patch, comparing, writing, hashing.

Pure. The order of ``backends`` matters (it is the order of the kernel's table), so it is kept and compared; no other
order matters.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396): ``null`` removes, an object is merged, everything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def bare(document: Any) -> Any:
    """The document without its ``null`` fields, which mean the default."""
    return merge_patch({}, document)


def same(one: Any, other: Any) -> bool:
    """Are the two documents equal? ``true`` is not ``1``, and the order of backends matters."""
    return _canonical(one) == _canonical(other)


def value(document: Any) -> bytes:
    """The document as the bytes that are stored."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def tag(document: Any) -> str:
    """The ETag of a document, in its quotes. It does not depend on the order of fields."""
    text = json.dumps(document, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def plain(value: Any) -> Any:
    """The value as JSON can express it: TOML and YAML have dates, infinities and keys that are not strings."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)


def _canonical(document: Any) -> str:
    backends = document.get("backends") if isinstance(document, Mapping) else None
    order = list(backends) if isinstance(backends, Mapping) else []
    return json.dumps([document, order], sort_keys=True, ensure_ascii=False)
