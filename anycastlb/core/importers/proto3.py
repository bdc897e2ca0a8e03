"""Read a message of proto3 in JSON field by field.

A field may be named in camelCase or in snake_case; an enum is a name or a number, a number may be a text, and null is
the default. Whatever is of another shape raises ``UnreadableInput``, which names its place. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from anycastlb.core.fields import shown
from anycastlb.core.importers.documents import UnreadableInput, address
from anycastlb.core.model import Address

UINT32 = 2**32 - 1


class Message:
    """Its fields are taken one by one; what nobody took is ``unread``."""

    def __init__(self, value: Any, path: str = "") -> None:
        self._path = path
        self._inside: list[Message] = []
        self._fields: dict[str, Any] = {}
        if not isinstance(value, dict):
            raise self.bad("", "an object", value)
        for name, given in value.items():
            snake = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
            if snake in self._fields:
                raise UnreadableInput(0, f"{self._at(snake):.200}: expected once, in one spelling")
            if given is not None:
                self._fields[snake] = given

    def bad(self, name: str, expected: str, value: Any = None) -> UnreadableInput:
        """That a field, or the message itself, is not what was expected."""
        place = self._at(name)
        found = "" if value is None else f", not {shown(value)}"
        return UnreadableInput(0, f"{place}: expected {expected}{found}" if place else f"expected {expected}{found}")

    def unread(self) -> Iterator[str]:
        """The path of each field that nobody took, here and in the messages that were."""
        yield from (self._at(name) for name in self._fields)
        for message in self._inside:
            yield from message.unread()

    def one_of(self, *names: str) -> str:
        """Which of the members of a ``oneof`` is there."""
        there = [name for name in names if name in self._fields]
        if len(there) != 1:
            raise self.bad("", f"exactly one of {', '.join(names)}, and there is {' and '.join(there) or 'none'}")
        return there[0]

    def message(self, name: str) -> Message:
        """A message that must be there."""
        if name not in self._fields:
            raise self.bad(name, "an object, and it is missing")
        self._inside.append(Message(self._fields.pop(name), self._at(name)))
        return self._inside[-1]

    def optional(self, name: str) -> Message | None:
        return self.message(name) if name in self._fields else None

    def number(self, name: str, high: int = UINT32) -> int:
        return self._whole(name, self._fields.pop(name, 0), high)

    def share(self, name: str) -> float:
        """A number from 0 to 1."""
        value = self._fields.pop(name, 0)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,20})?", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise self.bad(name, "a number from 0 to 1", value)
        return float(value)

    def text(self, name: str) -> str:
        return self._text(name, self._fields.pop(name, ""))

    def flag(self, name: str) -> bool:
        value = self._fields.pop(name, False)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false", value)
        return value

    def choice(self, name: str, names: Sequence[str]) -> str:
        """A value of the enum that has these names; the first is the default."""
        return self._enum(name, self._fields.pop(name, 0), names)

    def choices(self, name: str, names: Sequence[str]) -> list[str]:
        return [self._enum(name, value, names) for value in self._list(name)]

    def numbers(self, name: str) -> list[int]:
        return [self._whole(name, value, UINT32) for value in self._list(name)]

    def texts(self, name: str) -> list[str]:
        return [self._text(name, value) for value in self._list(name)]

    def map(self, name: str) -> dict[str, str]:
        """A map of texts to texts."""
        value = self._fields.pop(name, {})
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise self.bad(name, "an object of texts", value)
        return value

    def address(self, name: str) -> Address:
        """The address in a message of the name, which has ``ipv4`` or ``ipv6``."""
        message = self.message(name)
        text = message.text(message.one_of("ipv4", "ipv6"))
        try:
            return address(text, 0)
        except UnreadableInput as exc:
            raise self.bad(name, "a unicast address, IPv4 or IPv6", text) from exc

    def _at(self, name: str) -> str:
        return ".".join(filter(None, (self._path, name)))

    def _list(self, name: str) -> list[Any]:
        value = self._fields.pop(name, [])
        if not isinstance(value, list):
            raise self.bad(name, "a list", value)
        return value

    def _whole(self, name: str, value: Any, high: int) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
            raise self.bad(name, "a whole number", value)
        if not 0 <= value <= high:
            raise self.bad(name, f"a number from 0 to {high}", value)
        return int(value)

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.bad(name, "a text", value)
        return value

    def _enum(self, name: str, value: Any, names: Sequence[str]) -> str:
        if value in names:
            return str(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        raise self.bad(name, f"one of {', '.join(names)}", value)
