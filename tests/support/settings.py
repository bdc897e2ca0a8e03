"""The tables of node.toml."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def model_of(field: FieldInfo) -> type[BaseModel]:
    """The model of a table, also of one that need not be there."""
    kinds = get_args(field.annotation) or (field.annotation,)
    (model,) = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return model
