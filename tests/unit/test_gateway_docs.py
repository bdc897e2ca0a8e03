"""docs/GATEWAYS.md tells the truth: its examples are one good catalog, its tables have every field and its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from anycastlb.adapters.checks import PARAMS
from anycastlb.core.catalog.http import filter_schema, gateway_schema, pool_schema, route_schema
from anycastlb.core.catalog.parse import ANY_MARK, ANYWHERE, parse_catalog
from anycastlb.core.catalog.schema import BackendDocument, ServiceDocument
from anycastlb.core.fields import Document
from anycastlb.core.model import Catalog, Entry, Tree
from tests.support.doc_tables import coded, read_field, tables

TEXT = (Path(__file__).parents[2] / "docs" / "GATEWAYS.md").read_text()
MODELS: dict[str, type[Document]] = {
    "The gateway document": gateway_schema.GatewayDocument,
    "TLS": gateway_schema.TlsDocument,
    "Limits of a gateway": gateway_schema.LimitsDocument,
    "Announcing a gateway": gateway_schema.GatewayAnnounceDocument,
    "The route document": route_schema.RouteDocument,
    "Rules": route_schema.RuleDocument,
    "Pools of a rule": route_schema.BackendRefDocument,
    "Timeouts of a rule": route_schema.TimeoutsDocument,
    "Stickiness by cookie": route_schema.CookieDocument,
    "Matches": route_schema.MatchDocument,
    "The path of a match": route_schema.PathMatchDocument,
    "A header of a match": route_schema.HeaderMatchDocument,
    "A query parameter of a match": route_schema.QueryMatchDocument,
    "Filters": filter_schema.FilterDocument,
    "Rewrites": filter_schema.RewriteDocument,
    "Redirects": filter_schema.RedirectDocument,
    "The new path": filter_schema.PathModifierDocument,
    "A path by pattern": filter_schema.RegexModifierDocument,
    "Header changes": filter_schema.HeaderModifierDocument,
    "A header that is changed": filter_schema.HeaderDocument,
    "Retries": route_schema.RetryDocument,
    "The pool document": pool_schema.PoolDocument,
    "The backend of a pool": pool_schema.PoolBackendDocument,
    "Persistence of a pool": pool_schema.PoolPersistenceDocument,
}
"""The heading over each table of fields."""
TABLES = tables(TEXT)
EXAMPLES = re.findall(r"^```json (\S+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def own_fields(heading: str) -> dict[str, FieldInfo]:
    """The fields a table has to list: of pools, those that other services do not have, or not in that form."""
    fields = dict(MODELS[heading].model_fields)
    known = {"The pool document": ServiceDocument, "The backend of a pool": BackendDocument}.get(heading)
    if known is None:
        return fields
    return {name: field for name, field in fields.items() if name not in known.model_fields or name == "persistence"}


FIELDS = [(heading, name) for heading in MODELS for name in own_fields(heading)]


@pytest.mark.parametrize("heading", MODELS)
def test_every_field_is_in_its_table_and_nothing_else(heading: str) -> None:
    assert set(TABLES[heading]) == set(own_fields(heading))


def test_every_table_belongs_to_a_model() -> None:
    assert set(TABLES) == set(MODELS)


@pytest.mark.parametrize(("heading", "name"), FIELDS)
def test_the_default_and_the_example_are_true(heading: str, name: str) -> None:
    field, row = own_fields(heading)[name], TABLES[heading][name]
    example = read_field(field, coded(row.example))
    if field.is_required():
        assert row.default == "required"
        return
    default: Any = field.get_default(call_default_factory=True)
    assert example != default
    if default is None:
        assert row.default == "not set"
    else:
        assert read_field(field, coded(row.default)) == default


def test_all_examples_are_one_catalog() -> None:
    assert len(EXAMPLES) == TEXT.count("```json") >= 10
    entries = {key: Entry(text.encode(), created=n) for n, (key, text) in enumerate(EXAMPLES)}
    assert len(entries) == len(EXAMPLES)
    catalog = parse_catalog(Tree(entries), Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert [str(problem) for problem in catalog.problems] == []
    assert catalog.good.keys() == entries.keys()
    assert catalog.gateways and catalog.routes and catalog.pools and not catalog.services


def test_the_fields_that_pools_do_not_have_are_named() -> None:
    told = TEXT.partition("## The pool document")[2].partition("are errors in its document")[0]
    assert set(re.findall(r"`(\w+)`", told)) - {"vip"} == set(pool_schema.IPVS_FIELDS)
