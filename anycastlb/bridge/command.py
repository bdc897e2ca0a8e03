"""``anycastlb-bridge``: its options, and what it does first."""

from __future__ import annotations

import argparse
import signal
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
        from anycastlb.bridge.check import check  # the bridge that runs for months does without

        sys.exit(check(settings.socket, options.exabgp_config))
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
        "--check",
        action="store_true",
        help="only say whether this user can run it with these settings, and whether ExaBGP's fit",
    )
    parser.add_argument(
        "--exabgp-config",
        default="/etc/exabgp/exabgp.conf",
        metavar="FILE",
        help="ExaBGP's settings, for --check; empty: do not look at them (default: %(default)s)",
    )
    return parser
