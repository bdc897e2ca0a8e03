"""``anycastlb-bridge --check``: can this user run the bridge, and does ExaBGP's configuration fit it?"""

from __future__ import annotations

import socket
from pathlib import Path

from anycastlb.bridge.exabgp_config import read, troubles


def check(path: str, exabgp_config: str) -> str | None:
    """Say what keeps the bridge from working; None if nothing does. An absent daemon is no fault."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except PermissionError as exc:
            return f"anycastlb-bridge: {path}: {exc}; the socket must belong to a group of this user"
        except OSError as exc:
            print(f"the settings can be used; no daemon listens on {path} now ({exc})")
        else:
            print(f"the settings can be used; a daemon listens on {path}")
    return _misfit(exabgp_config) if exabgp_config else None


def _misfit(path: str) -> str | None:
    """What in ExaBGP's configuration keeps the bridge from working; lesser troubles are printed."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as exc:
        print(f"{path} was not looked at ({exc.strerror})")
        return None
    serious = []
    for trouble in troubles(read(text)):
        line = f"{path}: {trouble.where}: {trouble.what}; {trouble.remedy}"
        if trouble.serious:
            serious.append(line)
        else:
            print(line)
    if not serious:
        print(f"{path} fits the bridge")
    return "\n".join(f"anycastlb-bridge: {line}" for line in serious) or None
