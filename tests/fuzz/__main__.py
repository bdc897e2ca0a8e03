"""Fuzz the node's parsers: ``python -m tests.fuzz [--seconds 60] [--seed N] [--only NUMBER] [TARGET...]``.

Each target has an equal share of the time. It prints how many cases there were and what they took, and each find with
the words that make it again. Exits 1 if there was one: an exception, or a case of more than 50 ms of the processor.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import sys
import time
import traceback

from tests.fuzz.mutation import Mutator
from tests.fuzz.requests import run as run_requests
from tests.fuzz.targets import TARGETS, Case

STALL = 0.05
"""Seconds of the processor that one case may take."""
MAX_FINDS = 5
"""Of one target, after which it ends."""


def once(case: Case, seed: int, number: int) -> float:
    """The seconds of the processor that a case took."""
    mutator = Mutator(random.Random(f"{seed} {number}"))
    began = time.process_time()
    case(mutator)
    return time.process_time() - began - mutator.spent


def fuzz(name: str, case: Case, seed: int, seconds: float, only: int | None) -> bool:
    """Did a target bear it?"""
    end, number, finds, slowest = time.monotonic() + seconds, only or 0, 0, (0.0, 0)
    began = time.process_time()
    while time.monotonic() < end and finds < MAX_FINDS:
        again = f"python -m tests.fuzz --seed {seed} --only {number} {name}"
        try:
            took = once(case, seed, number)
            if took > STALL:  # the garbage of others is collected in anybody's time
                gc.collect()
                took = min(took, once(case, seed, number))
            slowest = max(slowest, (took, number))
            if took > STALL:
                finds += 1
                print(f"{name}: {1000 * took:.0f} ms of the processor: {again}", flush=True)
        except Exception:
            finds += 1
            print(f"{name}: {again}\n{traceback.format_exc()}", flush=True)
        number += 1
        if only is not None:
            break
    spent = time.process_time() - began
    cases = number - (only or 0)
    print(f"{name}: {cases} cases, {1000 * spent / max(cases, 1):.2f} ms each, the slowest {1000 * slowest[0]:.0f} ms "
          f"(--only {slowest[1]}), {finds} finds", flush=True)  # fmt: skip
    return not finds


def main() -> int:
    names = [*TARGETS, "requests"]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (default 60)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="the same cases again")
    parser.add_argument("--only", type=int, help="only the case of this number")
    parser.add_argument("targets", nargs="*", choices=[*names, []], metavar="TARGET", help=", ".join(names))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    chosen = given.targets or names
    share = given.seconds / len(chosen)
    print(f"seed {given.seed}, {share:.0f} s for each of {', '.join(chosen)}", flush=True)
    well = [fuzz(name, TARGETS[name], given.seed, share, given.only) for name in chosen if name in TARGETS]
    if "requests" in chosen:
        well.append(run_requests(given.seed, share, given.only))
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
