"""Health checks: one file per type, the file's name is the type in the catalog.

A check type is a model of its parameters (``Params``) and a coroutine ``probe(check)`` that returns what it found in
an operator's words (``HTTP 200``) or raises ``Down`` with what went wrong. A probe sets no time-out of its own and
keeps no state: the prober bounds it and folds its results.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from anycastlb.documents import Document
from anycastlb.model import Check


class Down(Exception):
    """The target is not healthy; the text says what was found, and what was expected where that is not plain."""


@dataclass(frozen=True, slots=True)
class CheckType:
    params: type[Document]
    probe: Callable[[Check], Awaitable[str]]


def told(error: OSError) -> str:
    """A connection error in an operator's words: ``connection refused``, ``no route to host``."""
    number = error.errno
    text = os.strerror(number) if isinstance(number, int) and number > 0 else str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


def _load() -> dict[str, CheckType]:
    names = (module.name for module in pkgutil.iter_modules(__path__))
    modules = {name.strip("_"): importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: CheckType(module.Params, module.probe) for name, module in modules.items()}


TYPES = _load()
"""Every check type by its name."""
PARAMS: dict[str, type[Document]] = {name: kind.params for name, kind in TYPES.items()}
