"""Break any one function of the product, so that it fails whenever it meets one service, and no other.

The function's code is exchanged, so that every name of it fails: the imported ones, and those in tables.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from types import FunctionType, ModuleType
from typing import Any

CALLERS = 3
"""How far up it is looked for whom a function is called."""
ROOT = "/anycastlb/"
GATES = ("quarantine.py", "culprits.py", "containment.py")
"""Files of the gates themselves, which know of every service while they look for one."""
DEPTH = 3
"""How deep in an argument its subject is looked for."""
SUBJECTS = ("name", "service", "vip", "key", "verdict", "case", "address", "subject", "origin")
"""The attributes that say what a value is about."""


class Broken(ArithmeticError):
    """What nobody foresaw."""


def functions(*packages: str) -> dict[str, FunctionType]:
    """The functions and methods that are written in these modules and packages, by their names."""
    known: dict[str, FunctionType] = {}
    for module in (module for name in packages for module in _modules(name)):
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            members = {name: value}
            if inspect.isclass(value):
                members = {f"{name}.{attribute}": member for attribute, member in vars(value).items()}
            for label, member in members.items():
                if (function := _plain(member)) is not None and function.__code__.co_filename == module.__file__:
                    known[f"{module.__name__}.{label}"] = function
    return known


def _modules(name: str) -> Iterator[ModuleType]:
    module = importlib.import_module(name)
    yield module
    for info in pkgutil.walk_packages(getattr(module, "__path__", []), f"{name}."):
        yield importlib.import_module(info.name)


def _plain(member: Any) -> FunctionType | None:
    if isinstance(member, (staticmethod, classmethod)):
        member = member.__func__
    elif isinstance(member, property):
        member = member.fget
    member = inspect.unwrap(member) if callable(member) else member
    return member if isinstance(member, FunctionType) else None


@dataclass
class Break:
    """A function that is broken while ``on`` is set."""

    on: bool = False
    hits: int = 0
    """How often it has failed."""


@contextmanager
def broken(function: FunctionType, about: Callable[[Any], bool]) -> Iterator[Break]:
    """The function fails, while the break is on, when one of its arguments is ``about`` the one service."""
    switch, code = Break(), function.__code__
    original = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    original.__kwdefaults__ = function.__kwdefaults__

    def call(*args: Any, **kwargs: Any) -> Any:
        if switch.on and (any(map(about, (*args, *kwargs.values()))) or _called_about(about)):
            switch.hits += 1
            if not inspect.isgeneratorfunction(original):
                raise Broken("float division by zero")
            return _failing()
        return original(*args, **kwargs)

    def shim(*args: Any, broken_call: Callable[..., Any], **kwargs: Any) -> Any:
        return broken_call(*args, **kwargs)

    def generator(*args: Any, broken_call: Callable[..., Any], **kwargs: Any) -> Iterator[Any]:
        yield from broken_call(*args, **kwargs)

    defaults = function.__kwdefaults__
    stand_in = generator if inspect.isgeneratorfunction(original) else shim  # the code of a function keeps its kind
    function.__code__ = stand_in.__code__.replace(co_freevars=code.co_freevars)
    function.__kwdefaults__ = {"broken_call": call}
    try:
        yield switch
    finally:
        function.__code__, function.__kwdefaults__ = code, defaults


def _called_about(about: Callable[[Any], bool]) -> bool:
    """Is the function called for the sake of the one service? Its callers' own values say so."""
    frame, steps = sys._getframe(3), 0
    while frame is not None and steps < CALLERS and ROOT in frame.f_code.co_filename:
        if frame.f_code.co_filename.endswith(GATES):
            return False
        if any(about(value) for name, value in frame.f_locals.items()):
            return True
        frame, steps = frame.f_back, steps + 1
    return False


def _failing() -> Iterator[Any]:
    raise Broken("float division by zero")
    yield


def about(names: Set[Any], value: Any, depth: int = DEPTH) -> bool:
    """Is a value about what has these names, and about nothing else? It calls nothing of the value's."""
    if value is None or isinstance(value, (int, float, bytes)) or depth == 0:
        return False
    if isinstance(value, (str, IPv4Address, IPv6Address)):
        return value in names
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return bool(value) and all(about(names, item, depth - 1) for item in value)
    kind = type(value)
    plain = [name for name in SUBJECTS if not isinstance(getattr(kind, name, None), (property, cached_property))]
    return any(about(names, getattr(value, name, None), depth - 1) for name in plain)
