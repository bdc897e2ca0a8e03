"""The one module that knows which Consul library is used (python-consul2), and what of it is used."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def _library() -> Any:
    """python-consul2's endpoint classes alone: its package imports its blocking client too, which is 5 MB."""
    package = find_spec("consul")
    assert package is not None and package.origin is not None, "python-consul2 is not installed"
    spec = spec_from_file_location("consul.base", Path(package.origin).with_name("base.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


base = _library()
