"""Sources: where the raw catalog tree comes from, one file per source.

A source reads whole trees and says when they changed. It parses no document, keeps nothing on disk and never
retries: the follower does.
"""

from __future__ import annotations

from typing import Protocol

from anycastlb.model import Tree


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
