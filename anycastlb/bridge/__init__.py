"""The bridge: the process that ExaBGP runs, between ExaBGP (stdin, stdout) and the daemon (a unix socket).

It makes ExaBGP announce what the daemon wants, tells the daemon what ExaBGP acknowledged, and is the dead man's switch
of both: ExaBGP alone keeps announcing whatever happens to the process that asked for it. A daemon that stays silent
loses its routes after ``hold``; an ExaBGP that does not withdraw a route is killed. The bridge never writes anything
but commands to stdout. It reads the same ``node.toml`` as the daemon, as the user that ExaBGP runs it as.

It uses the standard library and the parts of ``anycastlb.core`` that do so too, so that it is small and starts at
once. This module itself loads nothing, because the daemon uses ``anycastlb.bridge.protocol``.
"""

from __future__ import annotations


def main() -> None:
    """Exit code 0 when ExaBGP is gone, 1 when the settings cannot be used or ExaBGP had to be killed."""
    from anycastlb.bridge.command import run

    run()
