"""JSON schemas: of documents, made of the types that parse them; and of what the API answers.

Pure. A document may leave out anything, since defaults are merged under it, and ``null`` is as good as not there: so
nothing is required in a schema, and everything may be null. What contradicts what, only the node can say (422).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anycastlb.core.catalog.check import CheckTypes
from anycastlb.core.catalog.http.gateway_schema import GatewayDocument
from anycastlb.core.catalog.http.pool_schema import PoolBackendDocument, PoolDocument
from anycastlb.core.catalog.http.route_schema import RouteDocument
from anycastlb.core.catalog.schema import BackendDocument, CheckDocument, ServiceDocument
from anycastlb.core.fields import Document
from anycastlb.core.model import COMBINED, Share

Schema = dict[str, Any]
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
TEMPLATE = "#/components/schemas/{model}"


def ref(name: str) -> Schema:
    return {"$ref": TEMPLATE.format(model=name)}


def components(check_types: CheckTypes) -> dict[str, Schema]:
    """Every named schema."""
    return {**_documents(check_types), **ANSWERS}


# ---------------------------------------------------------------- documents


def _documents(check_types: CheckTypes) -> dict[str, Schema]:
    components = _hoisted(ServiceDocument) | _hoisted(BackendDocument)
    components |= _hoisted(GatewayDocument) | _hoisted(RouteDocument)
    components["Service"]["properties"] |= _of_pools(PoolDocument, "Service", components)
    components["Backend"]["properties"] |= _of_pools(PoolBackendDocument, "Backend", components)
    for name in ("Service", "Backend"):
        components[name]["properties"]["check"] = _nullable(ref("Check"))
    components["Service"]["properties"]["backends"] = _nullable(
        {"type": "object", "additionalProperties": ref("Backend"), "propertyNames": {"pattern": NAME}}
    )
    common = _hoisted(CheckDocument)["Check"]
    kinds = {name: _check(name, common, _hoisted(model)) for name, model in sorted(check_types.items())}
    mapping = {name: ref(f"Check_{name}")["$ref"] for name in kinds}
    components |= {f"Check_{name}": schema for name, schema in kinds.items()}
    components["TypedCheck"] = {
        "oneOf": [ref(f"Check_{name}") for name in kinds],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }
    untyped = {"type": "object", "not": {"required": ["type"]}}
    untyped["description"] = "Merged over the check below it, whose type it has; tcp unless there is one."
    components["Check"] = {"anyOf": [ref("TypedCheck"), untyped]}
    services = {"type": "object", "additionalProperties": ref("Service"), "propertyNames": {"pattern": NAME}}
    return {**components, "Services": services, "Catalog": _catalog()}


def _of_pools(pool: type[Document], name: str, components: dict[str, Schema]) -> dict[str, Schema]:
    """The fields of a pool that other services or backends do not have, or not in that form."""
    of_pool = _hoisted(pool)
    components["PoolPersistence"] = _hoisted(PoolDocument)["PoolPersistence"]
    own, known = of_pool[pool.__name__.removesuffix("Document")]["properties"], components[name]["properties"]
    fields = {field: schema for field, schema in own.items() if field not in known}
    if "persistence" in own:
        known["persistence"] = {"anyOf": [ref("Persistence"), ref("PoolPersistence"), {"type": "null"}]}
    return {field: {**schema, "description": "Of a pool: a service without vip."} for field, schema in fields.items()}


NAME = r"^[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,127}$"
_PART = NAME.strip("^$")


def _catalog() -> Schema:
    """Documents by key; null deletes one."""
    by_key = {
        "^defaults$": _nullable(ref("Service")),
        f"^services/{_PART}$": _nullable(ref("Service")),
        f"^services/{_PART}/backends/{_PART}$": _nullable(ref("Backend")),
        f"^gateways/{_PART}$": _nullable(ref("Gateway")),
        f"^routes/{_PART}$": _nullable(ref("Route")),
    }
    catalog = {"type": "object", "patternProperties": by_key, "additionalProperties": False}
    return {
        "type": "object",
        "required": ["catalog"],
        "properties": {"catalog": catalog},
        "additionalProperties": False,
    }


def _hoisted(model: type[Document]) -> dict[str, Schema]:
    """The model and all models in it, by the names they have here."""
    schema = model.model_json_schema(mode="validation", ref_template=TEMPLATE)
    inside = schema.pop("$defs", {})
    named = {model.__name__: schema, **inside}
    return {_short(name): _relaxed(part) for name, part in named.items()}


def _short(name: str) -> str:
    return name.removesuffix("Document")


def _check(name: str, common: Schema, own: Mapping[str, Schema]) -> Schema:
    """A whole check of one type: its own parameters, and what every check has."""
    params = next(iter(own.values()))
    properties = {**params["properties"], **common["properties"], "type": {"const": name}}
    if name in COMBINED:
        inside = {"type": "array", "items": ref("Check"), "minItems": 1, "maxItems": 16}
        properties["checks"] = _nullable({**inside, "description": properties["checks"].get("description", "")})
    return {**params, "properties": properties, "required": ["type"]}


def _relaxed(schema: Any) -> Any:
    """A pydantic schema in our terms: nothing required, everything nullable, bounds and defaults as JSON has them."""
    if isinstance(schema, list):
        return [_relaxed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: _relaxed(part) for name, part in schema.items() if name not in {*BOUNDS, "title", "required"}}
    if "$ref" in kept:
        kept["$ref"] = _short(kept["$ref"])
    bounds = {BOUNDS[name]: schema[name] for name in BOUNDS if name in schema}
    kept = _bounded(kept, bounds)
    if "default" in schema:
        kept.pop("default")
        kept |= _default(schema)
    if "properties" in schema:
        kept["properties"] = {name: _nullable(_relaxed(part)) for name, part in schema["properties"].items()}
    return kept


def _bounded(schema: Schema, bounds: Mapping[str, Any]) -> Schema:
    """Bounds are of numbers: a duration's are of what its text means."""
    if not bounds:
        return schema
    if schema.get("type") in ("integer", "number"):
        return schema if "const" in schema else {**schema, **bounds}
    if "anyOf" in schema:
        return {**schema, "anyOf": [_bounded(part, bounds) for part in schema["anyOf"]]}
    return schema


