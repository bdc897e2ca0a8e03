"""ExaBGP's settings for a node of the lab: the shipped ``exabgp/exabgp.conf`` and ``exabgp.env``, edited as they tell
an operator to, so that what is proven here is what is shipped."""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tests.lab.namespaces import LabError
from tests.lab.router import AS, NODE_AS
from tests.lab.topology import uplink

SHIPPED = Path(__file__).resolve().parents[2] / "exabgp"
EDITS = {
    r"^    run .*;$": "    run {bridge};",
    r"local-as \d+;": f"local-as {NODE_AS};",
    r"peer-as \d+;": f"peer-as {AS};",
}
NEIGHBOR = """
neighbor {router} {{
    inherit tor;
    router-id {router_id};
    local-address {local};
    family {{
        ipv{version} unicast;
    }}
}}
"""


def environment() -> dict[str, str]:
    """``exabgp.env`` as environment variables, but run by root."""
    parser = configparser.ConfigParser()
    parser.read_string((SHIPPED / "exabgp.env").read_text())
    values = {
        f"{section}.{name}".replace(".", "_"): value.strip("'")
        for section in parser.sections()
        for name, value in parser[section].items()
    }
    return {**values, "exabgp_daemon_user": "root"}


def exabgp_conf(node: str, bridge: Sequence[str]) -> str:
    """The shipped template with the lab's neighbors in place of its examples."""
    text = (SHIPPED / "exabgp.conf").read_text().partition("\nneighbor ")[0]
    for pattern, replacement in EDITS.items():
        line = replacement.format(bridge=shlex.join(bridge))
        text, edits = re.subn(pattern, lambda found, line=line: line, text, flags=re.M)  # type: ignore[misc]
        if edits != 1:
            raise LabError(f"exabgp/exabgp.conf has {edits} lines like {pattern!r}; the lab expects one")
    for version in (4, 6):
        text += NEIGHBOR.format(
            router=uplink(node, version, router=True),
            local=uplink(node, version),
            router_id=uplink(node, 4),
            version=version,
        )
    return text
