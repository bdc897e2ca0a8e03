"""The backends of one service while it is read: those that operators wrote, over the instances that were discovered.

Pure. The documents are raw; ``service`` makes backends of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from anycastlb.core.catalog import decode
from anycastlb.core.fields import address, whole
from anycastlb.core.model import Address, Problem


class Endpoints:
    """Which written backend has which address and port. The service document's own have theirs first."""

    def __init__(self, service: Mapping[str, Any], inline: Mapping[str, Any]) -> None:
        self._port = 0 if service.get("fwmark") else service.get("port", 0)
        self._owners: dict[tuple[Address, int], str] = {}
        self._held: dict[str, tuple[Address, int]] = {}
        for name, document in inline.items():
            if isinstance(document, dict):
                self.take(name, document)

    def take(self, name: str, document: Mapping[str, Any]) -> str:
        """Give the backend the endpoint of its document instead of the one it had; the name of the backend that has
        it, if another one does."""
        endpoint = self._endpoint(document)
        if endpoint is None:
            return ""
        if (owner := self._owners.get(endpoint, name)) != name:
            return owner
        if name in self._held:
            del self._owners[self._held[name]]
        self._owners[endpoint] = name
        self._held[name] = endpoint
        return ""

    def _endpoint(self, document: Mapping[str, Any]) -> tuple[Address, int] | None:
        """None: it has no address yet, or one that ``parse_service`` reports as bad."""
        try:
            return address(document.get("address")), whole(document.get("port", self._port))
        except ValueError:
            return None


@dataclass
class Pool:
    """What operators wrote (inline, then keys by age), over the discovered instances of the same names.

    A written backend without an address changes an instance of its name; without that instance it has no effect.
    """

    written: dict[str, Any]
    discovered: dict[str, dict[str, Any]] | None
    """By name, in canonical order; None if the service discovers nothing."""

    def documents(self) -> dict[str, Any]:
        """All backend documents in canonical order: the written ones, then the instances, oldest first."""
        instances = self.discovered or {}
        written = {name: self._over(name, document) for name, document in self.written.items() if self._stands(name)}
        discovered = {name: self._over(name, self.written.get(name, {})) for name in instances if name not in written}
        return written | discovered

    def trial(self, name: str, document: dict[str, Any]) -> dict[str, Any] | None:
        """One written backend as it would be; None while it has no address."""
        whole: dict[str, Any] = self._over(name, document)
        return None if self.discovered is not None and "address" not in whole else whole

    def leave_out(self, problems: Iterable[Problem]) -> list[Problem]:
        """Drop the instances that alone cause problems, and return these problems; none if the cause is elsewhere."""
        names, instances = self.documents(), self.discovered or {}
        blamed = [(problem, _blamed(problem.path, names)) for problem in problems]
        bad = {
            name
            for problem, name in blamed
            if name in instances and (name not in self.written or not (self._stands(name) or _inside(problem, name)))
        }
        for name in bad:
            del instances[name]
        return [problem for problem, name in blamed if name in bad]

    def _stands(self, name: str) -> bool:
        document = self.written[name]
        return self.discovered is None or not isinstance(document, dict) or "address" in document

    def _over(self, name: str, document: Any) -> Any:
        below = (self.discovered or {}).get(name)
        return decode.merge(below, document) if below is not None and isinstance(document, dict) else document


def about_backend(problems: Iterable[Problem], name: str) -> tuple[Problem, ...]:
    """Only the problems of the backend itself, with their paths inside its own document."""
    prefix = f"backends.{name}"
    mine = [problem for problem in problems if problem.path == prefix or problem.path.startswith(prefix + ".")]
    return tuple(Problem(p.key, p.path[len(prefix) :].lstrip("."), p.expected) for p in mine)


def _blamed(path: str, names: Container[str]) -> str:
    """The backend that a dotted path is about, if any: names may have dots of their own."""
    name = path.removeprefix("backends.") if path.startswith("backends.") else ""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name


def _inside(problem: Problem, name: str) -> bool:
    """Is the problem in a field of the backend, rather than about the backend as a whole?"""
    return problem.path != f"backends.{name}"