def _default(schema: Schema) -> Schema:
    """A default as a document would say it."""
    default = schema["default"]
    if isinstance(default, dict) and set(default) == {"count", "percent", "weight"}:
        return {"default": str(Share(**default))}
    if isinstance(default, (str, bool, int)):
        return {"default": default}
    if isinstance(default, float):
        text = "pattern" in str(schema)
        return {"default": f"{default:g}s" if text else default}
    return {}


def _nullable(schema: Schema) -> Schema:
    if {"type": "null"} in schema.get("anyOf", []):
        return schema
    about: Schema = {name: part for name, part in schema.items() if name in ("description", "default")}
    rest = {name: part for name, part in schema.items() if name not in about}
    return {"anyOf": [rest, {"type": "null"}], **about}


# ---------------------------------------------------------------- answers


def record(**properties: Schema) -> Schema:
    """An object that has all of these, and may have more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


TEXT: Schema = {"type": "string"}
YES: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_YES: Schema = {"type": ["boolean", "null"]}
MAYBE_NUMBER: Schema = {"type": ["number", "null"]}
MAYBE_WHOLE: Schema = {"type": ["integer", "null"]}
MAYBE_OBJECT: Schema = {"type": ["object", "null"]}
STORED: Schema = {"type": "object", "description": "A document as it is stored; it may have problems."}

_CHANGE = record(
    verb={"enum": ["create", "update", "delete", "move"]},
    table=TEXT,
    object=TEXT,
    before={},
    after={},
    why=TEXT,
    refused=TEXT,
)
_PROPOSAL = {
    "edits": listed(
        record(key=TEXT, verb={"enum": ["create", "update", "delete"]}, before={}, after={}),
    ),
    "changes": {
        "description": "What this node would do, in order. Backends nobody has checked yet count as up.",
        **listed({"allOf": [ref("Change"), record(flows=MAYBE_WHOLE)]}),
    },
    "moves": {
        "description": "The share of each mh service's flows that would go to another backend: new ones, and those "
        "that another node takes over.",
        **listed(record(service=TEXT, key=TEXT, share={"type": "number", "minimum": 0, "maximum": 1})),
    },
    "assumed_up": {"description": "Those backends.", **listed(TEXT)},
    "held": {"description": "Why every node would wait for a confirmation, if so.", **MAYBE_TEXT},
    "problems": listed(ref("Problem")),
}
_RESULT = record(ok=YES, detail=TEXT, duration_seconds={"type": "number"}, age_seconds=MAYBE_NUMBER)
_VERDICT = record(
    vip=TEXT,
    open=YES,
    reason=TEXT,
    reason_code=TEXT,
    since_seconds=MAYBE_NUMBER,
    services=listed(
        record(service=TEXT, key=TEXT, open=YES, up=WHOLE, total=WHOLE, needed=WHOLE, reason=TEXT, reason_code=TEXT)
    ),
)
_VIP = record(
    vip=TEXT,
    open=YES,
    reason=TEXT,
    reason_code=TEXT,
    kept=TEXT,
    since_seconds=MAYBE_NUMBER,
    announced=YES,
    services=listed(record()),
)
_CHECKED = record(
    service=TEXT,
    backend=TEXT,
    vip=TEXT,
    check=TEXT,
    up=MAYBE_YES,
    results=listed(_RESULT),
    failures=listed(_RESULT),
)
_EVENT = record(
    id=WHOLE, at=MAYBE_TEXT, kind=TEXT, level=TEXT, subject=TEXT, before=TEXT, after=TEXT, reason=TEXT, code=TEXT
)
_OUTCOME = {**record(status=WHOLE), "properties": {"status": WHOLE, "changed": YES, "error": {}, "problems": {}}}

ANSWERS: dict[str, Schema] = {
    "Error": {
        **record(error=record(what=TEXT, where=TEXT, expected=TEXT, mend=TEXT)),
        "properties": {
            "error": record(what=TEXT, where=TEXT, expected=TEXT, mend=TEXT),
            "problems": listed(ref("Problem")),
        },
    },
    "Problem": record(key=TEXT, path=TEXT, expected=TEXT),
    "Change": _CHANGE,
    "Plan": record(node=TEXT, changes=listed(ref("Change"))),
    "Proposal": record(**_PROPOSAL),
    "Imported": record(changed=YES, **_PROPOSAL),
    "Health": record(alive=YES, cycle=WHOLE, silent_seconds={"type": "number"}),
    "Ready": record(ready=YES, missing=listed(TEXT)),
    "Status": record(
        node=record(name=TEXT), catalog=record(), vips=listed(ref("Vip")), problems=listed(ref("Problem"))
    ),
    "Vip": _VIP,
    "Vips": record(vips=listed(ref("Vip"))),
    "Verdicts": record(verdicts=listed(_VERDICT)),
    "Checks": record(checks=listed(_CHECKED)),
    "Node": record(name=TEXT, self=YES, alive=YES),
    "Nodes": record(nodes=listed(ref("Node")), connected=YES, differs=listed(record(service=TEXT))),
    "Stats": record(
        interval_seconds={"type": "number"},
        services=listed(record(service=TEXT)),
        gateways=listed(record(gateway=TEXT)),
        hostnames=listed(record(gateway=TEXT, hostname=TEXT)),
        pools=listed(record(pool=TEXT)),
    ),
    "History": record(ages_seconds=listed({"type": "number"})),
    "Whoami": record(name=TEXT, rights={"enum": ["none", "read", "write"]}),
    "Problems": record(problems=listed(ref("Problem"))),
    "Why": record(ok=YES, chain=listed(record())),
    "Events": record(events=listed(_EVENT), last=WHOLE),
    "Stored": STORED,
    "StoredServices": {"type": "object", "additionalProperties": STORED},
    "StoredDocuments": {"type": "object", "additionalProperties": STORED},
    "Written": record(changed=YES, document=MAYBE_OBJECT),
    "Results": record(results={"type": "object", "additionalProperties": _OUTCOME}),
    "Export": record(catalog={"type": "object", "additionalProperties": STORED}, problems=listed(ref("Problem"))),
    "Confirmed": record(confirmed=YES),
    "Names": listed(TEXT),
    "Drain": {
        "type": "object",
        "properties": {"reason": MAYBE_TEXT, "deadline": {"anyOf": [MAYBE_TEXT, {"const": 0}]}, "force": MAYBE_YES},
        "additionalProperties": False,
    },
    "OpenApi": record(openapi=TEXT, info=record(), paths=record()),
}
