"""Every immutable value that flows through the daemon, and the error tree.

Nothing here decides, reads a clock or touches the machine. Times called ``since``, ``at`` or ``until`` are
seconds on the daemon's monotonic clock unless their name ends in ``_wall``; durations are seconds.

The error tree, of the whole product. A private class stays in its module; every other may reach a caller::

    AnycastlbError
    ├── SettingsError              node.toml cannot be used; carries every problem found in it
    ├── SourceError                the catalog's source or the cluster's registry did not answer, or answered nonsense
    │   ├── Conflict               a write lost a race; nothing was written
    │   ├── Denied                 the registry can be read, but refuses this node's status
    │   ├── Forbidden              Consul's ACLs refuse our token
    │   ├── TransactionRefused     a condition of a Consul transaction did not hold; nothing was written
    │   └── Unconfirmed            the answer to a write to Consul is missing; it may have been written
    ├── DriverError                the machine (netlink, sysctl, ExaBGP bridge) or a record store refused or was silent
    │   ├── _NotAllowed            this process may not change addresses
    │   ├── InterfaceMissing       there is no such interface
    │   ├── DumpInterrupted        what the kernel listed has changed meanwhile: ask again
    │   ├── Overrun                answers of the kernel were lost; the outcome of the operations is unknown
    │   └── NetlinkRefused         the kernel refused a whole request; carries the errno
    │       └── FamilyMissing      the kernel has no such generic netlink family
    ├── Inexpressible              a kernel message has no room for a value
    ├── Down                       a health check found its target unhealthy
    │   ├── NotHttp                the answer is not HTTP
    │   └── UnusableTls            a certificate file of the check cannot be used
    ├── Broken                     a fault of ours kept the checker process from making or judging a check
    ├── NotOurs                    the daemon or its checker process sent the other one what is no message
    ├── MalformedDocument          a document of the catalog cannot be used; carries its problems
    ├── InvalidField               a part of a document cannot be used; carries its problems
    ├── DeepGraph                  the rules of a route are more than HAProxy could follow; names the place
    ├── UnsafeName                 a text cannot stand in HAProxy's configuration or in a command for it
    ├── HaproxyError               HAProxy cannot be asked
    │   ├── Away                   it is not running, or does not answer in time
    │   ├── Unfinished             nobody knows yet what has become of its reload
    │   └── UnknownAnswer          its answer is none that this version knows
    ├── UnreadableInput            an importer cannot read its input; names the line
    ├── GorbRefusal                a request in GORB's form asks for what cannot be done
    ├── ErulbRefusal               a request in ELB's form asks for what cannot be done
    ├── TargetMissing              an edit names an object that does not exist
    ├── UnreadableStatus           what another node published is not a node's status
    ├── _UnusableInstance          a discovered instance cannot be a backend
    ├── _InvalidValue              a value of node.toml that the bridge reads cannot be used
    ├── ProtocolError              the other end of the bridge's socket sent what is not a message
    ├── ApiError                   a request cannot be answered: HTTP status, code and advice
    │   ├── InvalidDocument        the documents of a request cannot be used; carries their problems
    │   └── LostRace               somebody else wrote between the judgement of a write and its commit
    └── ClientError                the root of the client library's errors
        ├── Unreachable            nothing answers where the node's API should be
        ├── NoAnswer               the node took the request and did not answer in time
        ├── Strange                something answers, but not as anycastlb does
        └── Refused                the node answered with an error
            ├── Denied             the credentials or the rights do not suffice
            ├── Missing            there is no such object
            ├── Conflict           a lost race, or an ETag that no longer matches
            ├── Invalid            the API does not take what was sent
            └── Unavailable        the node or its store cannot do it now
"""

from __future__ import annotations

