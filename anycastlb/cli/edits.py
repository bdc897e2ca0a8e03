"""What a write changes: the summary that is printed after it, and the proposal for ``--dry-run``. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from anycastlb.cli.ipvsadm_options import endpoint, is_endpoint, merge, written

Catalog = dict[str, Any]
"""Documents by key, as exported. None in a proposal means that the document is deleted."""


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """The difference in one line: ``weight 100 → 50, check.path /a → /b``. Empty if nothing differs."""
    old, new = dict(_flat(before or {})), dict(_flat(after or {}))
    parts = []
    for name in [*old, *(name for name in new if name not in old)]:
        if name not in new:
            parts.append(f"{name} {old[name]} → default")
        elif name not in old:
            parts.append(f"{name} {new[name]}" if before is None else f"{name} → {new[name]}")
        elif old[name] != new[name]:
            parts.append(f"{name} {old[name]} → {new[name]}")
    return ", ".join(parts)


def _flat(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, content in document.items():
        if isinstance(content, Mapping) and content:
            yield from _flat(content, f"{above}{name}.")
        elif isinstance(content, list) and any(isinstance(item, Mapping) for item in content):
            yield from _flat({str(place): item for place, item in enumerate(content)}, f"{above}{name}.")
        else:
            yield f"{above}{name}", _shown(content)


def _shown(content: Any) -> str:
    if isinstance(content, (list, tuple)):
        return " ".join(map(str, content)) or "none"
    if isinstance(content, bool):
        return str(content).lower()
    return "none" if content in (None, "", {}) else str(content)


def write_summary(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, changed: bool) -> str:
    """The line that is printed after a write."""
    if not changed:
        return f"{name}: unchanged"
    if after is None:
        return f"{name}: deleted"
    text = difference(before, after)
    word = "added" if before is None else "changed"
    return f"{name}: {word}{': ' + text if text else ''}"


# ---------------------------------------------------------------- the objects that the user names


def find_backends(backends: Mapping[str, Any], text: str, port: Any = None) -> list[str]:
    """The backends that ``text`` names: the one with that name, else those with that address and port.

    ``port`` is the service's own, which a backend without a port uses.
    """
    if text in backends:
        return [text]
    if not is_endpoint(text):
        return []
    wanted, at = endpoint(text)
    matching = []
    for name, fields in backends.items():
        known = (fields or {}).get("address") or name
        if not is_endpoint(str(known)):
            continue
        address, own = endpoint(str(known))
        own = (fields or {}).get("port") or own or port
        if address == wanted and (at is None or str(own) == str(at)):
            matching.append(name)
    return matching


def find_services(services: Mapping[str, Any], protocol: str, text: str) -> list[str]:
    """The services on that virtual address and port; for ``fwmark``, those with that mark."""
    if protocol == "fwmark":
        return [name for name, fields in services.items() if str(fields.get("fwmark")) == text]
    address, port = endpoint(text)
    matching = []
    for name, fields in services.items():
        vips = fields.get("vip")
        vips = vips if isinstance(vips, list) else [vips]
        same = any(is_endpoint(str(vip)) and endpoint(str(vip))[0] == address for vip in vips)
        if same and fields.get("protocol", "tcp") == protocol and str(fields.get("port", 0)) == str(port or 0):
            matching.append(name)
    return matching


def backend_name(address: str, port: int | None) -> str:
    """The name of a backend that the user did not name: its address, from which the address can be read again."""
    return written(address, port)


# ---------------------------------------------------------------- proposals


def put_backend(catalog: Catalog, service: str, name: str, fields: Mapping[str, Any]) -> Catalog:
    """The documents to propose for a new backend, which gets a key of its own."""
    return {f"services/{service}/backends/{name}": dict(fields)}


def patch_service(catalog: Catalog, service: str, patch: Mapping[str, Any]) -> Catalog:
    key = f"services/{service}"
    return {key: merge(catalog.get(key) or {}, patch)}


def patch_backend(catalog: Catalog, service: str, name: str, patch: Mapping[str, Any] | None) -> Catalog:
    """The documents to propose, wherever the backend is stored. If ``patch`` is None it is deleted."""
    own, key = f"services/{service}/backends/{name}", f"services/{service}"
    proposed: Catalog = {}
    inline = ((catalog.get(key) or {}).get("backends") or {}).get(name)
    if inline is not None and (patch is None or own not in catalog):
        proposed[key] = merge(catalog[key], {"backends": {name: patch}})
    if own in catalog:
        proposed[own] = None if patch is None else merge(catalog[own] or {}, patch)
    return proposed


def delete_service(catalog: Catalog, service: str) -> Catalog:
    key = f"services/{service}"
    return {name: None for name in catalog if name == key or name.startswith(f"{key}/")}
