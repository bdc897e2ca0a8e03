"""The check documents: the check of one backend from its merged document, with the checks inside of it.

Pure. How a backend's check is merged over its service's is ``merged_check``'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from pydantic import ValidationError

from anycastlb.core.catalog.schema import CheckDocument
from anycastlb.core.fields import Document, problems, shown
from anycastlb.core.model import COMBINED, Address, AnycastlbError, Check, Combination, Problem

UNAIMED = ("none", "icmp", "command", "syslog")
"""Check types that need no port, or know their own."""
TIMETABLE = {"interval", "timeout", "rise", "fall", "fast_interval", "down_interval", "via"}
MAX_DEPTH = 3
MAX_PARTS = 64
"""Checks in one combined check, at all depths together."""
CheckTypes = Mapping[str, type[Document]]
"""Check type -> the model of its parameters."""


class InvalidField(AnycastlbError):
    """A part of a service document that cannot be used, with its problems."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class ReadCheck:
    """The fields that all check types have, those of the type, and what is wrong with them."""

    common: Mapping[str, Any]
    own: Mapping[str, Any]
    timing: CheckDocument | None
    params: Document | None
    wrong: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class DocumentPath:
    """The place of a check in its document, for its problems, and the known check types."""

    key: str
    path: str
    types: CheckTypes
    read: dict[object, ReadCheck]
    """The check documents that were read before."""

    def bad(self, path: str, expected: str) -> InvalidField:
        """The error for a field of this check."""
        return InvalidField([Problem(self.key, f"{self.path}.{path}", expected)])


def parse_check(
    where: DocumentPath, document: Mapping[str, Any], address: Address, port: int, through: bool, depth: int = 0
) -> Check:
    """One check document of a backend at this address, with those inside of it. Raises ``InvalidField``."""
    kind = document.get("type", "tcp")
    if not isinstance(kind, str) or kind not in where.types:
        raise where.bad("type", f"expected one of {', '.join(where.types)}, not {shown(kind)}")
    read = _read_check(where, kind, document)
    timing = read.timing
    params: Document | Combination | None = read.params
    if through and where.types[kind].direct_only:
        able = ", ".join(name for name, model in where.types.items() if not model.direct_only)
        raise where.bad("via", f"expected direct: {kind} cannot go through IPVS (forward is for {able})")
    if timing is None or params is None:
        raise InvalidField(
            [Problem(where.key, f"{where.path}.{problem.path}", problem.expected) for problem in read.wrong]
        )
    target, aim = timing.address or address, timing.port or port
    if kind in COMBINED:
        params = _combination(where, read.own, read.common, address, aim, through, depth)
    elif not aim and kind not in UNAIMED:
        raise where.bad("port", "missing; expected the port to check, as the backend has none")
    return Check(
        type=kind,
        address=target,
        port=aim,
        params=params,
        interval=timing.interval,
        timeout=timing.timeout,
        rise=timing.rise,
        fall=timing.fall,
        fast_interval=timing.fast_interval,
        down_interval=timing.down_interval,
        elsewhere=target != address,
    )


def _read_check(where: DocumentPath, kind: str, document: Mapping[str, Any]) -> ReadCheck:
    """The check's document without regard to whose it is: most backends share one."""
    same = tuple((name, id(value)) for name, value in document.items())  # the values live as long as the service's
    if (known := where.read.get(same)) is not None:
        return known
    common = {name: document[name] for name in CheckDocument.model_fields if name in document}
    own = {name: value for name, value in document.items() if name not in CheckDocument.model_fields}
    wrong: list[Problem] = []
    timing: CheckDocument | None = None
    params: Document | None = None
    try:
        timing = CheckDocument.model_validate(common)
    except ValidationError as exc:
        wrong += problems(exc, where.key)
    try:
        params = where.types[kind].model_validate(own)
    except ValidationError as exc:
        wrong += problems(exc, where.key)
    where.read[same] = ReadCheck(common, own, timing, params, tuple(wrong))
    return where.read[same]


def _combination(
    where: DocumentPath,
    own: Mapping[str, Any],
    common: Mapping[str, Any],
    address: Address,
    port: int,
    through: bool,
    depth: int,
) -> Combination:
    """The checks inside an ``all`` or ``any``; they run by the time-table of the whole."""
    parts = own.get("checks")
    if depth == 0 and parts_of(own) > MAX_PARTS + 1:
        raise where.bad("checks", f"expected at most {MAX_PARTS} checks in all, at all depths together")
    if depth > MAX_DEPTH or not isinstance(parts, list) or not 1 <= len(parts) <= 16:
        raise where.bad("checks", f"expected a list of 1 to 16 checks, at most {MAX_DEPTH + 1} deep")
    inherited = {name: value for name, value in common.items() if name != "type"}
    checks: list[Check] = []
    wrong: list[Problem] = []
    for place, part in enumerate(parts):
        inside = replace(where, path=f"{where.path}.checks.{place}")
        try:
            if not isinstance(part, dict):
                raise inside.bad("type", f"expected an object, not {shown(part)}")
            if scheduled := sorted(set(part) & TIMETABLE):
                raise inside.bad(scheduled[0], "expected the time-table outside, in the whole check")
            checks.append(parse_check(inside, {**inherited, **part}, address, port, through, depth + 1))
        except InvalidField as exc:
            wrong += exc.problems
    if wrong:
        raise InvalidField(wrong)
    return Combination(tuple(checks))


def parts_of(check: Any) -> int:
    """How many checks a raw check document is, with those inside of it."""
    level, count = [check], 0
    while level:
        count += len(level)
        lists = [one.get("checks") for one in level if isinstance(one, dict)]
        level = [part for some in lists if isinstance(some, list) for part in some]
    return count


def strange_check(key: str, document: Mapping[str, Any], check_types: CheckTypes) -> tuple[Problem, ...]:
    """What is wrong with a check that belongs to no backend yet, as in the defaults, or in a service without backends.
    Of one that names no type only the fields that all types have are known."""
    known = document if "type" in document else {n: v for n, v in document.items() if n in CheckDocument.model_fields}
    sample, through = ip_address("192.0.2.1"), "type" in document and document.get("via") == "forward"
    try:
        parse_check(DocumentPath(key, "check", check_types, {}), {"type": "none", **known}, sample, 80, through)
    except InvalidField as exc:
        return tuple(exc.problems)
    return ()


def merged_check(under: Mapping[str, Any] | None, over: Mapping[str, Any] | None) -> dict[str, Any]:
    """A check over another: field by field if it is the same type, else the upper one alone."""
    under, over = under or {}, over or {}
    if "type" in over and over["type"] != under.get("type", over["type"]):
        return dict(over)
    return {**under, **over}
