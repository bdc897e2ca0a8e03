"""ExaBGP's configuration for a node of the lab: the shape of ``exabgp/exabgp.conf``, with the lab's addresses."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tests.lab.router import AS, NODE_AS
from tests.lab.topology import uplink

EXABGP_ENV = {
    "exabgp_api_ack": "true",
    "exabgp_api_cli": "false",
    "exabgp_api_respawn": "true",
    "exabgp_daemon_user": "root",
    "exabgp_daemon_daemonize": "false",
    "exabgp_log_destination": "stdout",
    "exabgp_log_level": "INFO",
}

HEAD = """
process anycastlb {{
    run {bridge};
    encoder json;
    respawn true;
}}
template {{
    neighbor tor {{
        local-as {node_as};
        peer-as {router_as};
        hold-time 9;
        listen 179;
        adj-rib-in false;
        adj-rib-out true;
        group-updates true;
        capability {{
            asn4 enable;
            route-refresh enable;
            graceful-restart disable;
        }}
        api {{
            processes [ anycastlb ];
            neighbor-changes;
        }}
    }}
}}
"""
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


def exabgp_conf(node: str, bridge: Sequence[str]) -> str:
    text = HEAD.format(bridge=shlex.join(bridge), node_as=NODE_AS, router_as=AS)
    for version in (4, 6):
        text += NEIGHBOR.format(
            router=uplink(node, version, router=True),
            local=uplink(node, version),
            router_id=uplink(node, 4),
            version=version,
        )
    return text
