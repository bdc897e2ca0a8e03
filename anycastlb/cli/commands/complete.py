"""Names for the shell to complete, from the running node. Silent: where nothing answers, nothing is offered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from anycastlb.cli.location import Location

TIMEOUT = 1.0
"""Seconds somebody who pressed Tab waits at most."""
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _ask(context: click.Context, read: Callable[[Any], Any]) -> Any:
    """What ``read`` gets from the node, or an empty object, whatever goes wrong."""
    from anycastlb.cli.ask import ask

    known = ("config", "api", "socket", "token_file", "ca", "cert", "key")
    said = {name: context.params.get(name) for name in known}
    try:
        return ask(Location(**said, timeout=TIMEOUT), read)
    except Exception:  # a shell in the middle of a line is no place for an error
        return {}


def _offered(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def services(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return _offered(_ask(context, lambda lb: lb.services()), typed)


def servers(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """The service first, then its backends."""
    words = context.params.get("words") or ()
    if not words:
        return services(context, parameter, typed)
    found = _ask(context, lambda lb: lb.service(words[0]))
    return _offered(found.get("backends") or {}, typed)


def nodes(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    found = _ask(context, lambda lb: lb.nodes())
    return _offered((str(node.get("name", "")) for node in found), typed)


def objects(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """VIPs, services, and of a service that is typed its backends."""
    view = _ask(context, lambda lb: lb.status())
    names: dict[str, None] = {}
    for vip in view.get("vips", ()):
        names[vip["vip"]] = None
        for service in vip["services"]:
            names[service["service"]] = None
            if "/" in typed:
                names.update(dict.fromkeys(f"{service['service']}/{one['backend']}" for one in service["backends"]))
    return _offered(names, typed)
