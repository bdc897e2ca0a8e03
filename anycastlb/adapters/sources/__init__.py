"""Sources: where the raw catalog tree comes from, one file per source.

A source reads whole trees and says when they changed. It parses no document, keeps nothing on disk and never
retries: the follower does. A store is the same place from the writing side, for the API; it has its own connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from anycastlb.core.model import Edit, Tree


class Source(Protocol):
    async def read(self, after: Tree | None) -> Tree:
        """Wait until the tree's entries differ from those of ``after``, and return the whole tree.

        ``None``: return the tree at once, as it is now and as surely as the source can know (no stale answer).
        Keys are relative to the source's root (``services/web``). May be cancelled at any await. Raises
        ``SourceError`` when the source does not answer, or answers what is no catalog; the caller retries.
        """
        ...

    async def close(self) -> None:
        """Let go of every socket, thread and watch; a later ``read`` opens them again."""
        ...


class Store(Protocol):
    async def load(self) -> Tree:
        """The whole tree as it is now, read consistently; every entry with its ``version``. Raises ``SourceError``."""
        ...

    async def commit(self, edits: Sequence[Edit], judged: Tree | None = None) -> None:
        """Make all the edits, or none: readers see the tree before or the tree after, whatever dies meanwhile.

        ``judged``: the tree, as ``load`` returned it, in which somebody found the edits good. They are then made only
        if no other write that was judged came in between, whichever keys it wrote.

        Raises ``Conflict`` if a key is not as its edit expects, or the tree is not the one that was judged (nothing was
        written), ``SourceError`` if the store did not answer, may not be written, or refused.
        """
        ...

    async def close(self) -> None: ...
