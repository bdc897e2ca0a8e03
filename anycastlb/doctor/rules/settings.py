"""The rules about node.toml and the files that it names. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from anycastlb.doctor.facts import Facts
from anycastlb.doctor.finding import Finding


def judge(facts: Facts) -> Iterator[Finding]:
    yield from _usable(facts)
    yield from secrets(facts)


def _usable(facts: Facts) -> Iterator[Finding]:
    for problem in facts.problems:
        yield Finding(
            "error", "settings", "node settings cannot be used", problem, f"anycastlb validate {facts.config}"
        )
    if facts.settings is not None:
        ranges = ", ".join(map(str, facts.settings.node.vip_ranges))
        evidence = f"{facts.config}: node {facts.settings.node.name}, vip_ranges {ranges}"
        yield Finding("ok", "settings", "node settings are valid", evidence)


def secrets(facts: Facts) -> Iterator[Finding]:
    """Whoever can read one of these files has the rights that it gives."""
    for name in facts.exposed_secrets:
        what = f"every user of this machine can read {name}, which holds a secret"
        yield Finding("warning", "settings", what, f"{name}: its mode lets others read it", f"chmod o= {name}")
