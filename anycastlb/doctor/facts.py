"""Everything that the doctor judges, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.adapters.drivers.interfaces import Interface, KernelRoute
from anycastlb.core.model import EMPTY, Address, Forward, SyncDaemon
from anycastlb.settings import Settings

RIVALS = ("keepalived", "ldirectord", "merlin", "gorb", "kube-proxy", "seesaw_engine", "seesaw_ncc", "surealived")
"""Programs that manage IPVS or VIPs too."""

MAX_ROUTES = 2000
"""Backends that the kernel is asked the way to."""


@dataclass(frozen=True, slots=True)
class Unseen:
    """Stands for a fact that this process may not or cannot see."""

    why: str


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    argv: tuple[str, ...]
    parent: int = 0
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: int = 0
    """The effective capabilities, as bits."""
    files: int = 0
    """The soft limit of open files; 0 if it is not known."""
    namespace: str = ""
    """Its network namespace; empty if it may not be seen."""

    @property
    def rival(self) -> str:
        """Which of ``RIVALS`` it is; empty: none. A script is named by its second word."""
        return next((name for word in self.argv[:2] if (name := word.rpartition("/")[2]) in RIVALS), "")


@dataclass(frozen=True, slots=True)
class Kernel:
    release: str
    family: str = ""
    """Why the netlink family of IPVS does not exist; empty if it does."""
    info: str = ""
    """IPVS' own first line in /proc/net/ip_vs."""
    loadable: Mapping[str, bool] = field(default_factory=lambda: EMPTY)
    """Module -> is it loaded, built in, or available to be loaded?"""
    config: Mapping[str, int | SyncDaemon] | Unseen = Unseen("not asked")
    """IPVS's own settings: the rows of the table ``config``."""
    table_bits: int | None = None
    sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Name with slashes -> value; a name is missing if this kernel does not have it."""
    read_only: frozenset[str] = frozenset()
    """The sysctls that this process may not write."""
    owns_machine: bool = True
    """This process is in the initial user namespace."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the catalog asks of the machine."""

    services: int = 0
    backends: int = 0
    probes: int = 0
    problems: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()
    forwards: Mapping[tuple[Address, Forward], str] = field(default_factory=lambda: EMPTY)
    """(address of a backend, forwarding method) -> a service/backend with both."""
    vips: tuple[Address, ...] = ()
    caches: bool = True
    """No flow depends on its connection entry: the entries are only caches."""
    through: bool = False
    """A check goes through IPVS, over IPv4."""


@dataclass(frozen=True, slots=True)
class Socket:
    """The unix socket of the daemon for ExaBGP's bridge."""

    path: str
    kind: str = "missing"
    """``missing``, ``socket``, ``other`` or ``unreachable``."""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    group: str = ""
    listening: bool = False
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """``anycastlb-bridge --check``, run as ExaBGP's user."""

    command: str
    code: int
    output: str


@dataclass(frozen=True, slots=True)
class ExabgpFacts:
    installed: str = ""
    """The version; empty if ExaBGP was not found."""
    location: str = ""
    processes: tuple[Process, ...] = ()
    bridges: tuple[Process, ...] = ()
    config: str = ""
    text: str | Unseen = ""
    socket: Socket = Socket("")
    trial: Trial | Unseen = Unseen("not tried")


@dataclass(frozen=True, slots=True)
class HaproxyFacts:
    program: str
    version: str | Unseen
    """Empty: it is not installed."""
    processes: tuple[Process, ...] = ()
    """Those that run with this node's configuration."""
    directory: bool = True
    """There is one for its configuration."""
    config: bool = True
    """The daemon has written one."""
    silence: str = ""
    """Why its Runtime API cannot be used; empty if it can."""


@dataclass(frozen=True, slots=True)
class Agent:
    """The Consul agent."""

    address: str
    error: str = ""
    leader: str = ""
    latency: float = 0.0
    """Seconds of one round trip."""
    version: str | Unseen = ""
    name: str = ""
    """The name of its Consul node."""
    skew: float = 0.0
    """Seconds its clock is ahead of ours."""
    readable: bool | Unseen = True
    writable: bool | Unseen = Unseen("not tried")
    holder: str = ""
    """The Consul node whose session holds this node's key; empty if none does."""


@dataclass(frozen=True, slots=True)
class Api:
    listen: str
    status: int | None = None
    """The HTTP status of /readyz; None if nothing listens."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    path: str
    exists: bool = False
    writable: bool | Unseen = False
    free: int = 0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Facts:
    config: str
    problems: tuple[str, ...] = ()
    """What is wrong with node.toml. Without settings, facts that depend on them are not collected."""
    settings: Settings | None = None
    starting: bool = False
    """This process is the node, and is starting: what it manages it has not set yet."""
    me: Process = Process(0, ())
    node: Process | None = None
    """The daemon that runs; None if none does."""
    rivals: tuple[Process, ...] = ()
    """Other programs that manage IPVS or VIPs."""
    kernel: Kernel = Kernel("")
    links: tuple[Interface, ...] | Unseen = ()
    routes: Mapping[Address, KernelRoute] = field(default_factory=lambda: EMPTY)
    needs: Needs | Unseen = Needs()
    speaker: ExabgpFacts = ExabgpFacts()
    haproxy: HaproxyFacts | None = None
    """None if node.toml has no ``[http]``."""
    agent: Agent | None = None
    """None if the catalog is a directory."""
    api: Api = Api("")
    state: Folder = Folder("")
    synchronised: bool | None = None
    """Does the kernel consider its clock synchronised? None if it does not say."""
    loopback_manager: str = ""
    """Who configures the loopback: ``systemd-networkd`` or ``NetworkManager``; empty if neither does."""
    exposed_secrets: tuple[str, ...] = ()
    """Files with secrets of the API that every user of this machine can read."""
