"""Read YAML within the same bounds as every other text (``bounds``), and nothing that YAML would quietly misread. Pure.

It is imported with the first document of YAML: the library is 1 MB, and Consul's catalogs are JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

from anycastlb.core.catalog.bounds import MAX_DEPTH, MAX_FIELD, MAX_VALUES, bounded
from anycastlb.core.fields import shown

MAX_ALIASES = 100
"""Aliases in one YAML document."""
OCTAL = re.compile(r"[-+]?0[0-9_]+")
SEXAGESIMAL = re.compile(r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
"""Numbers of YAML 1.1 that nobody means: a community of BGP is one of them."""
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Both read the same; the one in C is ten times as fast."""


def read_yaml(text: str) -> Any:
    """The value in a text of YAML. Raises ValueError."""
    try:
        _check_events(yaml.parse(text, Loader=LOADER))
        return bounded(yaml.load(text, Loader=LOADER))
    except yaml.YAMLError as exc:
        raise ValueError(str(exc)) from exc


def _check_events(events: Iterable[Any]) -> None:
    """What the reader of YAML would not tell: an alias inside of what an anchor names could double what is made of it,
    again and again; a field may stand twice; a plain text may be a number of another base."""
    anchors: list[bool] = []
    fields = _FieldNames()
    aliases = 0
    for count, event in enumerate(events):
        if count > 2 * MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values; give each backend a key of its own")
        fields.take(event)
        match event:
            case yaml.CollectionStartEvent():
                anchors.append(event.anchor is not None)
                if len(anchors) > MAX_DEPTH:
                    raise ValueError(f"deeper than {MAX_DEPTH} levels")
            case yaml.CollectionEndEvent():
                anchors.pop()
            case yaml.AliasEvent():
                aliases += 1
                if any(anchors) or aliases > MAX_ALIASES:
                    raise ValueError(f"at most {MAX_ALIASES} aliases, and none inside of what an anchor names")
            case yaml.ScalarEvent() if event.tag is None and event.implicit[0]:
                _check_plain(event.value)
        if getattr(event, "tag", None) not in (None, "!", "tag:yaml.org,2002:str"):
            raise ValueError(f"a YAML tag ({event.tag:.60}) is not read; expected plain values")


def _check_plain(text: str) -> None:
    """A text of YAML without quotes, which may be read as a number."""
    if len(text) > MAX_FIELD:
        if text[0] in "+-.0123456789":
            raise ValueError(f"a number has at most {MAX_FIELD} characters; quote what is text")
    elif OCTAL.fullmatch(text):
        raise ValueError(f"{text} begins with 0, which makes it octal in YAML: leave the 0 out, or quote a text")
    elif SEXAGESIMAL.fullmatch(text):
        raise ValueError(f"{text} is a number of base 60 in YAML: quote it")


class _FieldNames:
    """Follows the events of YAML, and raises ValueError for a field that stands twice in one mapping."""

    def __init__(self) -> None:
        self._open: list[set[str] | None] = []
        """The names so far of every mapping that is open; None for a sequence."""
        self._awaits_name: list[bool] = []

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._awaits_name.pop()
            return
        if not isinstance(event, yaml.NodeEvent):
            return
        if self._open and (names := self._open[-1]) is not None:
            if self._awaits_name[-1] and isinstance(event, yaml.AliasEvent):
                raise ValueError("an alias is no name of a field")  # it could be one that stands there already
            if self._awaits_name[-1] and isinstance(event, yaml.ScalarEvent):
                if event.value in names:
                    raise ValueError(f"the field {shown(event.value)} stands twice")
                names.add(event.value)
            self._awaits_name[-1] = not self._awaits_name[-1]
        if isinstance(event, yaml.CollectionStartEvent):
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(set() if mapping else None)
            self._awaits_name.append(mapping)
