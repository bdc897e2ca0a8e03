"""The rules about ExaBGP and its bridge: are they installed, running, allowed to use the socket, connected? Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from anycastlb.bridge import exabgp_config
from anycastlb.doctor.facts import ExabgpFacts, Facts, Process, Socket, Unseen
from anycastlb.doctor.finding import Finding, Level

MIN_VERSION = (5, 0, 13)
NEXT_VERSION = (6,)
"""The first that is not known to work."""
INSTALL = 'pip install "exabgp>=5.0.13,<6"'
RUNS_BRIDGE = re.compile(r"^\s*run\s+[^#\n]*anycastlb[-.]bridge", re.MULTILINE)
SETTING = "[bgp] group"


def judge(facts: Facts) -> Iterator[Finding]:
    speaker = facts.speaker
    yield _installed(speaker)
    yield from _running(speaker)
    yield from _config(speaker)
    if facts.settings is not None:
        yield from _socket(facts, speaker)
        yield from _trial(speaker, facts.config)


def _installed(speaker: ExabgpFacts) -> Finding:
    if not speaker.installed:
        what = "ExaBGP is not installed beside anycastlb, nor on PATH"
        return Finding("error" if not speaker.processes else "notice", "bgp", what, "no exabgp found", INSTALL)
    version = tuple(int(part) for part in re.findall(r"\d+", speaker.installed)[:3])
    evidence = f"exabgp {speaker.installed} ({speaker.location})"
    if version < MIN_VERSION:
        what = "this ExaBGP is too old: it gives no answer to what it refuses, and a peer may put data into its API"
        return Finding("error", "bgp", what, evidence, INSTALL)
    if version >= NEXT_VERSION:
        return Finding("warning", "bgp", "this ExaBGP is newer than what is known to work", evidence, INSTALL)
    return Finding("ok", "bgp", "ExaBGP is installed", evidence)


def _running(speaker: ExabgpFacts) -> Iterator[Finding]:
    if not speaker.processes:
        mend = "systemctl start anycastlb-exabgp"
        yield Finding("warning", "bgp", "ExaBGP does not run: nothing is announced", "no process exabgp", mend)
        return
    pids = ", ".join(str(process.pid) for process in speaker.processes)
    owned = [bridge for bridge in speaker.bridges if bridge.parent in {process.pid for process in speaker.processes}]
    if owned:
        evidence = f"exabgp: process {pids}; bridge: process {', '.join(str(bridge.pid) for bridge in owned)}"
        yield Finding("ok", "bgp", "ExaBGP runs, and runs the bridge", evidence)
    else:
        what = "ExaBGP runs, but no bridge: it does not hear of this node"
        mend = "exabgp validate -nrv /etc/exabgp/exabgp.conf  # see process anycastlb in exabgp/exabgp.conf"
        yield Finding("error", "bgp", what, f"exabgp: process {pids}; no process anycastlb-bridge below it", mend)
    if len(owned) > 1:
        what = "more than one bridge runs: the daemon talks to the first alone"
        evidence = f"processes {', '.join(str(bridge.pid) for bridge in owned)}"
        yield Finding("warning", "bgp", what, evidence, "run one ExaBGP for anycastlb")


def _config(speaker: ExabgpFacts) -> Iterator[Finding]:
    if not speaker.config:
        return
    if isinstance(speaker.text, Unseen):
        yield Finding("notice", "bgp", f"{speaker.config} could not be read", speaker.text.why, "run it as root")
        return
    text = re.sub(r"#.*", "", speaker.text)
    if not RUNS_BRIDGE.search(text):
        what = f"{speaker.config} runs no anycastlb-bridge"
        mend = f"add the process anycastlb of exabgp/exabgp.conf to {speaker.config}"
        yield Finding("error", "bgp", what, 'no "run ... anycastlb-bridge" in it', mend)
        return
    yield Finding("ok", "bgp", f"{speaker.config} runs the bridge", RUNS_BRIDGE.findall(text)[0].strip())
    for trouble in exabgp_config.troubles(exabgp_config.read(text)):
        level: Level = "error" if trouble.serious else "warning"
        yield Finding(level, "bgp", trouble.what, f"{speaker.config}: {trouble.where}", trouble.remedy)


def _socket(facts: Facts, speaker: ExabgpFacts) -> Iterator[Finding]:
    socket = speaker.socket
    if socket.kind == "missing":
        level: Level = "error" if facts.node else "notice"
        what = "the daemon's socket for the bridge is not there" + ("" if facts.node else ": the node does not run")
        yield Finding(level, "bgp", what, socket.path, "systemctl start anycastlb")
        return
    if socket.kind == "unreachable":
        yield Finding("notice", "bgp", "the socket for the bridge could not be seen", socket.path, "run it as root")
        return
    if socket.kind == "other":
        what = "the file in the place of the bridge's socket is no socket"
        yield Finding("error", "bgp", what, socket.path, f"rm {socket.path}")
        return
    yield from _reachable(socket, speaker.processes)
    evidence = f"{socket.path}: {'listening' if socket.listening else 'nobody listens'}, {socket.connections} connected"
    if not socket.listening:
        yield Finding("warning", "bgp", "the socket is a dead daemon's", evidence, "systemctl start anycastlb")
    elif not socket.connections:
        mend = "systemctl status anycastlb-exabgp"
        yield Finding("error", "bgp", "no bridge is connected to the node", evidence, mend)
    else:
        yield Finding("ok", "bgp", "the bridge is connected to the node", evidence)


def _reachable(socket: Socket, speakers: tuple[Process, ...]) -> Iterator[Finding]:
    chosen = [process for process in speakers if _may(socket, process)]
    for process in speakers:
        if chosen and process not in chosen:
            what = (
                f"process {process.pid} of user {process.uid} is called exabgp too; it may not use the daemon's socket"
            )
            yield Finding("notice", "bgp", what, f"process {process.pid}: {' '.join(process.argv)[:100]}")
            continue
        access = f"{socket.path}: mode {socket.mode:04o}, owner {socket.uid}, group {socket.group}"
        evidence = f"{access}; exabgp: user {process.uid}"
        if not _may(socket, process):
            what = "ExaBGP's user may not use the daemon's socket"
            mend = f'set group = "{process.gid}" under {SETTING} in node.toml  # the group ExaBGP runs with'
            yield Finding("error", "bgp", what, f"{evidence}, groups {sorted({process.gid, *process.groups})}", mend)
        else:
            yield Finding("ok", "bgp", "ExaBGP's user may use the daemon's socket", evidence)


def _may(socket: Socket, process: Process) -> bool:
    if process.uid == 0:
        return True
    if process.uid == socket.uid:
        return bool(socket.mode & 0o200)
    if socket.gid in {process.gid, *process.groups}:
        return bool(socket.mode & 0o020)
    return bool(socket.mode & 0o002)


def _trial(speaker: ExabgpFacts, config: str) -> Iterator[Finding]:
    if isinstance(speaker.trial, Unseen):
        mend = f"runuser -u exabgp -- anycastlb-bridge --config {config} --check"
        yield Finding("notice", "bgp", "the bridge was not tried as ExaBGP's user", speaker.trial.why, mend)
        return
    evidence = f"{speaker.trial.command}: {speaker.trial.output or 'no output'}"
    if speaker.trial.code:
        what = "ExaBGP's user cannot run the bridge with these settings"
        yield Finding("error", "bgp", what, evidence, f"make {config} and the program readable to that user")
    else:
        yield Finding("ok", "bgp", "ExaBGP's user can run the bridge", evidence)
