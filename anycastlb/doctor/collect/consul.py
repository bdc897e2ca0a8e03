"""The facts about Consul, the catalog and the node's own API.

Nothing is written: the one transaction that is sent is made so that Consul must refuse it.
"""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any

import aiohttp

from anycastlb.adapters.checks import parameters, types
from anycastlb.adapters.consul.client import Client
from anycastlb.adapters.consul.faults import DENIED
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.decision.flow_takeover import only_caches
from anycastlb.core.model import Address, AnycastlbError, Catalog, Forward, SourceError
from anycastlb.doctor.facts import Agent, Api, Needs, Unseen
from anycastlb.engine.node import checks
from anycastlb.engine.parts import make_source
from anycastlb.settings import Settings

TIMEOUT = 15.0
UNUSED_KEY = "services/.doctor"
"""No service can have this key, since names do not begin with a dot."""


async def needs(settings: Settings) -> Needs | Unseen:
    """The catalog as a node would read it now."""
    source = make_source(settings)
    try:
        async with asyncio.timeout(TIMEOUT):
            tree = await source.read(None)
    except TimeoutError:
        return Unseen(f"no catalog within {TIMEOUT:g} s")
    except AnycastlbError as exc:
        return Unseen(str(exc))
    finally:
        await source.close()
    node = settings.node
    kinds = parameters(types(settings.checks))
    catalog = parse_catalog(tree, Catalog(), node.vip_ranges, node.fwmark_ranges, kinds)
    return Needs(
        services=len(catalog.services),
        backends=sum(len(service.backends) for service in catalog.services),
        probes=len(checks(catalog)),
        problems=tuple(map(str, catalog.problems)),
        schedulers=tuple(sorted({service.virtual.scheduler for service in catalog.services})),
        forwards=forwards(catalog),
        vips=tuple(sorted(catalog.vips, key=lambda vip: (vip.version, vip))),
        caches=bool(catalog.services) and all(map(only_caches, catalog.services)),
        through=probes_through_ipvs(catalog),
    )


def forwards(catalog: Catalog) -> dict[tuple[Address, Forward], str]:
    """How packets are forwarded to each address, with the first service/backend for which it is so."""
    rows: dict[tuple[Address, Forward], str] = {}
    for service in catalog.services:
        for backend in service.backends:
            rows.setdefault((backend.address, backend.forward), f"{service.name}/{backend.name}")
    return rows


def probes_through_ipvs(catalog: Catalog) -> bool:
    """Does a check go through IPVS, over IPv4?"""
    through = any(backend.through for service in catalog.services for backend in service.backends)
    return through and any(vip.version == 4 for vip in catalog.vips)


async def agent(settings: Settings) -> Agent:
    client = Client(settings.consul)
    address = settings.consul.address
    try:
        async with asyncio.timeout(TIMEOUT):
            return await _agent(settings, client)
    except TimeoutError:
        return Agent(address, error=f"no answer within {TIMEOUT:g} s")
    except SourceError as exc:
        return Agent(address, error=str(exc))
    finally:
        await client.close()


async def _agent(settings: Settings, client: Client) -> Agent:
    latency = TIMEOUT
    for _ in range(3):  # the first opens the connection; the quickest is the network's, not this process's own
        before = time.monotonic()
        headers, leader = await _get(client, "/v1/status/leader")
        latency = min(latency, time.monotonic() - before)
    readable, writable = await _rights(settings, client)
    version: str | Unseen = ""
    name = ""
    try:
        _, about = await _get(client, "/v1/agent/self")
        version, name = str(about["Config"]["Version"]), str(about["Config"]["NodeName"])
    except SourceError as exc:
        version = Unseen(str(exc))
    except (KeyError, TypeError) as exc:
        version = Unseen(f"/v1/agent/self has no {exc}")
    return Agent(
        settings.consul.address,
        leader=str(leader or ""),
        latency=latency,
        version=version,
        name=name,
        skew=_skew(headers),
        readable=readable,
        writable=writable,
        holder=await _holder(settings, client),
    )


async def _get(client: Client, path: str) -> tuple[Any, Any]:
    """The headers and the JSON of the answer, which is None where nothing exists. Raises ``SourceError``."""
    answer: tuple[Any, Any] = await client.http.get(_parsed, path)
    return answer


def _parsed(response: Any) -> tuple[Any, Any]:
    if response.code == 404:
        return response.headers, None
    if response.code != 200:
        raise ValueError(f"HTTP {response.code}: {response.body[:200]}")
    return response.headers, json.loads(response.body)


def _skew(headers: Any) -> float:
    try:
        return round(parsedate_to_datetime(headers["Date"]).timestamp() - time.time() + 0.5)
    except (KeyError, TypeError, ValueError):
        return 0.0


async def _rights(settings: Settings, client: Client) -> tuple[bool | Unseen, bool | Unseen]:
    """May the token read and write the catalog?

    The transaction would write, but only under a condition that is never true. Consul checks the rights before the
    conditions, and names the operation of each refusal.
    """
    key = settings.consul.prefix + UNUSED_KEY
    operations = [
        {"KV": {"Verb": "check-index", "Key": key, "Index": 1}},
        {"KV": {"Verb": "delete-cas", "Key": key, "Index": 1}},
    ]
    try:
        code, body = await client.http.put(
            lambda response: (response.code, response.body), "/v1/txn", _dc(settings), json.dumps(operations)
        )
        if code != 409:
            raise ValueError(f"HTTP {code} {body[:100]}")
        denied = {error["OpIndex"] for error in json.loads(body)["Errors"] if DENIED in error["What"].lower()}
    except (SourceError, ValueError, KeyError, TypeError) as exc:
        unseen = Unseen(f"PUT /v1/txn: {exc}")
        return unseen, unseen
    return 0 not in denied, 1 not in denied


async def _holder(settings: Settings, client: Client) -> str:
    """The Consul node whose session holds this node's key; empty if none does, or if it may not be seen."""
    try:
        _, rows = await _get(client, f"/v1/kv/{settings.consul.prefix}nodes/{settings.node.name}")
        session = rows[0].get("Session", "") if rows else ""
        if not session:
            return ""
        _, about = await _get(client, f"/v1/session/info/{session}")
        return str(about[0]["Node"]) if about else ""
    except (SourceError, KeyError, TypeError, IndexError, AttributeError):
        return ""


def _dc(settings: Settings) -> list[tuple[str, str]]:
    return [("dc", settings.consul.datacenter)] if settings.consul.datacenter else []


async def api(settings: Settings) -> Api:
    """What ``/readyz``, which everybody may ask, answers: on the loopback if the API listens there, else by TLS."""
    local = [at for at in settings.api.listen if ip_address(at[0].partition("%")[0]).is_loopback]
    host, port = (local or settings.api.listen)[0]
    listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    timeout = aiohttp.ClientTimeout(total=3)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http{'' if local else 's'}://{listen}/readyz", allow_redirects=False, ssl=False) as response,
        ):
            body = await response.content.read(4096)
            return Api(listen, response.status, _missing(body))
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as exc:
        return Api(listen, None, getattr(exc, "strerror", None) or str(exc) or "no answer within 3 s")


def _missing(body: bytes) -> str:
    """What the node lacks to be ready; the text itself if it is not the answer of a node."""
    try:
        missing = json.loads(body)["missing"]
        return "; ".join(map(str, missing))
    except (ValueError, KeyError, TypeError):
        return " ".join(body.decode(errors="replace").split())[:80]
