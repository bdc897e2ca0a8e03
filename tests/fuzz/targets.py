"""What is fuzzed: how the cases of each target are made, and what is asked of it about them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fuzz import bridge, consul, documents, http, imports, netlink
from tests.fuzz.mutation import Mutator


@dataclass(frozen=True)
class Target:
    """``judge`` takes any part of what ``make`` makes, and raises what should not have been."""

    make: Callable[[Mutator], Sequence[Any]]
    judge: Callable[[Any], None]

    def items(self, seed: int, number: int) -> Sequence[Any]:
        """The items of one case, which are judged together: the same again for the same numbers."""
        return self.make(Mutator(random.Random(f"{seed} {number}")))


TARGETS: Mapping[str, Target] = {
    "documents": Target(documents.make, documents.judge),
    "http": Target(http.make, http.judge),
    "consul": Target(consul.make, consul.judge),
    "bridge": Target(bridge.make, bridge.judge),
    "netlink": Target(netlink.make, netlink.judge),
    "imports": Target(imports.make, imports.judge),
}
