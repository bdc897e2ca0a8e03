"""Facts to findings, in the order in which a packet's fate is decided."""

from __future__ import annotations

from anycastlb.doctor.facts import Facts
from anycastlb.doctor.finding import Finding
from anycastlb.doctor.rules import consul, exabgp, kernel, network


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, those that are fine too. Pure."""
    return (*_settings(facts), *kernel.judge(facts), *network.judge(facts), *exabgp.judge(facts), *consul.judge(facts))


def _settings(facts: Facts) -> list[Finding]:
    if facts.problems:
        mend = f"anycastlb validate {facts.config}"
        return [
            Finding("error", "settings", "node settings cannot be used", problem, mend) for problem in facts.problems
        ]
    assert facts.settings is not None
    ranges = ", ".join(map(str, facts.settings.node.vip_ranges))
    evidence = f"{facts.config}: node {facts.settings.node.name}, vip_ranges {ranges}"
    return [Finding("ok", "settings", "node settings are valid", evidence)]
