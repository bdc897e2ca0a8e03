"""The values in every document an operator writes (durations, shares, addresses), and the problems of bad ones.

Pydantic models built on ``Document`` are strict about names (an unknown field is an error) and generous about
numbers (``80`` and ``"80"`` are both a number). ``problems`` turns what pydantic found into our ``Problem`` values.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic_core import ErrorDetails

from anycastlb.core.model import Address, Problem, Share
from anycastlb.core.scalars import MAX_SCALAR as MAX_SCALAR
from anycastlb.core.scalars import UNITS as UNITS
from anycastlb.core.scalars import duration as duration
from anycastlb.core.scalars import shown as shown

LABELS = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
"""Host names as in RFC 1123, relative: without a dot at the end."""


def share(value: Any) -> Share:
    """A count (``2``, ``"2"``), a percentage (``"50%"``) or a weight (``"weight 150"``). Raises ValueError."""
    if isinstance(value, Share):
        return value
    text = str(value).strip() if isinstance(value, (str, int, float)) else ""
    if not isinstance(value, bool) and len(text) <= MAX_SCALAR:
        if re.fullmatch(r"[0-9]{1,9}", text):
            return Share(count=int(text))
        if (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text)) and float(match[1]) <= 100:
            return Share(percent=float(match[1]))
        if match := re.fullmatch(r"weight\s+([0-9]{1,9})", text):
            return Share(weight=int(match[1]))
    raise ValueError(f'a number or a percentage up to "100%", not {shown(value)}')


def whole(value: Any) -> Any:
    """Numbers and numeric strings are the same; a boolean or a fraction is not a number here. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"a whole number, not {value!r}")
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and len(value) <= MAX_SCALAR and re.fullmatch(r"\s*[0-9]{1,18}\s*", value):
        return int(value)
    raise ValueError(f"a whole number, not {shown(value)}")


def real(value: Any) -> Any:
    """A number, or a text of one in plain decimals; a boolean is no number here. Raises ValueError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= MAX_SCALAR and REAL.fullmatch(value):
        return float(value)
    raise ValueError(f"a number, not {shown(value)}")


REAL = re.compile(r"\s*[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*")


def address(value: Any) -> Address:
    """One IPv4 or IPv6 unicast address. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"an IPv4 or IPv6 address as a string, not {shown(value)}")
    try:
        parsed, unicast = _ip_address(value if len(value) <= MAX_SCALAR else "")
    except ValueError:
        raise ValueError(f"an IPv4 or IPv6 address, not {shown(value)}") from None
    if not unicast:
        raise ValueError(f"a unicast address without a zone, not {shown(value)}")
    return parsed


def is_unicast(one: Address) -> bool:
    """Is it the address of one host, without a zone? An IPv4 address in an IPv6 one counts as what it is inside."""
    inside = getattr(one, "ipv4_mapped", None) or one
    nobody = inside.is_multicast or inside.is_unspecified or inside == BROADCAST
    return not nobody and getattr(one, "scope_id", None) is None


BROADCAST = ip_address("255.255.255.255")


@lru_cache(4096)
def _ip_address(text: str) -> tuple[Address, bool]:
    """The address, and whether it is a unicast address without a zone.

    It is read several times on its way into a service, and parsing takes longer than all else.
    """
    parsed = ip_address(text.strip())
    return parsed, is_unicast(parsed)


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def one_or_many(value: Any) -> Any:
    """A lone value is a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


DurationText = Annotated[str, Field(pattern=r"^\s*(0|([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d))+)\s*$")] | Literal[0]
WholeText = Annotated[str, Field(pattern=r"^\s*[0-9]{1,18}\s*$")]
RealText = Annotated[str, Field(pattern=r"^\s*[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?\s*$")]
PartText = Annotated[str, Field(pattern=r"^\s*([0-9]{1,9}|[0-9]+(\.[0-9]+)?\s*%|weight\s+[0-9]{1,9})\s*$")]
Ip4Text = Annotated[str, Field(json_schema_extra={"format": "ipv4"})]
IpText = Ip4Text | Annotated[str, Field(json_schema_extra={"format": "ipv6"})]
"""The same values as a JSON schema describes them."""
Duration = Annotated[float, BeforeValidator(duration, json_schema_input_type=DurationText)]
Whole = Annotated[int, BeforeValidator(whole, json_schema_input_type=int | WholeText)]
MAX_PROBLEMS = 1000
"""Problems that are listed of one look at a document."""
Positive = Annotated[
    float,
    BeforeValidator(real, json_schema_input_type=float | RealText),
    Field(gt=0, le=1_000_000_000, allow_inf_nan=False),
]
Count = Annotated[Whole, Field(ge=0, le=2**31 - 1)]
Port = Annotated[Whole, Field(ge=0, le=65535)]
ShareText = Annotated[Share, BeforeValidator(share, json_schema_input_type=int | PartText)]


def counted(value: Share) -> Share:
    """A share of things, not of their weight. Raises ValueError."""
    if value.weight is not None:
        raise ValueError('a number or a percentage up to "100%", not a weight')
    return value


CountedShare = Annotated[ShareText, AfterValidator(counted)]
Ip = Annotated[Any, BeforeValidator(address, json_schema_input_type=IpText)]


class Document(BaseModel):
    """Base of every document: frozen, and an unknown field is an error.

    The text below a field describes it in the JSON schema. It is read only there: to read the source of all documents
    takes an eighth of a start, which is why pydantic does not do it (``use_attribute_docstrings``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    direct_only: ClassVar[bool] = False
    """Of a check type's parameters: such a check cannot go through IPVS (``"via": "forward"``)."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for base in cls.__mro__:
            texts = field_docstrings(base) if issubclass(base, Document) else {}
            for name, text in texts.items():
                if (field := cls.model_fields.get(name)) and (shape := properties.get(field.alias or name)) is not None:
                    shape.setdefault("description", text)
        return schema


def field_docstrings(model: type[Document]) -> dict[str, str]:
    """The text below each field of the class itself, by the field's name."""
    (definition,) = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(below.value.value)
        for field, below in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }


