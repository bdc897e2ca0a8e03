"""``anycastlb doctor``: every finding with its evidence and the command that fixes it. It needs no running node."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from anycastlb.cli.render.style import Line
    from anycastlb.doctor import Finding

CONFIG = "/etc/anycastlb/node.toml"


@click.command()
@click.option("--config", default=CONFIG, show_default=True, metavar="FILE", help="Node settings.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print findings.")
@click.option("--quiet", "-q", is_flag=True, help="Show only findings that are not fine.")
def doctor(config: str, output: str, quiet: bool) -> None:
    """Look for what keeps this machine from being a good node, and say how to fix it.

    It checks the kernel, modules, capabilities, sysctls, the MTU against what tunnels add, rp_filter, ARP, ExaBGP and
    its bridge, Consul and its rights, the catalog, the state directory and the API, and shows the values that it read.
    It changes nothing and needs no running node; without root it says what it could not see. Exit code 0: all is well;
    2: there are warnings or errors; 1: it could not run.
    """
    from anycastlb.cli import terminal
    from anycastlb.cli.settings_file import load
    from anycastlb.core.model import SettingsError
    from anycastlb.doctor import collect, diagnose
    from anycastlb.doctor.finding import worst

    try:
        facts = collect(config, load(config))
    except SettingsError as exc:
        facts = collect(config, None, tuple(map(str, exc.problems)))
    findings = diagnose(facts)
    shown = tuple(finding for finding in findings if finding.level != "ok") if quiet else findings
    if output == "json":
        click.echo(json.dumps({"worst": worst(findings), "findings": [asdict(f) for f in shown]}, indent=2))
    else:
        terminal.show(report(shown, findings, terminal.width()))
    raise SystemExit(2 if worst(findings) in ("warning", "error") else 0)


def report(shown: tuple[Finding, ...], every: tuple[Finding, ...], columns: int) -> list[Line]:
    """The findings that are shown, by area, and how many there are of each level among all."""
    from anycastlb.cli.render import style
    from anycastlb.doctor.finding import LEVELS

    signs = {
        "ok": ("✓", style.GOOD), "notice": ("·", style.BOLD), "warning": ("!", style.WARN), "error": ("✗", style.BAD),
    }  # fmt: skip
    lines: list[Line] = []
    for area in dict.fromkeys(finding.area for finding in shown):
        lines.append([(area, style.BOLD)])
        for finding in (finding for finding in shown if finding.area == area):
            sign, colour = signs[finding.level]
            level = "" if finding.level == "ok" else f"{finding.level}: "
            lines += style.wrap([(f"  {sign} {level}", colour), (finding.what, style.PLAIN)], columns, 4)
            if finding.evidence:
                lines += style.wrap([(f"    {finding.evidence}", style.DIM)], columns, 6)
            if finding.mend:
                lines += style.wrap([("    mend: ", style.WARN), (finding.mend, style.PLAIN)], columns, 10)
        lines.append([])
    counts = [style.count(sum(f.level == level for f in every), level) for level in reversed(LEVELS) if level != "ok"]
    fine = sum(finding.level == "ok" for finding in every)
    lines.append([(f"{', '.join(counts)}, {fine} fine", style.PLAIN)])
    return lines
