"""Who sends a request, and which rights that gives: by a token, a certificate, or the user of a local process.

An Authorization header, where there is one, decides alone: a wrong token is refused even from root, so that whoever
relies on a token learns that it is not one. An unknown caller has no rights.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

from aiohttp import web

from anycastlb.adapters.system.journal import Journal
from anycastlb.serving.api.http import local_users, tls
from anycastlb.serving.api.http.connection import Connection
from anycastlb.serving.api.http.context import Caller
from anycastlb.serving.api.http.errors import ApiError
from anycastlb.serving.api.http.local_users import User
from anycastlb.serving.api.http.tokens import Rights, Tokens
from anycastlb.settings import ApiSettings

Owner = Callable[[tuple[str, int], tuple[str, int]], User | None]
"""(local, remote) of a connection over the loopback -> whose process the other end is."""
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="anycastlb"'}
WRONG = {"WWW-Authenticate": 'Bearer realm="anycastlb", error="invalid_token"'}
ROOT = 0


class Identity:
    """Finds the caller of each request."""

    def __init__(self, settings: ApiSettings, journal: Journal, owner: Owner = local_users.of_tcp) -> None:
        self._settings, self._owner = settings, owner
        files: dict[Rights, str] = {}
        if settings.read_token_file is not None:
            files["read"] = settings.read_token_file
        if settings.write_token_file is not None:
            files["write"] = settings.write_token_file
        self._tokens = Tokens(files, journal)
        self._asking = asyncio.Semaphore(2)

    def reread(self) -> None:
        self._tokens.reread()

    async def caller(self, request: web.Request) -> Caller:
        """Raises ``ApiError`` 401 or 403 for somebody without any rights."""
        given = request.headers.getall("Authorization", [])
        if given:
            return self._bearer(given)
        connection = request.protocol
        if not isinstance(connection, Connection):
            raise _unknown("nothing is known about the other end of this connection")
        if connection.caller is None:
            connection.caller = await self._at_the_other_end(connection)
        return connection.caller

    def _bearer(self, given: list[str]) -> Caller:
        scheme, _, secret = given[0].strip().partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer" or not secret.strip():
            what, expected = "these are no credentials that are known here", "Authorization: Bearer TOKEN"
            raise ApiError(401, what, "Authorization", expected, "send one bearer token", CHALLENGE)
        token = self._tokens.find(secret.strip())
        if token is None:
            expected = "a token of [api] read_token_file or write_token_file of this node"
            mend = "check the token; `anycastlb events` on the node tells when a token file cannot be read"
            raise ApiError(401, "unknown token", "Authorization", expected, mend, WRONG)
        return Caller(f"token {token.name}", token.rights)

    async def _at_the_other_end(self, connection: Connection) -> Caller:
        if connection.user is not None:
            async with self._asking:
                return await asyncio.to_thread(self._through_socket, connection.user)
        if connection.wire is None or connection.wire.is_closing():
            raise _unknown("the connection is closed")
        if certificate := connection.wire.get_extra_info("peercert"):
            return self._certified(certificate)
        local, remote = connection.wire.get_extra_info("sockname"), connection.wire.get_extra_info("peername")
        if remote is None or not local_users.address(remote[0]).is_loopback or self._settings.loopback == "none":
            raise _unknown("who you are is not known")
        where = str(local_users.address(remote[0]))
        if self._settings.loopback == "read":
            return Caller(f"somebody on {where}", "read")
        async with self._asking:  # reading the kernel's tables costs some milliseconds on a busy machine
            return await asyncio.to_thread(self._on_loopback, local[:2], remote[:2], where)

    def _through_socket(self, user: User) -> Caller:
        if not self._trusted(user):
            group = self._settings.group
            expected = "root or the daemon's own user" + (f", or a member of the group {group}" if group else "")
            mend = "use sudo, or send a token over TCP"
            raise ApiError(403, f"{user} may not use this socket", self._settings.socket, expected, mend)
        return Caller(f"{user} through the socket", "write")

    def _certified(self, certificate: Mapping[str, Any]) -> Caller:
        names = tls.names(certificate)
        rights: Literal["read", "write"] = "write" if set(names) & set(self._settings.tls_writers) else "read"
        return Caller(f"certificate {names[0][:100] if names else 'without a name'}", rights)

    def _on_loopback(self, local: tuple[str, int], remote: tuple[str, int], where: str) -> Caller:
        user = self._owner(local, remote)
        if user is None:
            return Caller(f"somebody on {where}", "read")
        return Caller(f"{user} on {where}", "write" if self._trusted(user) else "read")

    def _trusted(self, user: User) -> bool:
        if user.uid in (ROOT, os.geteuid()):
            return True
        return self._settings.group is not None and local_users.member(user, self._settings.group)


def _unknown(what: str) -> ApiError:
    expected = "Authorization: Bearer TOKEN, or a client certificate"
    mend = "send a token of the node's [api] read_token_file or write_token_file, or use its unix socket on the node"
    return ApiError(401, what, "Authorization", expected, mend, CHALLENGE)