from anycastlb.core.model.announce import Announce, Damping, Share
from anycastlb.core.model.balancing import Balancing, Passive
from anycastlb.core.model.base import (
    EMPTY,
    MARKS,
    NO_REASON,
    Address,
    AnycastlbError,
    Conflict,
    DriverError,
    Forward,
    Network,
    Problem,
    Protocol,
    Reason,
    SettingsError,
    SourceError,
    endpoint,
)
from anycastlb.core.model.catalog import Backend, Catalog, Service
from anycastlb.core.model.check import COMBINED, Check, Combination, ForwardPath, ProbePath
from anycastlb.core.model.cluster import (
    CatalogSummary,
    Cluster,
    Difference,
    DrainSummary,
    Peer,
    ServiceSummary,
    SessionSummary,
    Status,
    VipSummary,
)
from anycastlb.core.model.decision import Decision
from anycastlb.core.model.discovery import ConsulInstances, Discover, DnsInstances, Instance
from anycastlb.core.model.drain import Drain, DrainRules, NodeDrain, Stage, Traffic
from anycastlb.core.model.http import (
    BackendRef,
    ElbGraph,
    ElbRule,
    Filter,
    Gateway,
    HeaderChange,
    HttpLimits,
    HttpRoute,
    Match,
    PathMatch,
    PathRewrite,
    Redirect,
    Retry,
    Rewrite,
    Rule,
    Sticky,
    Tls,
    ValueMatch,
)
from anycastlb.core.model.http_counters import HttpCounters, PoolCounters, SiteCounters
from anycastlb.core.model.http_memory import Endpoint, HttpMemory, PoolMemory, RemovedGateway
from anycastlb.core.model.http_rows import (
    HttpCertificate,
    HttpConfig,
    HttpEngine,
    HttpServer,
    HttpServerKey,
    HttpSite,
    MapEntry,
    MapName,
    Section,
    ServerState,
    SiteKey,
)
from anycastlb.core.model.http_verdicts import (
    NO_HTTP,
    GatewayVerdict,
    HttpVerdicts,
    PoolVerdict,
    RouteVerdict,
    gateway_on_vip,
    on_vip,
)
from anycastlb.core.model.ingress import IngressKey, IngressMark, Spread
from anycastlb.core.model.inputs import Inputs, Policy
from anycastlb.core.model.leaving import Leaving
from anycastlb.core.model.machine import (
    ALL_TABLES,
    HTTP_TABLES,
    NAMES,
    TABLES,
    Change,
    Destination,
    DestinationKey,
    Failure,
    Route,
    Rows,
    ServiceKey,
    State,
    SyncDaemon,
    Table,
    TrafficCounters,
    VipAddress,
    VirtualService,
)
from anycastlb.core.model.memory import Gate, LocalTrouble, Memory, Recollection
from anycastlb.core.model.names import (
    ConsulKey,
    ConsulName,
    ConsulService,
    DnsKey,
    DnsName,
    DnsPolicy,
    DnsRecord,
    Naming,
    RecordType,
    Registrar,
)
from anycastlb.core.model.passive import PassiveFailure, PassiveFailures, Tries, TryCounters
from anycastlb.core.model.results import CheckState, Health, Result
from anycastlb.core.model.snapshot import Session, Snapshot, Speaker
from anycastlb.core.model.source import Edit, Entry, Feed, Shrink, Tree
from anycastlb.core.model.verdicts import BackendVerdict, Condition, ServiceVerdict, Verdict, Weights

__all__ = [
    "ALL_TABLES",
    "COMBINED",
    "EMPTY",
    "HTTP_TABLES",
    "MARKS",
    "NAMES",
    "NO_HTTP",
    "NO_REASON",
    "TABLES",
    "Address",
    "Announce",
    "AnycastlbError",
    "Backend",
    "BackendRef",
    "BackendVerdict",
    "Balancing",
    "Catalog",
    "CatalogSummary",
    "Change",
    "Check",
    "CheckState",
    "Cluster",
    "Combination",
    "Condition",
    "Conflict",
    "ConsulInstances",
    "ConsulKey",
    "ConsulName",
    "ConsulService",
    "Damping",
    "Decision",
    "Destination",
    "DestinationKey",
    "Difference",
    "Discover",
    "DnsInstances",
    "DnsKey",
    "DnsName",
    "DnsPolicy",
    "DnsRecord",
    "Drain",
    "DrainRules",
    "DrainSummary",
    "DriverError",
    "Edit",
    "ElbGraph",
    "ElbRule",
    "Endpoint",
    "Entry",
    "Failure",
    "Feed",
    "Filter",
    "Forward",
    "ForwardPath",
    "Gate",
    "Gateway",
    "GatewayVerdict",
    "HeaderChange",
    "Health",
    "HttpCertificate",
    "HttpConfig",
    "HttpCounters",
    "HttpEngine",
    "HttpLimits",
    "HttpMemory",
    "HttpRoute",
    "HttpServer",
    "HttpServerKey",
    "HttpSite",
    "HttpVerdicts",
    "IngressKey",
    "IngressMark",
    "Inputs",
    "Instance",
    "Leaving",
    "LocalTrouble",
    "MapEntry",
    "MapName",
    "Match",
    "Memory",
    "Naming",
    "Network",
    "NodeDrain",
    "Passive",
    "PassiveFailure",
    "PassiveFailures",
    "PathMatch",
    "PathRewrite",
    "Peer",
    "Policy",
    "PoolCounters",
    "PoolMemory",
    "PoolVerdict",
    "ProbePath",
    "Problem",
    "Protocol",
    "Reason",
    "Recollection",
    "RecordType",
    "Redirect",
    "Registrar",
    "RemovedGateway",
    "Result",
    "Retry",
    "Rewrite",
    "Route",
    "RouteVerdict",
    "Rows",
    "Rule",
    "Section",
    "ServerState",
    "Service",
    "ServiceKey",
    "ServiceSummary",
    "ServiceVerdict",
    "Session",
    "SessionSummary",
    "SettingsError",
    "Share",
    "Shrink",
    "SiteCounters",
    "SiteKey",
    "Snapshot",
    "SourceError",
    "Speaker",
    "Spread",
    "Stage",
    "State",
    "Status",
    "Sticky",
    "SyncDaemon",
    "Table",
    "Tls",
    "Traffic",
    "TrafficCounters",
    "Tree",
    "Tries",
    "TryCounters",
    "ValueMatch",
    "Verdict",
    "VipAddress",
    "VipSummary",
    "VirtualService",
    "Weights",
    "endpoint",
    "gateway_on_vip",
    "on_vip",
]
