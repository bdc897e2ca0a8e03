"""Health checks: one file per type, the file's name is the type in the catalog.

A check type is a model of its parameters (``Params``) and a coroutine ``probe(check, lane)`` that returns a ``Found``
or raises ``Down`` with what went wrong, both in an operator's words (``HTTP 200``, ``connection refused``). ``lane``
is None for a probe straight to its target; else the probe must make its sockets with it (``anycastlb.dial``), or
declare ``DIRECT_ONLY = True`` if it cannot go through IPVS. A probe sets no time-out of its own and keeps no state:
the prober bounds it (by cancelling it) and folds its results.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from anycastlb.documents import Document
from anycastlb.model import Check, Lane


@dataclass(frozen=True, slots=True)
class Found:
    """The target is healthy, and what was seen."""

    detail: str
    weight: int | None = None
    """The weight it asks for, in percent of its nominal weight (0 to 100; more is cut); None = it says nothing."""
    drain: bool = False
    """It asks for no new flows."""


class Down(Exception):
    """The target is not healthy; the text says what was found, and what was expected where that is not plain."""


@dataclass(frozen=True, slots=True)
class CheckType:
    params: type[Document]
    probe: Callable[[Check, Lane | None], Awaitable[Found]]
    direct_only: bool = False
    """It cannot go through IPVS (``"via": "forward"``)."""
    summary: str = ""
    """The first line of its documentation."""


async def part(check: Check, lane: Lane | None) -> Found | Down:
    """One check of a combination: what it found, or why not. Never raises but for being cancelled."""
    try:
        async with asyncio.timeout(check.timeout * 0.95):  # before the whole is cancelled and nobody can tell why
            return await TYPES[check.type].probe(check, lane)
    except Down as exc:
        return exc
    except TimeoutError:
        return Down(f"no answer within {check.timeout * 0.95:g} s")
    except Exception as exc:  # a fault of one probe must not hide what the others found
        return Down(f"the probe failed: {type(exc).__name__}: {exc}")


def _load() -> dict[str, CheckType]:
    names = (module.name for module in pkgutil.iter_modules(__path__))
    modules = {name.strip("_"): importlib.import_module(f"{__name__}.{name}") for name in names}
    return {
        name: CheckType(
            module.Params,
            module.probe,
            getattr(module, "DIRECT_ONLY", False),
            (module.__doc__ or "").strip().splitlines()[0],
        )
        for name, module in modules.items()
    }


TYPES = _load()
"""Every check type by its name."""
PARAMS: dict[str, type[Document]] = {name: kind.params for name, kind in TYPES.items()}
