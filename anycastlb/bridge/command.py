"""``anycastlb-bridge``: its options, and what it does first."""

from __future__ import annotations

import argparse
import signal
import socket
import sys

from anycastlb.bridge.loop import Loop
from anycastlb.bridge.settings import read
from anycastlb.core.model import SettingsError


def run() -> None:
    """Run the bridge with the options of the command line, and exit (see ``anycastlb.bridge.main``)."""
    options = arguments().parse_args()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        settings = read(options.config)
    except (OSError, SettingsError) as exc:
        sys.exit(f"anycastlb-bridge: {exc}")
    if options.check:
        sys.exit(check(settings.socket))
    sys.exit(Loop(settings, lambda: read(options.config), kill=not options.no_kill).run())


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


def check(path: str) -> str | None:
    """Say what keeps this user from reaching the daemon; None if nothing does. An absent daemon is no fault."""
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
    return None
