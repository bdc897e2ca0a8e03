"""A fault, or a pair of them, happens to the running lab; what becomes of it is judged. Many of them by hand::

    tests/rig/testkernel.py run -- python -m tests.lab.trials alone      every fault by itself
    tests/rig/testkernel.py run -- python -m tests.lab.trials 0:100      the pairs of these seeds

prints a line for each, with what was wrong, and ends with status 1 if anything was.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.lab import harm, judge, lateness
from tests.lab.faults import BGP_HOLD, CELLS, HOLD, VICTIM, Fault, Name, Plan, faults, pair, state_dir
from tests.lab.judge import ALONE, PAUSE, WEB, Evidence, Observer, Whole
from tests.lab.lab import CHECK, Lab, document
from tests.lab.namespaces import LabError
from tests.lab.process import until
from tests.lab.topology import own, vip

MORE: dict[str, Any] = {"drain": "2s", "check": {**CHECK, "interval": "500ms", "fall": 2}}
COMMAND = vip(2)
"""A VIP whose backend is checked by a program, which the checker must be able to start."""
BY_COMMAND = {"type": "command", "command": ["/bin/true"], "interval": "2s", "timeout": "5s"}
DISKS = {"state_dir": "8M", "Consul": "64M"}


@contextmanager
def prepared(lab: Lab) -> Iterator[Whole]:
    """Three services; lb1 gives its routes up soon; its state_dir and Consul's data are on small disks of their own."""
    lab.reset()
    settings, programs = lab.lb1.settings.read_text(), (lab.lb1.daemon, lab.consul.process)
    with ExitStack() as undo:
        undo.callback(lab.consul.ready)  # at the very end, so that whoever has the lab next finds it well
        for program in programs:  # each is started once, with all of it: that takes long in a test kernel
            undo.callback(program.start)
            program.kill()
        undo.callback(lab.lb1.settings.write_text, settings)
        lab.lb1.settings.write_text(settings.replace('hold = "600s"', f'hold = "{HOLD:g}s"'))
        if harm.own_kernel():
            undo.enter_context(harm.disk(state_dir(lab), DISKS["state_dir"]))
            undo.enter_context(harm.disk(lab.directory / "consul", DISKS["Consul"]))
        for program in programs:
            undo.callback(program.kill)
            program.start()
        lab.consul.ready()
        lab.ready()
        lab.put("web", document(WEB, **MORE))
        lab.put("alone", document(ALONE, backends={VICTIM: {"address": own(VICTIM)}}, **MORE))
        lab.put("command", document(COMMAND, backends={"b1": {"address": own("b1")}}, drain="2s", check=BY_COMMAND))
        lab.settle(WEB, ALONE, COMMAND)
        yield judge.whole(lab)


def trial(lab: Lab, before: Whole, plan: Plan) -> tuple[str, list[str]]:
    """What was seen, and what was wrong with it. Raises ``LabError`` if something is awaited in vain."""
    judge.back(lab, before)
    table = faults()
    chosen = tuple(table[name] for name in plan.names)
    logs, running, observer = judge.lengths(lab), judge.processes(lab), Observer(lab)
    with observer.watching(), lab.client.load(WEB, pause=PAUSE) as load:
        more(load)
        began = lateness.now()
        left = happen(lab, plan, chosen)
        if any(kind == "clock step" for _, kind in plan.names):
            time.sleep(1.5 * BGP_HOLD)  # ExaBGP sends no sign of life before its old time: the sessions end once more
        judge.back(lab, before)
        more(load)
        over = time.monotonic()
    leaving = may_leave(plan.names, chosen)
    ended = frozenset(name for name, pid in judge.processes(lab).items() if pid != running[name])
    evidence = Evidence(chosen, began, tuple(observer.sights), load, judge.grown(logs), leaving, ended)
    told = f"{load}; {left}; all back after {over - began:.1f} s, {len(observer.sights)} looks"
    return told, list(evidence.complaints())


def more(load: Any, count: int = 4) -> None:
    sent = load.sent
    until(lambda: load.sent > sent + count, f"{count} more requests are sent", every=PAUSE)


