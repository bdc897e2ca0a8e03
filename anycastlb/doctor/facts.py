"""Everything the doctor looks at, as one frozen value. ``Unseen`` stands for what this process may not see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from anycastlb.adapters.drivers.interfaces import Interface, KernelRoute
from anycastlb.core.model import EMPTY, Address, Forward, SyncDaemon
from anycastlb.settings import Settings


@dataclass(frozen=True, slots=True)
class Unseen:
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
    """The effective set, as bits."""
    files: int = 0
    """The soft limit of open files; 0 = not known."""
    namespace: str = ""
    """Its network namespace; empty = may not be seen."""


@dataclass(frozen=True, slots=True)
class Kernel:
    release: str
    family: str = ""
    """Why the netlink family of IPVS is not there; empty = it is."""
    info: str = ""
    """IPVS' own first line in /proc/net/ip_vs."""
    loadable: Mapping[str, bool] = field(default_factory=lambda: EMPTY)
    """Module -> is it loaded, built in, or there to be loaded?"""
    config: Mapping[str, int | SyncDaemon] | Unseen = Unseen("not asked")
    """IPVS's own settings: rows of the table ``config``."""
    table_bits: int | None = None
    sysctls: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    """Name with slashes -> value; missing = this kernel does not have it."""
    owns_machine: bool = True
    """This process is in the initial user namespace."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What the catalog asks of the node."""

    services: int = 0
    backends: int = 0
    probes: int = 0
    problems: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()
    forwards: Mapping[tuple[Address, Forward], str] = field(default_factory=lambda: EMPTY)
    """(backend's address, method) -> a service/backend that is so."""
    vips: tuple[Address, ...] = ()
    caches: bool = True
    """Every flow can do without its connection entry."""
    through: bool = False
    """Some check goes through IPVS, over IPv4."""


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
    said: str


@dataclass(frozen=True, slots=True)
class ExabgpFacts:
    installed: str = ""
    """The version; empty = not found."""
    where: str = ""
    processes: tuple[Process, ...] = ()
    bridges: tuple[Process, ...] = ()
    config: str = ""
    text: str | Unseen = ""
    socket: Socket = Socket("")
    trial: Trial | Unseen = Unseen("not tried")


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
    """Its own node name."""
    skew: float = 0.0
    """Seconds its clock is ahead of ours."""
    readable: bool | Unseen = True
    writable: bool | Unseen = Unseen("not tried")
    holder: str = ""
    """The Consul node that holds this node's key, if any does."""


@dataclass(frozen=True, slots=True)
class Api:
    listen: str
    status: int | None = None
    """Of /readyz; None = nobody listens."""
    said: str = ""


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
    """What is wrong with node.toml; without settings, nothing else of it is looked at."""
    settings: Settings | None = None
    me: Process = Process(0, ())
    node: Process | None = None
    """The running daemon."""
    rivals: tuple[Process, ...] = ()
    """Other programs that manage IPVS or VIPs."""
    kernel: Kernel = Kernel("")
    links: tuple[Interface, ...] | Unseen = ()
    routes: Mapping[Address, KernelRoute] = field(default_factory=lambda: EMPTY)
    needs: Needs | Unseen = Needs()
    speaker: ExabgpFacts = ExabgpFacts()
    agent: Agent | None = None
    """None = the catalog is a directory."""
    api: Api = Api("")
    state: Folder = Folder("")
    synchronised: bool | None = None
    """Does the kernel hold its clock for right?"""
