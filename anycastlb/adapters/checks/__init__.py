"""Health checks: one file per type, the file's name is the type in the catalog.

A check type is a model of its parameters (``Params``) and a coroutine ``probe(check, probe_path)`` that returns a
``Found`` or raises ``Down`` with what went wrong, both in an operator's words (``HTTP 200``, ``connection refused``).
``probe_path`` is None for a probe straight to its target; else the probe must make its sockets with it
(``probe.sockets``), or declare ``DIRECT_ONLY = True`` if it cannot go through IPVS. A probe sets no time-out of its own
and keeps no state: the prober bounds it (by cancelling it) and folds its results.

A type whose probes are often no more than one request and one answer over TCP has a function ``lean(check)`` besides,
which returns them as an ``Exchange``, or None for a check that needs the coroutine. The lean engine
(``probe.lean``) runs that at a fraction of the cost; both must come to the same results in the same words.

A type that depends on the node it runs on has, in place of ``probe``, a function ``bound(settings, types)`` that
returns its model and its coroutine for a node with these settings, whose check types are ``types``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol

from anycastlb.core.catalog.check import COMBINED
from anycastlb.core.fields import Document
from anycastlb.core.model import AnycastlbError, Check, ProbePath
from anycastlb.settings import ChecksSettings


@dataclass(frozen=True, slots=True)
class Found:
    """The target is healthy, and what was seen."""

    detail: str
    weight: int | None = None
    """The weight it asks for, in percent of its nominal weight (0 to 100; more is cut); None = it says nothing."""
    drain: bool = False
    """It asks for no new flows."""


class Down(AnycastlbError):
    """The target is not healthy; the text says what was found, and what was expected where that is not plain."""


Probe = Callable[[Check, ProbePath | None], Awaitable[Found]]


class Reader(Protocol):
    """Judges an answer as it comes. Both raise ``Down``."""

    def feed(self, data: bytes) -> Found | None:
        """What the answer means, as soon as enough of it has come."""

    def end(self) -> Found:
        """What it means that no more will come."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a plain probe sends once it is connected over TCP, and who reads the answer."""

    request: bytes
    reader: Callable[[], Reader] | None
    """Makes the reader of one answer; None if being connected is enough."""
    permit: Callable[[], None] | None = None
    """Is called before each probe, and raises ``Down`` if it must not be made."""


Lean = Callable[[Check], Exchange | None]


def _never(check: Check) -> Exchange | None:
    return None


@dataclass(frozen=True, slots=True)
class CheckType:
    params: type[Document]
    probe: Probe
    direct_only: bool = False
    """It cannot go through IPVS (``"via": "forward"``)."""
    lean: Lean = _never
    """The check as a plain exchange over TCP, which needs no coroutine; None if it is more than that."""
    summary: str = ""
    """The first line of its documentation."""


class Policy(Protocol):
    """Says which checks may be made on this node (``probe.reach``)."""

    def refusal(self, check: Check) -> str:
        """Why a check must not be made now; empty if it may."""


def types(settings: ChecksSettings, policy: Policy | None = None) -> dict[str, CheckType]:
    """Every check type by its name, as a node with these settings runs it.

    What ``policy`` refuses is down without having been tried. A check made of others is as free as each of them.
    """
    found: dict[str, CheckType] = {}
    for name, module in _modules().items():
        params, probe = module.bound(settings, found) if hasattr(module, "bound") else (module.Params, module.probe)
        summary = (module.__doc__ or "").strip().splitlines()[0]
        lean = getattr(module, "lean", _never)
        if name not in COMBINED:
            probe, lean = _revealed(settings, probe), _without_secrets(lean)
            if policy is not None:
                probe, lean = _permitted(policy, probe), _permitted_lean(policy, lean)
        found[name] = CheckType(params, probe, params.direct_only, lean, summary)
    return found


def _revealed(settings: ChecksSettings, probe: Probe) -> Probe:
    """The probe with the secrets that it sends, which it does not tell."""
    from anycastlb.adapters.checks.probe import secrets  # it uses what is defined here

    async def revealed(check: Check, probe_path: ProbePath | None) -> Found:
        if not secrets.named_by(check):
            return await probe(check, probe_path)
        filled = secrets.reveal(check, settings.secrets)
        try:
            return filled.hidden(await probe(filled.check, probe_path))
        except Exception as exc:
            raise filled.failure(exc) from exc.__cause__

    return revealed


def _without_secrets(lean: Lean) -> Lean:
    """None for a check that sends a secret: what is sent is read anew for each probe."""
    from anycastlb.adapters.checks.probe import secrets

    return lambda check: None if secrets.named_by(check) else lean(check)


def _permit(policy: Policy, check: Check) -> None:
    if why := policy.refusal(check):
        raise Down(why)


def _permitted(policy: Policy, probe: Probe) -> Probe:
    async def permitted(check: Check, probe_path: ProbePath | None) -> Found:
        _permit(policy, check)
        return await probe(check, probe_path)

    return permitted


def _permitted_lean(policy: Policy, lean: Lean) -> Lean:
    def permitted(check: Check) -> Exchange | None:
        exchange = lean(check)
        return exchange and replace(exchange, permit=lambda: _permit(policy, check))

    return permitted


def parameters(types: Mapping[str, CheckType]) -> dict[str, type[Document]]:
    """What the parser of the catalog needs of them."""
    return {name: kind.params for name, kind in types.items()}


def _modules() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    modules = {name.strip("_"): importlib.import_module(f"{__name__}.{name}") for name in names}
    for module in modules.values():
        module.Params.direct_only = getattr(module, "DIRECT_ONLY", False)  # the parser of the catalog sees only Params
    return modules


TYPES = types(ChecksSettings())
"""Every check type by its name, as a node runs it whose settings allow nothing special."""
PARAMS = {name: module.Params for name, module in _modules().items()}
"""The parameters of every check type, for reading documents without knowing the node: what a node forbids is fine."""
