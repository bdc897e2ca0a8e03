"""JSON documents: merging a patch, comparing, writing, hashing.

Pure. The order of ``backends`` means something (the order of the kernel's table), so it is kept and compared; no other
order does.
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
    """The document without its ``null`` fields, which mean nothing."""
    return merge_patch({}, document)


def same(one: Any, other: Any) -> bool:
    """Do they say the same? ``true`` is not ``1``; the order of backends counts."""
    return _canonical(one) == _canonical(other)


def value(document: Any) -> bytes:
    """As it is written to the store."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def tag(document: Any) -> str:
    """An ETag, in its quotes. It does not know the order of fields: no reader of JSON may."""
    text = json.dumps(document, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def plain(found: Any) -> Any:
    """As JSON can say it: TOML and YAML know moments, infinities and keys that are no strings."""
    if isinstance(found, Mapping):
        return {str(name): plain(item) for name, item in found.items()}
    if isinstance(found, (list, tuple, set)):
        return [plain(item) for item in found]
    if isinstance(found, (str, bool, int)) or found is None:
        return found
    if isinstance(found, float) and math.isfinite(found):
        return found
    return str(found)


def _canonical(document: Any) -> str:
    backends = document.get("backends") if isinstance(document, Mapping) else None
    order = list(backends) if isinstance(backends, Mapping) else []
    return json.dumps([document, order], sort_keys=True, ensure_ascii=False)
