"""Health checks: one file per type, the file's name is the type in the catalog.

A check type is a model of its parameters (``Params``) and a coroutine ``probe(check, probe_path)`` that returns a
``Found`` or raises ``Down`` (``probe.outcome``), both in an operator's words (``HTTP 200``, ``connection refused``).
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
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import ModuleType
from typing import Protocol

from anycastlb.adapters.checks.probe import secrets
from anycastlb.adapters.checks.probe.outcome import Down, Exchange, Found, Lean, Probe
from anycastlb.core.fields import Document
from anycastlb.core.model import COMBINED, Check, ProbePath
from anycastlb.settings import ChecksSettings

__all__ = [
    "PARAMS",
    "TYPES",
    "CheckType",
    "Down",
    "Exchange",
    "Found",
    "Policy",
    "Probe",
    "Reader",
    "parameters",
    "types",
]


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

    def refusal(self, check: Check, now: float | None = None) -> str:
        """Why a check must not be made now; empty if it may. ``now``: monotonic seconds, if the caller knows them."""

    def always_allows(self, check: Check) -> bool:
        """May the check be made at any time, so that nobody need ask before each probe?"""


def types(settings: ChecksSettings, policy: Policy | None = None) -> dict[str, CheckType]:
    """Every check type by its name, as a node with these settings runs it.

    What ``policy`` refuses is down without having been tried. A check made of others is as free as each of them.
    """
    known: dict[str, CheckType] = {}
    for name, module in _modules().items():
        params, probe = module.bound(settings, known) if hasattr(module, "bound") else (module.Params, module.probe)
        summary = (module.__doc__ or "").strip().splitlines()[0]
        lean = getattr(module, "lean", _never)
        if name not in COMBINED:
            probe, lean = _revealed(settings, probe), _without_secrets(lean)
            if policy is not None:
                probe, lean = _permitted(policy, probe), _permitted_lean(policy, lean)
        known[name] = CheckType(params, probe, params.direct_only, lean, summary)
    return known


def _revealed(settings: ChecksSettings, probe: Probe) -> Probe:
    """The probe with the secrets that it sends, which it does not tell."""

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
    return lambda check: None if secrets.named_by(check) else lean(check)


def _permit(policy: Policy, check: Check, now: float | None = None) -> None:
    if why := policy.refusal(check, now):
        raise Down(why)


def _permitted(policy: Policy, probe: Probe) -> Probe:
    async def permitted(check: Check, probe_path: ProbePath | None) -> Found:
        _permit(policy, check)
        return await probe(check, probe_path)

    return permitted


def _permitted_lean(policy: Policy, lean: Lean) -> Lean:
    def permitted(check: Check) -> Exchange | None:
        exchange = lean(check)
        if exchange is None or policy.always_allows(check):
            return exchange
        return replace(exchange, permit=partial(_permit, policy, check))

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