def happen(lab: Lab, plan: Plan, chosen: tuple[Fault, ...]) -> str:
    """The faults begin and end; while all of them last, what must go goes: after how many seconds."""
    stacks: list[ExitStack] = []
    try:
        for number, fault in enumerate(chosen):
            time.sleep(plan.gap if number else 0)
            stacks.append(ExitStack())
            stacks[-1].enter_context(fault.act(lab))
        since = lateness.now()
        left = gone(lab, plan, chosen, since)
        time.sleep(max(0.0, plan.lasts - (time.monotonic() - since)))
        return left
    finally:
        with ExitStack() as ends:  # the last that is pushed ends first
            for stack in stacks if plan.backwards else stacks[::-1]:
                ends.push(stack)


def gone(lab: Lab, plan: Plan, chosen: tuple[Fault, ...], since: float) -> str:
    """What nobody serves, or nobody vouches for, goes while the faults last."""
    left = []
    if any(fault.deaf for fault in chosen):
        return "nothing is judged by the routes"
    if leaves(plan.names, chosen):
        until(lambda: "lb1" not in lab.router.routes(WEB), f"the routes of lb1 go: {plan}", every=PAUSE)
        left.append(f"lb1 gone after {_took(since)}")
    if any(fault.dead for fault in chosen):
        until(lambda: not lab.router.routes(ALONE), f"the VIP that only {VICTIM} serves goes: {plan}", every=PAUSE)
        left.append(f"what {VICTIM} alone serves gone after {_took(since)}")
        what = f"nobody who is routed to sends flows to {VICTIM}: {plan}"
        until(lambda: not Observer(lab).look().dirty, what, every=PAUSE)
    return ", ".join(left) or "nothing had to go"


def _took(since: float) -> str:
    return f"{time.monotonic() - since:.1f} s ({lateness.lost(since):.1f} s lost)"


def leaves(names: tuple[Name, ...], chosen: tuple[Fault, ...]) -> bool:
    """Must lb1's routes go? A bridge that is stopped withdraws nothing for a daemon that says nothing: there,
    systemd ends the daemon, and its successor the bridge."""
    silent = {("daemon", "kill"), ("daemon", "stop")} & set(names)
    return any(fault.leaves is not None for fault in chosen) and not (silent and ("bridge", "stop") in names)


def may_leave(names: tuple[Name, ...], chosen: tuple[Fault, ...]) -> bool:
    """May lb1's routes go? They may, too, where a part that ended is not replaced because the one that would is in
    trouble itself."""
    targets = {target for target, _ in names}
    ended = {target for fault in chosen for target in fault.ends}
    orphaned = (ended & {"bridge"} and targets & {"ExaBGP", "daemon"}) or (ended & {"checker"} and "daemon" in targets)
    return bool(orphaned) or any(not fault.harmless for fault in chosen)


def plans(wanted: str) -> list[Plan]:
    if wanted == "alone":
        return [Plan((name,)) for name in faults()]
    if ":" in wanted:
        first, _, last = wanted.partition(":")
        return [pair(seed) for seed in range(int(first), int(last))]
    return [Plan(tuple(name for name in CELLS if " ".join(name) in wanted.split(" + ")))]


def main(wanted: list[str]) -> int:
    wrong = 0
    with Lab() as lab, prepared(lab) as before:
        for plan in [plan for word in wanted for plan in plans(word)]:
            wrong += not tried(lab, before, plan)
    print(f"{wrong} went wrong")
    return bool(wrong)


def tried(lab: Lab, before: Whole, plan: Plan) -> bool:
    """Print what became of it."""
    try:
        told, complaints = trial(lab, before, plan)
    except (LabError, OSError) as exc:
        traceback.print_exc()
        told, complaints = "", [str(exc)]
    if complaints:
        print(*(process.tail(40) for node in lab.nodes.values() for process in (node.daemon, node.exabgp)), sep="\n")
    print(f"{'WRONG' if complaints else 'ok   '} {plan}: {told}", *complaints, sep="\n      ", flush=True)
    return not complaints


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
