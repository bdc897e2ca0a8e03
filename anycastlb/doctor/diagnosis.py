"""From facts to findings: which rules are applied when. Pure.

``diagnose`` applies every rule, for ``anycastlb doctor``. A daemon applies those that decide whether it can serve:
``AT_START`` before it touches anything, and ``WITH_CATALOG`` whenever it has taken over a new catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from anycastlb.doctor.facts import Facts
from anycastlb.doctor.finding import LEVELS, Finding
from anycastlb.doctor.rules import consul, exabgp, haproxy, kernel, network, settings

Rule: TypeAlias = Callable[[Facts], Iterator[Finding]]

AT_START: tuple[Rule, ...] = (
    kernel.privilege,
    kernel.release,
    kernel.ipvs_available,
    kernel.schedulers,
    kernel.takeover_sysctls,
    network.reverse_path,
    settings.secrets,
    haproxy.installed,
)
"""The rules that need to know nothing but this machine and node.toml. The first findings explain the others."""

WITH_CATALOG: tuple[Rule, ...] = (network.forwarding, kernel.probe_answers)
"""The rules about what the services of a catalog ask of this machine."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, those included that are fine, in the order in which a packet's fate is decided."""
    return tuple(
        finding for area in (settings, kernel, network, exabgp, haproxy, consul) for finding in area.judge(facts)
    )


def preflight(facts: Facts, rules: Iterable[Rule] = AT_START) -> tuple[Finding, ...]:
    """The warnings and errors that these rules find, errors first. An error means that the node cannot serve."""
    findings = [finding for rule in rules for finding in rule(facts) if finding.level in ("warning", "error")]
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level), reverse=True))
