"""Fill in the secrets that checks send, from files that node.toml names, right before a probe sends them.

A document holds only a reference, ``${secret:NAME}``, in ``send`` or in the value of a header. So does every value that
is shown, logged, published or kept. What a target echoes of a secret is taken out of what the probe says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anycastlb.adapters.checks.probe.outcome import Down, Found
from anycastlb.adapters.checks.probe.reach import targets
from anycastlb.core.model import Check
from anycastlb.settings.checks import Secret

MARK = "${secret:"
REFERENCE = re.compile(r"\$\{secret:([^{}]{0,200})\}")
MAX_SECRET = 4096
"""Bytes of a secret's file."""
MIN_ECHO = 6
"""Characters of a secret's beginning that are taken out of a result: a message may have cut the rest off."""


@dataclass(frozen=True, slots=True)
class Revealed:
    """A check with its secrets filled in, and those secrets by name."""

    check: Check
    values: Mapping[str, str]

    def hide(self, text: str) -> str:
        """The text without the secrets, or what they begin with."""
        for name, value in self.values.items():
            written = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1]}
            if echo := max((_longest(one, text) for one in written), key=len):
                text = text.replace(echo, f"(secret {name})")
        return text

    def hidden(self, result: Found) -> Found:
        return replace(result, detail=self.hide(result.detail))

    def failure(self, error: Exception) -> Exception:
        """What to raise for what the probe has raised."""
        text = self.hide(str(error))
        if text == str(error):
            return error
        hidden = Down(text if isinstance(error, Down) else f"the probe failed: {type(error).__name__}: {text}")
        hidden.__cause__ = error.__cause__
        return hidden


def _longest(value: str, text: str) -> str:
    """The longest beginning of the value that is in the text; empty if that is too short to tell anything."""
    for length in range(len(value), min(MIN_ECHO, len(value)) - 1, -1):
        if value[:length] in text:
            return value[:length]
    return ""


def named_by(check: Check) -> bool:
    """Does the check send a secret?"""
    return any(MARK in text for text in _texts(check.params))


def reveal(check: Check, secrets: Mapping[str, Secret]) -> Revealed:
    """Read the files and fill the secrets in. Raises ``Down``, which says what an operator of this node can do."""
    values: dict[str, str] = {}

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            values[name] = _read(name, secrets, check)
        return values[name]

    params = check.params
    update: dict[str, Any] = {}
    if (send := getattr(params, "send", "")) and MARK in send:
        update["send"] = REFERENCE.sub(lambda match: one(match).replace("\\", r"\\"), send)
    if headers := getattr(params, "headers", ()):
        update["headers"] = tuple((name, REFERENCE.sub(one, value)) for name, value in headers)
    filled = params.model_copy(update=update)  # type: ignore[attr-defined]
    return Revealed(replace(check, params=filled), values)


def _texts(params: object) -> tuple[str, ...]:
    return (getattr(params, "send", ""), *(value for _, value in getattr(params, "headers", ())))


def _read(name: str, secrets: Mapping[str, Secret], check: Check) -> str:
    secret = secrets.get(name)
    if secret is None:
        raise Down(f"not tried: this node has no secret {name!r}; name its file in [checks.secrets] of node.toml")
    for address, _, _ in targets(check):
        if secret.networks and not any(address in network for network in secret.networks):
            raise Down(f"not tried: the secret {name!r} may not be sent to {address} ([checks.secrets] in node.toml)")
    try:
        with Path(secret.file).open("rb") as file:
            value = file.read(MAX_SECRET + 1)
        text = value.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as exc:
        what = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise Down(f"not tried: the secret {name!r} cannot be read from {secret.file}: {what}") from None
    if not text or len(value) > MAX_SECRET or not text.isprintable():
        expected = f"expected one line of printable text, at most {MAX_SECRET} bytes"
        raise Down(f"not tried: the secret {name!r} in {secret.file} cannot be used; {expected}")
    return text
