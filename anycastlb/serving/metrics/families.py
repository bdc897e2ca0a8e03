"""Every metric there is: its name, type, labels and meaning, in one table. Nothing is measured here.

A scrape can only have families of this table (``samples_of`` fails otherwise). docs/METRICS.md is printed from here:
``python -m anycastlb.serving.metrics.families``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Sample: TypeAlias = tuple[tuple[str, ...], float]
"""Label values, and the value."""
PREFIX = "anycastlb_"


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    """As scraped, with prefix, and ``_total`` for a counter."""
    type: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    text: str


def _family(line: str, type: Literal["gauge", "counter", "histogram"]) -> Family:
    """From ``name label label: text``."""
    head, _, text = line.partition(": ")
    name, *labels = head.split()
    return Family(PREFIX + name + ("_total" if type == "counter" else ""), type, tuple(labels), text)


def _gauges(*lines: str) -> list[Family]:
    return [_family(line, "gauge") for line in lines]


def _counters(*lines: str) -> list[Family]:
    return [_family(line, "counter") for line in lines]


def _histograms(*lines: str) -> list[Family]:
    return [_family(line, "histogram") for line in lines]


SECTIONS: Mapping[str, list[Family]] = {
    "Node": [
        *_gauges(
            "build_info version: Always 1; the version is a label.",
            "node_info node exabgp: Always 1; the node's name, and the version of its ExaBGP, are labels.",
            "node_drained: 1 while this node is drained.",
            "node_stopping: 1 while this node withdraws and drains before it ends.",
            "node_leave_stage stage: 1 for how far this node has left the routes, 0 for the other stages: waiting, "
            "graceful, withdrawn, drained; absent while it does not leave.",
            "node_leave_since_timestamp_seconds: When that stage began.",
            "node_leave_deadline_timestamp_seconds: When it ends at the latest; absent for one that stays.",
            "node_leave_connections: Connections the kernel knew at the last look while this node leaves.",
            "node_leave_packets_per_second: Packets that still came then.",
            "node_clock_timestamp_seconds: The node's own clock at the scrape.",
        ),
    ],
    "Catalog": [
        *_gauges(
            "catalog_loaded: 1 once a catalog is in force; before, nothing is decided.",
            "catalog_connected: 1 while the catalog source answers.",
            "catalog_age_seconds: For how long the source has been away; 0 while it answers.",
            "catalog_cached: 1 while the catalog in force is the one kept on disk.",
            "catalog_held: 1 while a shrunken catalog waits to be confirmed.",
            "catalog_held_vips: VIPs that the held catalog has lost.",
            "catalog_index: Consul's index of the catalog in force; 0 for other sources.",
            "catalog_fingerprint: A number made of the documents in force: equal on nodes that have the same ones.",
            "catalog_services: Services in the catalog in force.",
            "catalog_vips: VIPs in the catalog in force.",
            "catalog_backends: Backends in the catalog in force, summed over its services.",
            "catalog_drained_nodes: Nodes that are drained, whether they exist or not.",
            "catalog_drained_budget: How many nodes may be drained at once; 0: any number.",
            "catalog_problems document: Faults found in documents, by the kind of document; discovery: what ails one.",
            "discovery_instances discovery: Instances in force that this discovery has found; absent while unknown.",
            "discovery_services discovery: Services that ask for this discovery.",
        ),
        *_counters("catalog_reads outcome: Reads of the catalog source: changed, unchanged, failed."),
    ],
    "Cluster": [
        *_gauges(
            "cluster_connected: 1 while the statuses of the other nodes are followed.",
            "cluster_age_seconds: For how long they could not be; 0 while they are.",
            "cluster_published: 1 while this node's own status stands where the others read it.",
            "cluster_peers_alive: Other nodes whose session lives.",
            "cluster_peers_gone: Other nodes that vanished lately.",
            "cluster_peers_unreadable: Nodes whose status is garbage.",
            "cluster_catalog_differs: 1 while living nodes have different catalogs.",
            "vip_announcers vip: Living nodes that announce this VIP, this one included.",
            "table_differs service: 1 while nodes with the same catalog have different tables for this service.",
        ),
    ],
    "VIPs": [
        *_gauges(
            "vip_open vip: 1 while this VIP may be announced.",
            "vip_closed vip reason: 1 for the one reason why this VIP may not be announced; absent while it is open.",
            "vip_kept vip why: 1 while this VIP is open though local health says no: asks (the peers), last (route), "
            "limit (max_withdrawals); absent otherwise.",
            "vip_announced vip: 1 while ExaBGP has acknowledged this VIP's route.",
            "vip_address vip: 1 while this VIP is on the loopback.",
            "vip_route_attributes vip: BGP attributes of the announced route: communities, MED and so on.",
            "vip_hold_seconds vip hold: The longest hold_up and hold_down among the VIP's services.",
            "vip_ready_timestamp_seconds vip: Since when this VIP could be served; absent while it cannot.",
            "vip_transition_timestamp_seconds vip: When this VIP last opened or closed.",
            "vip_damping_penalty vip: RFC 2439 penalty of this VIP, 0 without damping.",
            "vip_damped vip: 1 while damping keeps this VIP from being announced.",
        ),
        *_counters("vip_transitions vip to: How often this VIP opened or closed since the daemon started."),
    ],
    "Services": [
        *_gauges(
            "service_open service vip: 1 while this service can be served.",
            "service_backends service vip: Backends that could serve.",
            "service_backends_up service vip: Backends that are up.",
            "service_backends_needed service vip: Backends (or their weight) that must be up.",
            "service_unsettled_seconds service vip: How long the first results of its backends may still take.",
        ),
    ],
    "Backends": [
        *_gauges(
            "backend_up service backend vip: 1 while this backend counts as up.",
            "backend_check_up service backend vip: 1 if its last check was good, 0 if not; absent before the first.",
            "backend_check_unknown service backend vip: 1 while its check has no verdict yet.",
            "backend_check_duration_seconds service backend vip: How long its last check took.",
            "backend_transition_timestamp_seconds service backend vip: When its check last turned.",
            "backend_weight service backend vip: Its effective weight: what the kernel is to have.",
            "backend_configured_weight service backend vip: Its weight in the catalog.",
            "backend_administrative_weight service backend vip: What an operator set instead; absent if nobody did.",
            "backend_health_ratio service backend vip: The share of its weight that health grants, 0 to 1.",
            "backend_slow_start_ratio service backend vip: How far its slow start is, above 0 to 1.",
            "backend_drained service backend vip: 1 while it gets no new flows because it is drained.",
            "backend_leaves_timestamp_seconds service backend vip: When a drained backend leaves the kernel at the "
            "latest; absent otherwise.",
        ),
    ],
    "Gateways": [
        *_gauges(
            "gateway_open gateway: 1 while as many of its routes can be served as its announce.when asks for.",
            "gateway_routes gateway: Its routes.",
            "gateway_routes_up gateway: Those of them that can be served.",
            "route_open route: 1 while one of its pools at least can be served, or it needs none.",
            "pool_open pool: 1 while this pool can answer requests.",
            "pool_backends pool: Backends that could serve.",
            "pool_backends_up pool: Backends that are up.",
            "pool_backend_up pool backend: 1 while this backend counts as up.",
            "pool_backend_weight pool backend: Its effective weight; HAProxy's own is at most 256.",
            "pool_backend_passive_failed pool backend: 1 while it gets no requests because it failed too many of them; "
            "absent without max_fails.",
            "certificate_expiry_timestamp_seconds certificate: When this certificate in certificate_dir ends.",
            "certificate_served gateway certificate: 1 while HAProxy serves the one that this node has.",
            "haproxy_up: 1 while HAProxy runs with the configuration that is wanted.",
            "haproxy_statistics_up: 1 while HAProxy tells its counters, which begin anew after a reload.",
            "pool_queued pool: Requests that wait for a server now.",
            "pool_response_seconds pool: The mean time to the last 1,024 answers of its servers.",
        ),
        *_counters(
            "gateway_requests gateway hostname: Requests for this hostname, or below it for a wildcard.",
            "gateway_bytes_in gateway hostname: Bytes from clients.",
            "gateway_bytes_out gateway hostname: Bytes to clients.",
            "gateway_responses gateway hostname status: Answers by the class of their status: 2xx, 3xx, 4xx, 5xx.",
            "pool_requests pool: Requests that were sent to this pool.",
            "pool_retries pool: Tries that were repeated on the same server.",
            "pool_redispatches pool: Tries that were repeated on another server.",
            "pool_connection_errors pool: Connections to servers that failed.",
            "pool_response_errors pool: Answers of servers that could not be used.",
        ),
    ],
    "Checks": [
        *_gauges(
            "checks_running: Health checks being run.",
            "checks_probing: Probes under way.",
            "checks_waiting: Probes that wait because too many are under way.",
            "checks_limit: Probes that may be under way at one time.",
        ),
        *_counters(
            "check_results type outcome: Results of checks: good, bad, timeout, error (a fault of the check itself), "
            "withheld (this node could not run it), unknown (this node lacked descriptors, memory or ports), "
            "late (it failed while this node itself was late: it says nothing of the target)."
        ),
        *_histograms("check_duration_seconds type: How long checks take, by their type."),
    ],
    "IPVS": [
        *_gauges("ipvs_statistics_up: 1 while the kernel tells its counters."),
        *(
            family
            for what, labels in (("service", "service vip"), ("backend", "service backend vip"))
            for family in (
                *_counters(
                    f"ipvs_{what}_connections {labels}: Connections.",
                    f"ipvs_{what}_packets_in {labels}: Packets from clients.",
                    f"ipvs_{what}_packets_out {labels}: Packets to clients; 0 unless forwarded by nat.",
                    f"ipvs_{what}_bytes_in {labels}: Bytes from clients.",
                    f"ipvs_{what}_bytes_out {labels}: Bytes to clients; 0 unless forwarded by nat.",
                ),
                *_gauges(
                    f"ipvs_{what}_connection_rate {labels}: Connections per second now, as the kernel estimates.",
                    f"ipvs_{what}_packet_rate {labels} direction: Packets per second now, as the kernel estimates.",
                    f"ipvs_{what}_byte_rate {labels} direction: Bytes per second now, as the kernel estimates.",
                ),
            )
        ),
        *_gauges(
            "ipvs_backend_active service backend vip: Open connections.",
            "ipvs_backend_inactive service backend vip: Connections about to be forgotten.",
            "ipvs_timeout_seconds kind: When the kernel forgets an idle flow: tcp, tcpfin (after a FIN), udp.",
            "ipvs_sync_wanted: 1 while node.toml asks for connection sync.",
            "ipvs_sync_running role: 1 while this daemon of connection sync runs: master (tells), backup (listens).",
        ),
    ],
    "BGP": [
        *_gauges(
            "bgp_bridge_connected: 1 while the bridge in ExaBGP is connected.",
            "bgp_session_up peer: 1 while this BGP session is established.",
            "bgp_session_state peer state: 1 for the state the session is in: up, down, connected, unknown.",
            "bgp_session_transition_timestamp_seconds peer: When the session's state last changed.",
            "bgp_routes_announced: Routes ExaBGP has acknowledged.",
            "bgp_routes_rejected: Routes ExaBGP or the bridge refused.",
        ),
        *_counters(
            "bgp_session_transitions peer to: How often the session came into this state since the daemon started.",
            "bgp_bridge_transitions to: How often the bridge connected and went away since the daemon started.",
        ),
    ],
    "Reconciler": [
        *_gauges(
            "table_rows table: Rows of ours in the machine.",
            "table_rows_desired table: Rows that should be there.",
            "plan_changes table: Changes the last cycle found necessary.",
            "failed_changes table: Changes the machine refused in the last cycle.",
            "names_up table: 1 while the place where this table of names is written can be used.",
            "names_refused table: Names that their place would not take.",
            "leaving_rows: Rows nobody asks for, kept while they drain.",
            "last_cycle_timestamp_seconds: When the last cycle ended, 0 = never.",
            "reconciler_silent_seconds: Since when the reconciler gave no sign of life; above [bgp] hold routes go.",
        ),
        *_counters(
            "changes table verb: Changes made to the machine.",
            "change_failures table verb: Changes the machine refused.",
            "reconcile_cycles: Reconciler cycles finished.",
            "decision_corrections: Decisions that were not the one from scratch, which has taken their place.",
        ),
        *_histograms("reconcile_seconds: How long a reconciler cycle takes."),
    ],
    "Daemon": [
        *_gauges("http_requests_pending: Requests to the API being answered."),
        *_counters(
            "http_requests route method status: Requests to the API, by the route's template, and the status's class.",
            "events kind level: Events emitted.",
        ),
        *_histograms(
            "http_request_duration_seconds route method: How long the API takes to answer; streams are left out.",
            "event_loop_lag_seconds: How much later than due a sampled timer of the event loop ran.",
        ),
    ],
}
FAMILIES: Mapping[str, Family] = {
    family.name.removeprefix(PREFIX).removesuffix("_total"): family
    for section in SECTIONS.values()
    for family in section
}
"""The families by their names without prefix and ``_total``."""


@dataclass(frozen=True, slots=True)
class FamilySamples:
    """A family with its samples."""

    family: Family
    samples: Iterable[Sample]


class Lines(NamedTuple):
    """Samples as text."""

    labels: tuple[bytes, ...]
    """In braces, where there are any; up to where they are the same in all lines."""
    numbers: tuple[bytes, ...]
    """In the same order; if there is one only, it is that of all."""
    end: bytes = b""
    """Of all labels."""


@dataclass(frozen=True, slots=True)
class FamilyLines:
    """A family with its samples as text."""

    family: Family
    pieces: Sequence[Lines]


def samples_of(name: str, samples: Iterable[Sample]) -> FamilySamples:
    """The family ``anycastlb_<name>`` with these samples. Raises ``KeyError`` if there is none of that name."""
    return FamilySamples(FAMILIES[name], samples)


def one(value: float) -> list[Sample]:
    """The only sample of a family without labels."""
    return [((), value)]


def document() -> Iterator[str]:
    """The lines of the tables in docs/METRICS.md."""
    for title, families in SECTIONS.items():
        yield from (f"### {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|")
        for family in families:
            labels = ", ".join(f"`{label}`" for label in family.labels)
            yield f"| `{family.name}` | {family.type} | {labels} | {family.text} |"
        yield ""


if __name__ == "__main__":
    print("\n".join(document()))
