"""A checker process as its parent sees it: start it with a socket, and leave nothing of it behind."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from anycastlb.adapters.system.privileges import handing_on_marks

GRACE, LOOK = 2.0, 0.05
"""Seconds that a process is waited for when it ends, and between two looks whether it has."""

ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "PYTHONDONTWRITEBYTECODE")
"""What it inherits of the daemon's environment, in which there may be a token for Consul."""


class Child:
    """It has been started. ``socket`` is this end of the one that it has the other end of. Raises OSError."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _started(theirs.fileno())
            except OSError:
                self.socket.close()
                raise

    async def end(self) -> int | None:
        """Kill it if it does not end by itself at once; its status. None if not even that ends it: it hangs in the
        kernel, and is reaped when the next one is started."""
        for elapsed in range(round(GRACE / LOOK)):
            if (status := self._process.poll()) is not None:
                return status
            if elapsed:
                self._process.kill()
            await asyncio.sleep(LOOK)
        return self._process.poll()


def _started(descriptor: int) -> subprocess.Popen[bytes]:
    with handing_on_marks():
        return subprocess.Popen(
            # -P: nothing is imported from wherever the daemon was started
            [sys.executable, "-P", "-m", "anycastlb.engine.checker", str(descriptor)],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            env={
                **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            },
            start_new_session=True,
        )
