"""Wait for the first of several things. What has not come by then is waited for further, without being asked again.

A blocking query that is broken off costs its connection, and each of the next ones a new one: so after a change in one
part of a tree the queries for the other parts go on. It knows no endpoint and sends no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, TypeAlias

Begin: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


class Waits:
    """Waits by name. Whoever has used it ends it."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    async def first(self, wanted: Mapping[Hashable, Begin]) -> None:
        """Return when one of these has ended, and raise what it has raised; those of other names are broken off.

        A wait that goes on since an earlier call is not begun again, and one that has ended meanwhile is. When this
        raises, or is cancelled, every wait is broken off.
        """
        try:
            for name in [name for name, task in self._tasks.items() if task.done() or name not in wanted]:
                self._tasks.pop(name).cancel()
            for name, begin in wanted.items():
                if name not in self._tasks:
                    # Not in a task group: it goes on when this call has ended.
                    self._tasks[name] = asyncio.get_running_loop().create_task(begin())
                    self._tasks[name].add_done_callback(_heard)
            ended, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Break off every wait."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _heard(task: asyncio.Task[None]) -> None:
    """What a wait raises that nobody is interested in any more is no news for the log."""
    if not task.cancelled():
        task.exception()
