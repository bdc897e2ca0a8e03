"""What a HAProxy that is away is to start with: all that is wanted, or as much of it as it would start with.

One rule that it does not take, or one certificate that is not there any more, must not keep it from serving the rest.
What is left out counts as refused once it runs, and closes the gates of what needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from anycastlb.adapters.certificates import fingerprint
from anycastlb.adapters.drivers.haproxy import commands
from anycastlb.adapters.drivers.haproxy.engine import Engine
from anycastlb.adapters.drivers.haproxy.entries import Maps
from anycastlb.adapters.drivers.haproxy.installation import Installation
from anycastlb.adapters.drivers.haproxy.inventory import MapContents
from anycastlb.adapters.drivers.haproxy.observed import Observed
from anycastlb.core.http.static import engine_of
from anycastlb.core.model import HttpConfig, HttpEngine, MapEntry, Reason


async def write(engine: Engine, installation: Installation, wanted: Observed, maps: Maps) -> Reason | None:
    """Write the files; why HAProxy would start with none of it. ``maps``: the entries beside those of the sites."""
    added = [entry for site in wanted.sites.values() for entry in site.entries if commands.is_data(*entry[1:])]
    whole, first = _with(maps, added), None
    for row in _configurations(wanted.engine.get("config"), installation):
        for rows, contents in ((wanted, whole), (replace(wanted, sites={}), MapContents())):
            reason = await engine.write_for_start(row, rows, contents)
            if reason is None:
                return None
            first = first or reason
    return first


def _configurations(row: HttpEngine | None, installation: Installation) -> Iterator[HttpEngine | None]:
    """What is wanted, and then only the gateways whose certificates are there."""
    yield row
    if row is not None and row.config is not None:
        config = _without_certificates(row.config, installation)
        if config != row.config:
            yield engine_of(config)


def _without_certificates(config: HttpConfig, installation: Installation) -> HttpConfig:
    certain = [
        gateway
        for gateway in config.gateways
        if gateway.tls is None or all(_usable(name, installation) for name in gateway.tls.certificates)
    ]
    return replace(config, gateways=tuple(certain))


def _usable(certificate: str, installation: Installation) -> bool:
    try:
        fingerprint(installation.certificate(certificate).read_text("latin-1"))
    except (OSError, ValueError):
        return False
    return True


def _with(maps: Mapping[str, Mapping[str, str]], added: Iterable[MapEntry]) -> MapContents:
    contents = {name: dict(keys) for name, keys in maps.items()}
    for entry in added:
        contents.setdefault(entry.map, {})[entry.key] = entry.value
    return contents
