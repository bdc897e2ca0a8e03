"""Fetches Debian packages from one suite of the mirror that this machine's own apt already uses.

Works as any user and leaves the system's apt and dpkg state alone: apt-get runs with lists, cache and status of its own
in a temporary directory. The archive's signature is checked by apt as always; a package may be pinned to a SHA-256
besides. Packages are unpacked, never installed, into

    CACHE/debian/SUITE/NAME_VERSION_ARCHITECTURE/{sha256,root/...}      with a link SUITE/NAME to the one in use

and are not looked for on the network again while they are there. Two processes may fetch at the same time. This module
must name no mirror: which one to use is the machine's affair.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

REPOSITORY = Path(__file__).resolve().parents[2]
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
RELEASES = {"oldstable", "stable", "testing", "unstable", "sid"}
"""Suites that, besides the machine's own, only the main archive is expected to have."""


class Unavailable(Exception):
    """A package cannot be had. The message says which, why, and what to do."""


def cache() -> Path:
    """The directory for everything fetched: ``ANYCASTLB_CACHE``, else ``.cache`` in the repository."""
    return Path(os.environ.get("ANYCASTLB_CACHE") or REPOSITORY / ".cache").absolute()


def cached(suite: str, name: str, pin: str | None = None) -> Path | None:
    """The root of the unpacked package, or None if it has not been fetched, or not with the SHA-256 ``pin``."""
    entry = (cache() / "debian" / suite / name).resolve()
    with contextlib.suppress(OSError):
        if pin in (None, (entry / "sha256").read_text().strip()) and (entry / "root").is_dir():
            return entry / "root"
    return None


def fetch(suite: str, names: Sequence[str], pins: Mapping[str, str] | None = None) -> dict[str, Path]:
    """The root directory of each unpacked package; the network is used only for those not in the cache.

    ``pins`` maps a package's name to the SHA-256 its file must have. Raises ``Unavailable``.
    """
    pins = pins or {}

    def missing() -> list[str]:
        return [name for name in names if cached(suite, name, pins.get(name)) is None]

    if missing():
        with locked(cache() / "debian" / suite) as shelf:
            if absent := missing():
                download(suite, absent, pins, shelf)
    return {name: cached(suite, name, pins.get(name)) or lost(suite, name) for name in names}


def lost(suite: str, name: str) -> Path:
    raise Unavailable(f"{name} of {suite} was fetched but is gone from {cache()}; was it cleaned meanwhile? Try again")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[Path]:
    """Hold the directory's lock, waiting for any other process that has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = (directory / "lock").open("a")
    except OSError as exc:
        raise Unavailable(
            f"cannot write the cache {directory}: {exc.strerror}; set ANYCASTLB_CACHE to a directory of yours"
        ) from exc
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield directory


def download(suite: str, names: Sequence[str], pins: Mapping[str, str], shelf: Path) -> None:
    """Fetch, check and unpack the packages into ``shelf``, each of them whole or not at all."""
    with listed(suite, shelf) as listing:
        listing.download(names, pins)


@dataclass(frozen=True)
class Listing:
    """A suite's package list, just fetched, and the shelf that packages of it are unpacked into."""

    suite: str
    shelf: Path
    workshop: Path
    options: Sequence[str]

    def download(self, names: Sequence[str], pins: Mapping[str, str]) -> None:
        debs = Path(tempfile.mkdtemp(prefix="debs.", dir=self.workshop))
        apt(["-qq", *self.options, "download", *names], f"download {', '.join(names)} of {self.suite}", cwd=debs)
        for deb in sorted(debs.glob("*.deb")):
            unpack(deb, pins, self.shelf, self.workshop)

    def closure(self, names: Sequence[str]) -> dict[str, str]:
        """The packages and all that they depend on, as for a machine that has nothing: name -> version."""
        wanted = [*self.options, "--no-install-recommends", "--print-uris", "install", *names]
        printed = apt(["-qq", *wanted], f"resolve what {', '.join(names)} of {self.suite} depend on")
        files = re.findall(r"^'\S+' ([^_\s]+)_([^_\s]+)_\S+ ", printed, re.MULTILINE)
        return {package: unquote(version) for package, version in files}


@contextlib.contextmanager
def listed(suite: str, shelf: Path) -> Iterator[Listing]:
    """Fetch the suite's package list; what is left over afterwards is removed."""
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=shelf, ignore_cleanup_errors=True) as scratch:
        yield Listing(suite, shelf, Path(scratch), update(suite, Path(scratch)))


