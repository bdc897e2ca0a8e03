"""The forms of a rule's filters, in Gateway API's words down to their spelling. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from anycastlb.core.catalog.http.texts import ChangeableName, HeaderValue, Host, Path, Regex, named_once
from anycastlb.core.fields import Document, Whole
from anycastlb.core.http import patterns


class RegexModifierDocument(Document):
    pattern: Regex
    substitution: Annotated[str, Field(pattern=r"^/[!-~]*$", max_length=1024)]

    @model_validator(mode="after")
    def _groups_exist(self) -> RegexModifierDocument:
        groups = patterns.pattern(self.pattern).groups
        for after in re.findall(r"\\(.?)", self.substitution):
            if not after.isdigit() or int(after) > groups:
                raise ValueError(f"substitution to have \\0 to \\{groups}, which the pattern has, not \\{after}")
        if re.search("[?#]", self.substitution):
            raise ValueError("substitution to be a path, without ? and #")
        return self


class PathModifierDocument(Document):
    """``type`` says which one of the other fields is there."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch", "ReplaceRegexMatch"]
    replaceFullPath: Path | None = None
    replacePrefixMatch: Path | None = None
    replaceRegexMatch: RegexModifierDocument | None = None

    @model_validator(mode="after")
    def _one(self) -> PathModifierDocument:
        _only(self, self.type, ("ReplaceFullPath", "ReplacePrefixMatch", "ReplaceRegexMatch"))
        return self


def _only(document: Document, kind: str, kinds: tuple[str, ...]) -> None:
    """Exactly the field that the type names may be there. Raises ValueError."""
    fields = {one: _field(one) for one in kinds}
    for one, field in fields.items():
        if (getattr(document, field) is None) == (one == kind):
            verb = "to be there" if one == kind else "not to be there"
            raise ValueError(f"{field} {verb}, as type is {kind}")


def _field(kind: str) -> str:
    """``URLRewrite`` -> ``urlRewrite``."""
    return "urlRewrite" if kind == "URLRewrite" else kind[0].lower() + kind[1:]


class HeaderDocument(Document):
    name: ChangeableName
    value: HeaderValue


class HeaderModifierDocument(Document):
    set: Annotated[tuple[HeaderDocument, ...], Field(max_length=16), AfterValidator(named_once)] = ()
    add: Annotated[tuple[HeaderDocument, ...], Field(max_length=16), AfterValidator(named_once)] = ()
    remove: Annotated[tuple[ChangeableName, ...], Field(max_length=16), AfterValidator(named_once)] = ()

    @model_validator(mode="after")
    def _apart(self) -> HeaderModifierDocument:
        names = [*(one.name for one in (*self.set, *self.add)), *self.remove]
        named_once(tuple(names))
        return self


class RewriteDocument(Document):
    hostname: Host | None = None
    path: PathModifierDocument | None = None


def _redirecting(status: int) -> int:
    if status not in (301, 302, 303, 307, 308):
        raise ValueError(f"301, 302, 303, 307 or 308, not {status}")
    return status


class RedirectDocument(Document):
    scheme: Literal["http", "https"] | None = None
    hostname: Host | None = None
    port: Annotated[Whole, Field(ge=1, le=65535)] | None = None
    path: PathModifierDocument | None = None
    statusCode: Annotated[Whole, AfterValidator(_redirecting)] = 302


FILTERS = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite")


class FilterDocument(Document):
    """``type`` says which one of the other fields is there."""

    type: Literal[FILTERS]  # type: ignore[valid-type]
    requestHeaderModifier: HeaderModifierDocument | None = None
    responseHeaderModifier: HeaderModifierDocument | None = None
    requestRedirect: RedirectDocument | None = None
    urlRewrite: RewriteDocument | None = None

    @model_validator(mode="after")
    def _one(self) -> FilterDocument:
        _only(self, self.type, FILTERS)
        return self
