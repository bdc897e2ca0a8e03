"""``anycastlb events``: the node's journal, once or as it grows."""

from __future__ import annotations

import json
import sys
import time

from anycastlb.cli import chain, paint
from anycastlb.cli.client import Client

EVERY = 0.5
"""Seconds between two looks while following."""


def tell(client: Client, after: int, follow: bool, as_json: bool) -> None:
    """Print events above ``after``; with ``follow`` for ever. Raises ``click.ClickException``."""
    while True:
        view = client.get("/v1/events", after=after)
        if follow and view["last"] < after:  # the node restarted, and counts from 1 again
            after = 0
            continue
        if as_json:
            for item in view["events"]:
                print(json.dumps(item))
        else:
            paint.show(chain.events(view))
        sys.stdout.flush()
        if not follow:
            return
        after = view["last"]
        time.sleep(EVERY)
