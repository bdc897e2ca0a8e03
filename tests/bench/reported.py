"""The longest of something that a process of a bench has seen, asked for by a signal."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any


class Longest:
    """On SIGUSR2, write the longest time since the last question to a file, in milliseconds, and begin anew."""

    def __init__(self, path: str) -> None:
        self._path, self._seconds = path, 0.0
        signal.signal(signal.SIGUSR2, self._report)

    def note(self, seconds: float) -> None:
        self._seconds = max(self._seconds, seconds)

    def _report(self, *_: Any) -> None:
        new = Path(f"{self._path}.new")
        new.write_text(f"{self._seconds * 1e3:.1f}")
        new.rename(self._path)
        self._seconds = 0.0


def longest(process: subprocess.Popen[bytes], path: Path) -> float:
    """What such a process answers, in milliseconds."""
    path.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR2)
    end = time.monotonic() + 60
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"bench: {process.args!r} does not answer")
        time.sleep(0.05)
    return float(path.read_text())
