"""docs/CATALOG.md tells the truth: its examples load, its tables have every field, their defaults are the code's."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from anycastlb.adapters.checks import PARAMS, TYPES
from anycastlb.core.catalog import schema
from anycastlb.core.catalog.notices import service_notices
from anycastlb.core.catalog.parse import parse_catalog
from anycastlb.core.fields import Document
from anycastlb.core.model import Catalog, Combination, Entry, Tree
from tests.support.doc_tables import coded, read_field, tables

TEXT = (Path(__file__).parents[2] / "docs" / "CATALOG.md").read_text()
ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
ANY_MARK = ((1, 2**32 - 1),)
BASE = b'{"vip": "192.0.2.1", "port": 80, "backends": {"b1": {"address": "10.0.0.1"}}}'

MODELS: dict[str, type[Document]] = {
    "The service document": schema.ServiceDocument,
    "The backend document": schema.BackendDocument,
    "Persistence": schema.PersistenceDocument,
    "What every check has": schema.CheckDocument,
    "Announcing a VIP": schema.AnnounceDocument,
    "Damping": schema.DampingDocument,
    "Discovery": schema.DiscoverDocument,
    "From Consul": schema.ConsulDocument,
    "From DNS": schema.DnsDocument,
    **{f"Check type `{name}`": model for name, model in PARAMS.items()},
}
"""The heading over each table of fields."""


TABLES = tables(TEXT)


def own_fields(heading: str) -> dict[str, FieldInfo]:
    """The fields a table has to list; ``https`` lists what it has more than ``http``."""
    fields = dict(MODELS[heading].model_fields)
    shared = PARAMS["http"].model_fields if heading == "Check type `https`" else {}
    return {name: field for name, field in fields.items() if name not in shared}


FIELDS = [
    pytest.param(heading, name, id=f"{heading}: {name}".replace("`", ""))
    for heading in MODELS
    for name in own_fields(heading)
]


def read(heading: str, name: str, value: Any) -> Any:
    return read_field(MODELS[heading].model_fields[name], value)


def test_every_table_of_fields_belongs_to_a_model() -> None:
    assert set(TABLES) <= set(MODELS)


@pytest.mark.parametrize("heading", MODELS)
def test_every_field_is_in_its_table_and_nothing_else(heading: str) -> None:
    assert set(TABLES.get(heading, {})) == set(own_fields(heading))
    assert f"# {heading}\n" in TEXT


@pytest.mark.parametrize(("heading", "name"), FIELDS)
def test_the_default_in_the_table_is_the_default(heading: str, name: str) -> None:
    field, cell = own_fields(heading)[name], TABLES[heading][name].default
    if field.is_required():
        assert cell == "required"
        return
    default = field.get_default(call_default_factory=True)
    if default is None:
        assert cell == "not set"
    else:
        assert read(heading, name, coded(cell)) == default


@pytest.mark.parametrize(("heading", "name"), FIELDS)
def test_the_example_in_the_table_is_good_and_not_the_default(heading: str, name: str) -> None:
    row, field = TABLES[heading][name], own_fields(heading)[name]
    value = read(heading, name, coded(row.example))
    assert len(row.meaning) > 5
    if not field.is_required():
        assert value != field.get_default(call_default_factory=True)


# ---------------------------------------------------------------- the examples

EXAMPLES = re.findall(r"^```json(?: (\S*))?\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def loaded(key: str, text: str) -> Catalog:
    """The catalog in which this example stands: with a service above it, or under it."""
    entries = {key: Entry(text.encode())}
    if key == "defaults":
        entries["services/any"] = Entry(BASE)
    elif key.count("/") == 3:
        entries["/".join(key.split("/")[:2])] = Entry(BASE)
    return parse_catalog(Tree(entries), Catalog(), ANYWHERE, ANY_MARK, PARAMS)


def test_every_example_says_its_key() -> None:
    assert len(EXAMPLES) > 25
    assert [text for key, text in EXAMPLES if not key] == []
    assert TEXT.count("```json") == len(EXAMPLES)
    keys = [key for key, _ in EXAMPLES]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("key", "text"), EXAMPLES)
def test_every_example_loads(key: str, text: str) -> None:
    catalog = loaded(key, text)
    assert [str(problem) for problem in catalog.problems] == []
    assert len(catalog.services) == 1
    assert key in catalog.good


@pytest.mark.parametrize(("key", "text"), EXAMPLES)
def test_no_example_surprises(key: str, text: str) -> None:
    for service in loaded(key, text).services:
        if service.backends_from is None:
            assert service_notices(service) == []


def test_all_examples_are_one_catalog() -> None:
    entries = {key: Entry(text.encode(), created=n) for n, (key, text) in enumerate(EXAMPLES)}
    catalog = parse_catalog(Tree(entries), Catalog(), ANYWHERE, ANY_MARK, PARAMS)
    assert [str(problem) for problem in catalog.problems] == []


def test_every_check_type_has_an_example() -> None:
    seen: set[str] = set()
    for key, text in EXAMPLES:
        for service in loaded(key, text).services:
            for backend in service.backends:
                checks = [backend.check]
                while checks:
                    check = checks.pop()
                    seen.add(check.type)
                    if isinstance(check.params, Combination):
                        checks += check.params.checks
    assert seen == set(PARAMS)


# ---------------------------------------------------------------- what a reader follows


def test_links_inside_the_document_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_the_types_that_cannot_go_through_ipvs_are_named() -> None:
    (told,) = re.findall(r"It works with every type but ([^,]+, `[a-z]+` and `[a-z]+`)", TEXT)
    assert set(re.findall(r"`(\w+)`", told)) == {name for name, kind in TYPES.items() if kind.direct_only}
