"""The names that the shell completes, from the running node. If the node does not answer, none is offered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from anycastlb.cli.location import Location

TIMEOUT = 1.0
"""Seconds that a person who pressed Tab waits at most."""
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _ask(context: click.Context, read: Callable[[Any], Any]) -> Any:
    """What ``read`` gets from the node, or an empty object if anything goes wrong."""
    from anycastlb.cli.ask import ask

    known = ("config", "api", "socket", "token_file", "ca", "cert", "key")
    options = {name: context.params.get(name) for name in known}
    try:
        return ask(Location(**options, timeout=TIMEOUT), read)
    except Exception:  # an error would be printed into the line that the user is typing
        return {}


def _offered(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def services(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return _offered(_ask(context, lambda lb: lb.services()), typed)


def gateways(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return _offered(_ask(context, lambda lb: lb.gateways()), typed)


def routes(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    return _offered(_ask(context, lambda lb: lb.routes()), typed)


def servers(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """The service first, then its backends."""
    words = context.params.get("words") or ()
    if not words:
        return services(context, parameter, typed)
    document = _ask(context, lambda lb: lb.service(words[0]))
    return _offered(document.get("backends") or {}, typed)


def nodes(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    views = _ask(context, lambda lb: lb.nodes())
    return _offered((str(view.get("name", "")) for view in views), typed)


def objects(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """VIPs, services, pools, gateways and routes; once a service and a slash are typed, its backends."""
    view = _ask(context, lambda lb: lb.status())
    names: dict[str, None] = {}
    for vip in view.get("vips", ()):
        names[vip["vip"]] = None
        for service in vip["services"]:
            names[service["service"]] = None
            if "/" in typed:
                names.update(dict.fromkeys(f"{service['service']}/{one['backend']}" for one in service["backends"]))
    http = view.get("http") or {}
    for kind in ("gateway", "route"):
        names.update(dict.fromkeys(f"{kind}s/{one[kind]}" for one in http.get(f"{kind}s", ())))
    for pool in http.get("pools", ()):
        names[pool["pool"]] = None
        if "/" in typed:
            names.update(dict.fromkeys(f"{pool['pool']}/{one['backend']}" for one in pool["backends"]))
    return _offered(names, typed)
