"""Proof that checks leak nothing: ``python -m tests.soak [--checks 100000] [NAME...]``.

Runs so many checks, shared among all cases of the contract suite (or those named), and prints what the process held
after each third of each case. Exits 1 if a socket, a task or memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.contract.cases import cases
from tests.soak import grown, soak


async def run(checks: int, names: list[str]) -> bool:
    chosen = [case for case in cases() if not names or case.name in names]
    each = checks // len(chosen)
    total, bad = 0, False
    for case in chosen:
        started = time.monotonic()
        prints = await soak(case, each)
        total += each
        found = grown(prints, each // 3)
        bad = bad or bool(found)
        print(f"{case.name}: {each} checks in {time.monotonic() - started:.0f} s")
        for held in prints:
            print(f"    {held}")
        print(f"    GROWS: {'; '.join(found)}" if found else "    nothing grows", flush=True)
    print(f"{total} checks, {'something grows' if bad else 'nothing grows'}")
    return not bad


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--checks", type=int, default=100_000, help="how many, over all cases (default 100000)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases of the contract suite (default: all)")
    given = parser.parse_args()
    return 0 if asyncio.run(run(given.checks, given.names)) else 1


if __name__ == "__main__":
    sys.exit(main())