def unpack(deb: Path, pins: Mapping[str, str], shelf: Path, workshop: Path) -> None:
    """Check the package against its pin, then move its unpacked tree and its link into place."""
    query = ["dpkg-deb", "--showformat", "${Package} ${Version} ${Architecture}", "-W", str(deb)]
    name, version, architecture = subprocess.run(query, check=True, text=True, capture_output=True).stdout.split()
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    if pins.get(name, digest) != digest:
        raise Unavailable(f"{name} {version} has SHA-256 {digest}, expected {pins[name]}; it is not used")
    entry = workshop / f"{name}_{version.replace(':', '%')}_{architecture}"
    entry.mkdir()
    subprocess.run(["dpkg-deb", "-x", str(deb), str(entry / "root")], check=True)
    (entry / "sha256").write_text(digest + "\n")
    target = shelf / entry.name
    if target.exists():
        shutil.rmtree(target)
    entry.rename(target)
    link = workshop / f"{name}.link"
    link.symlink_to(target.name)
    link.rename(shelf / name)


def update(suite: str, workshop: Path) -> list[str]:
    """Fetch the suite's package list from the first mirror that has it; the apt options that use this list."""
    tried = []
    for mirror in mirrors():
        print(f"fetching the package list of {suite} from {mirror}", file=sys.stderr, flush=True)
        options = private(suite, mirror, workshop)
        try:
            apt(["-qq", *options, "update"], f"read suite {suite}")
        except Unavailable as exc:
            tried.append(f"{mirror}: {exc}")
        else:
            return options
    raise Unavailable(
        f"no mirror with the Debian suite {suite}: "
        + ("; ".join(tried) or "this machine's apt has no Debian source")
        + ". Name one that has it in ANYCASTLB_DEBIAN_MIRROR"
    )


def mirrors() -> list[str]:
    """The machine's own mirrors of the main archive, likeliest first. No ``apt-get update`` need have been run."""
    if chosen := os.environ.get("ANYCASTLB_DEBIAN_MIRROR"):
        return [chosen.rstrip("/")]
    release = Path("/etc/os-release")
    codename = re.search(r"^VERSION_CODENAME=\"?(\w+)", release.read_text() if release.exists() else "", re.MULTILINE)
    suites = RELEASES | ({codename[1]} if codename else set())
    uris = apt(["update", "--print-uris"], "read this machine's sources")
    found = [
        uri
        for uri, suite in re.findall(r"^'(\S+?)/*/dists/([^/']+)/\w*Release'", uris, re.MULTILINE)
        if suite in suites
    ]
    return sorted(dict.fromkeys(found), key=lambda uri: not uri.endswith("/debian"))


def private(suite: str, mirror: str, workshop: Path) -> list[str]:
    """Options that give apt-get one source, state of its own, and none of the machine's hooks; its proxies are kept."""
    keyring = next((path for path in KEYRINGS if Path(path).exists()), None)
    if keyring is None:
        raise Unavailable("no Debian archive keyring; install the package debian-archive-keyring")
    for directory in ("lists/partial", "cache/archives/partial"):
        (workshop / directory).mkdir(parents=True, exist_ok=True)
    (workshop / "status").touch()
    (workshop / "suite.sources").write_text(
        f"Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nTargets: Packages\nSigned-By: {keyring}\n"
    )
    (workshop / "apt.conf").write_text(
        "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
    )
    settings = {
        "Dir::Etc::sourcelist": workshop / "suite.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": workshop,
        "Dir::State::lists": workshop / "lists",
        "Dir::State::status": workshop / "status",
        "Dir::Cache": workshop / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    return [
        "-c",
        str(workshop / "apt.conf"),
        *(part for key, value in settings.items() for part in ("-o", f"{key}={value}")),
    ]


def apt(arguments: Sequence[str], purpose: str, cwd: Path | None = None) -> str:
    """Run apt-get; its output. Raises ``Unavailable`` with apt's own words."""
    try:
        done = subprocess.run(
            ["apt-get", *arguments], cwd=cwd, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as exc:
        raise Unavailable(f"cannot {purpose}: there is no apt-get; this works on Debian only") from exc
    if done.returncode != 0:
        words = " ".join(done.stderr.split()) or f"apt-get ended with status {done.returncode}"
        raise Unavailable(f"cannot {purpose}: {words}")
    return done.stdout