def problems(error: ValidationError, key: str, line: Callable[[str], int] = lambda path: 0) -> tuple[Problem, ...]:
    """The errors of pydantic as problems of the document ``key``. ``line`` finds the line of a dotted path."""
    known = []
    for item in error.errors(include_url=False)[:MAX_PROBLEMS]:
        if _of_its_items(item):
            continue
        path = ".".join(str(part) for part in item["loc"] if not _is_union(part))
        known.append(Problem(key, path, _expected(item), line(path)))
    if error.error_count() > MAX_PROBLEMS:
        known.append(Problem(key, "", "and more problems than are listed"))
    return tuple(known)


UNION = re.compile(r"(literal|nullable|function-\w+|constrained-\w+|lax-or-strict|is-instance|json-or-python)\[")
"""What pydantic puts into the path of an error for a member of a union, which is no place in the document."""
SHAPES = {
    "model_type": "an object", "model_attributes_type": "an object", "dict_type": "an object",
    "mapping_type": "an object", "tuple_type": "a list", "list_type": "a list", "set_type": "a list",
    "bool_type": "true or false",
    "bool_parsing": "true or false", "string_type": "text in quotes", "int_type": "a whole number",
    "int_parsing": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "float_parsing": "a number",
}  # fmt: skip
"""The kinds of pydantic's errors about the type of a value, in the words of JSON."""


PATTERNS = {
    r"^/[!-~]*$": 'a path such as "/health?full=1", without blanks',
    r"^/[^\x00]*$": 'an absolute path such as "/etc/ssl/ca.pem"',
    r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$": 'words of letters, digits, _ and -, with dots between, such as "ELB"',
    f"^{LABELS}$": 'a name such as "www" or "www.example.org"',
    r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$": "a name of 1 to 63 letters, digits and -",
    r"^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$": 'a name in DNS such as "_web._tcp.example.org"',
    r"^_[A-Za-z0-9]([A-Za-z0-9-]{0,14})\._(tcp|udp|sctp)$": 'a service and protocol such as "_http._tcp"',
    r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$": "the name of a header: letters, digits and -",
}
"""What the expressions of texts mean, in words."""


def _of_its_items(item: ErrorDetails) -> bool:
    """A list that is too short once its bad items are left out, each of which has an error of its own."""
    given = item["input"]
    return item["type"] == "too_short" and isinstance(given, list) and len(given) > item["ctx"]["actual_length"]


def _is_union(part: int | str) -> bool:
    return isinstance(part, str) and UNION.match(part) is not None


def _expected(item: Any) -> str:
    kind, given, context = item["type"], item.get("input"), item.get("ctx", {})
    if kind == "value_error":
        return f"expected {str(context['error']).removeprefix('expected ')}"
    if kind in SHAPES:
        return f"expected {SHAPES[kind]}, not {shown(given)}"
    if kind == "extra_forbidden":
        return "unknown field; expected one of the documented fields (is it misspelt?)"
    if kind == "missing":
        return "missing; expected a value here"
    if kind in ("too_long", "too_short"):
        bound = f"at most {context['max_length']}" if kind == "too_long" else f"at least {context['min_length']}"
        return f"expected {bound} items, not {context['actual_length']}"
    if kind == "string_pattern_mismatch" and (words := PATTERNS.get(context["pattern"])):
        return f"expected {words}, not {shown(given)}"
    message = str(item["msg"])
    message = re.sub(r"^\w+ should (be )?", "expected " if " should be " in message else "expected to ", message)
    return message if given is None else f"{message}, not {shown(given)}"
