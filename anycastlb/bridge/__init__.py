"""The bridge: the process that ExaBGP runs, between ExaBGP (stdin, stdout) and the daemon (a unix socket).

It makes ExaBGP announce what the daemon wants and tells the daemon what ExaBGP acknowledged (``relay``, ``grammar``),
and it is the dead man's switch of both: ExaBGP alone keeps announcing whatever happens to the process that asked for
it. A daemon that stays silent loses its routes after ``hold``; an ExaBGP that does not withdraw is killed. It uses
the standard library and ``anycastlb``'s own settings and wire only, and it never writes anything but commands to
stdout. It reads the same ``node.toml`` as the daemon, as the user ExaBGP runs it as.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from pathlib import Path

from anycastlb.bridge.loop import Loop
from anycastlb.core.model import SettingsError
from anycastlb.settings import Settings, parse


def read(path: str) -> Settings:
    """Raises ``SettingsError`` or ``OSError``."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as exc:
        raise OSError(f"{path}: expected UTF-8 text: {exc}") from exc


def check(path: str) -> str | None:
    """What keeps this user from reaching the daemon; None if nothing does. A daemon that is not there is no fault."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(1)
        try:
            knock.connect(path)
        except PermissionError as exc:
            return f"anycastlb-bridge: {path}: {exc}; the socket must belong to a group of this user"
        except OSError as exc:
            print(f"the settings can be used; no daemon listens on {path} now ({exc})")
        else:
            print(f"the settings can be used; a daemon listens on {path}")
    return None


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="anycastlb-bridge", description="Runs inside ExaBGP; see exabgp/exabgp.conf.")
    parser.add_argument(
        "--config", default="/etc/anycastlb/node.toml", help="the node's settings (default: %(default)s)"
    )
    parser.add_argument(
        "--no-kill",
        action="store_true",
        help="do not kill an ExaBGP that does not withdraw a route; its routes then stay until its sessions end",
    )
    parser.add_argument(
        "--check", action="store_true", help="only say whether this user can run it with these settings"
    )
    return parser


def main() -> None:
    """Exit code 0 when ExaBGP is gone, 1 when the settings cannot be used or ExaBGP had to be killed."""
    options = arguments().parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        settings = read(options.config)
    except (OSError, SettingsError) as exc:
        sys.exit(f"anycastlb-bridge: {exc}")
    if options.check:
        sys.exit(check(settings.bgp.socket))
    sys.exit(Loop(settings, lambda: read(options.config), kill=not options.no_kill).run())
