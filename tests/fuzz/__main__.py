"""Fuzz the node's parsers: ``python -m tests.fuzz [--seconds 60] [--seed N] [--only NUMBER] [TARGET...]``.

Each target has an equal share of the time. It prints how many cases there were and what they took, and each find with
the words that make it again. Exits 1 if there was one: an exception, or more than 50 ms of the processor for one
item of a case.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from tests.fuzz.requests import run as run_requests
from tests.fuzz.stalls import STALL
from tests.fuzz.targets import TARGETS, Target

MAX_FINDS = 5
"""Of one target, after which it ends."""


def judged(target: Target, items: Sequence[Any]) -> float:
    """The seconds of the processor that it took to judge them."""
    began = time.process_time()
    target.judge(items)
    return time.process_time() - began


def slowest_of(target: Target, items: Sequence[Any]) -> float:
    """The seconds of the processor that the slowest of them takes alone."""
    gc.collect()  # the garbage of others is collected in anybody's time
    return max(min(judged(target, [item]) for _ in range(2)) for item in items)


def fuzz(name: str, target: Target, seed: int, seconds: float, only: int | None) -> bool:
    """Did a target bear it?"""
    end, number, finds, slowest, count = time.monotonic() + seconds, only or 0, 0, (0.0, 0), 0
    began = time.process_time()
    while time.monotonic() < end and finds < MAX_FINDS:
        again = f"python -m tests.fuzz --seed {seed} --only {number} {name}"
        items = target.items(seed, number)
        count += len(items)
        try:
            if judged(target, items) > STALL:
                took = slowest_of(target, items)
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
    each = 1000 * (time.process_time() - began) / max(count, 1)
    tail = f", the slowest {1000 * slowest[0]:.0f} ms (--only {slowest[1]})" if slowest[0] else ""
    print(f"{name}: {count} in {number - (only or 0)} cases, {each:.2f} ms each{tail}, {finds} finds", flush=True)
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
