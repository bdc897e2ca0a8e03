"""``[checks]``: what health checks may use on this node."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from anycastlb.core.fields import Document, one_or_many, shown
from anycastlb.core.model import MARKS
from anycastlb.settings.marks import MarkRange
from anycastlb.settings.node import NetworkText


def _programs(value: Any) -> Any:
    """Parse patterns of absolute paths. A ``*`` stands for a part of one name, never for a ``/``."""
    patterns = one_or_many(value)
    for pattern in patterns:
        parts = pattern.split("/") if isinstance(pattern, str) else []
        if len(parts) < 2 or parts[0] or not all(parts[1:]) or {".", ".."} & set(parts):
            raise ValueError(
                "absolute paths of programs, in which * stands for any part of a name, "
                f'such as "/usr/local/lib/anycastlb/checks/*", not {shown(pattern)}'
            )
    return tuple(patterns)


class Secret(Document):
    """A file with one secret, read at every probe that sends it."""

    file: Annotated[str, Field(pattern=r"^/[^\x00]*$", max_length=4096)]
    networks: Annotated[tuple[NetworkText, ...], BeforeValidator(one_or_many)] = ()
    """Only to targets in these networks it may be sent; to every backend unless given."""


SecretText = Annotated[Secret, BeforeValidator(lambda value: {"file": value} if isinstance(value, str) else value)]


class ChecksSettings(Document):
    commands: Annotated[tuple[str, ...], BeforeValidator(_programs)] = ()
    """The programs that ``command`` checks may run on this node; none unless given."""
    networks: Annotated[tuple[NetworkText, ...], BeforeValidator(one_or_many)] = ()
    """The only networks in which checks may go; everywhere but to the node itself unless given."""
    secrets: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], SecretText] = Field(
        default_factory=dict
    )
    """What checks may send as ``${secret:NAME}``: the file it stands in, and whom it may be sent to."""
    marks: MarkRange = MARKS
    """The firewall marks for probes with ``"via": "forward"``, as (low, high); one for each backend. Every IPVS service
    with such a mark is ours."""
