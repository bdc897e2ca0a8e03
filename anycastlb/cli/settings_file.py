"""The settings of a node in a file: ``node.toml``."""

from __future__ import annotations

import socket
from pathlib import Path

from anycastlb import settings
from anycastlb.core.model import Problem, SettingsError
from anycastlb.settings import Settings


def load(path: str) -> Settings:
    """The settings in a file. Raises ``SettingsError``."""
    try:
        text = Path(path).read_text()
    except (OSError, ValueError) as exc:
        problem = Problem(path, "", f"expected node settings that can be read: {exc}; name the file with --config")
        raise SettingsError((problem,)) from exc
    return parsed(text, path)


def parsed(text: str, name: str) -> Settings:
    return settings.parse(text, name, socket.gethostname())
