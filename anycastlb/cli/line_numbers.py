"""The line of a document on which a dotted path is set, so that a problem can be found with an editor. Pure.

It is a best effort: the line is 0 if it is not known. Names may contain dots (``backends.10.1.0.1.weight``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

MAX_CHARACTERS = 128 * 1024
"""No line is looked for in a longer text, since that takes too long."""
_STATED = re.compile(r"\bline (\d+)")


def line_of(text: str, form: str, path: str, message: str = "") -> int:
    """The 1-based line of ``path``, or of the object that holds it, in a JSON, TOML or YAML text.

    Without a path, it is the line that ``message`` names.
    """
    if not path:
        stated = _STATED.search(message)
        return int(stated[1]) if stated else 0
    if len(text) > MAX_CHARACTERS:
        return 0
    places = _toml(text) if form == "toml" else _nodes(text)
    best = (0, 0)
    for name, line in places:
        if path == name or path.startswith(name + "."):
            best = max(best, (len(name), line))
    return best[1]


def _toml(text: str) -> Iterator[tuple[str, int]]:
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            table = header[1].replace('"', "")
            yield table, number
        elif setting := re.match(r'\s*([\w."\'-]+)\s*=', line):
            name = setting[1].replace('"', "").replace("'", "")
            yield (f"{table}.{name}" if table else name), number


def _nodes(text: str) -> Iterator[tuple[str, int]]:
    """JSON is read as YAML. Tabs become spaces, since YAML refuses them; the lines stay the same."""
    try:
        root = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
        yield from _walk(root, "")
    except (yaml.YAMLError, RecursionError, ValueError):
        return


def _walk(node: yaml.Node | None, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{path}.{key.value}" if path else str(key.value)
            yield name, key.start_mark.line + 1
            yield from _walk(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            name = f"{path}.{place}"
            yield name, value.start_mark.line + 1
            yield from _walk(value, name)
