"""Run Consul's transactions: translate edits to operations, and interpret the answers. Works from Consul 1.0 on.

Of a transaction that was refused it is known that nothing was written; of one whose answer was lost it is not, and the
error says so. This module decides nothing and repeats nothing (docs/decisions/0005).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from anycastlb.adapters.consul.client import Client
from anycastlb.adapters.consul.faults import DENIED, LEADERLESS, NOTHING, Unconfirmed
from anycastlb.adapters.consul.session import TXN
from anycastlb.core.model import Edit, SourceError

Operation = dict[str, dict[str, Any]]


class TransactionRefused(SourceError):
    """An operation did not apply, so none did. ``operations``: which ones, by number."""

    def __init__(self, message: str, operations: tuple[int, ...]) -> None:
        super().__init__(message)
        self.operations = operations


def operation(verb: str, key: str, value: bytes | None = None, index: str | int | None = None) -> Operation:
    fields: dict[str, Any] = {"Verb": verb, "Key": key}
    if value is not None:
        fields["Value"] = base64.b64encode(value).decode()
    if index is not None:
        fields["Index"] = int(index)
    return {"KV": fields}


def operations(edit: Edit, key: str) -> list[Operation]:
    """One edit. ``delete-cas`` is not used: it passes for done if the key is gone (measured with 1.8.7)."""
    if edit.value is not None:
        if edit.expects is None:
            return [operation("set", key, edit.value)]
        return [operation("cas", key, edit.value, edit.expects or 0)]
    if edit.expects is None:
        return [operation("delete", key)]
    if not edit.expects:
        return [operation("check-not-exists", key)]
    return [operation("check-index", key, index=edit.expects), operation("delete", key)]


async def transact(client: Client, wanted: Sequence[Operation]) -> dict[str, int]:
    """All operations or none; the index that every key set has now. Raises ``TransactionRefused``, ``SourceError``."""
    answer = await client.request("PUT", TXN, json.dumps(wanted).encode())
    status, text = answer.status, answer.text
    message = " ".join(text.split())[:300]
    if status not in (200, 409):
        raise _refused(client, status, message)
    try:
        document = json.loads(text)
        if status == 200:
            results = [result["KV"] for result in document["Results"] or ()]
            return {result["Key"]: int(result["ModifyIndex"]) for result in results}
        errors = [(int(error["OpIndex"]), str(error["What"])) for error in document["Errors"]]
        keys = [wanted[number]["KV"]["Key"] for number, _ in errors]
    except (ValueError, KeyError, TypeError, IndexError) as exc:
        raise Unconfirmed(f"Consul at {client.http.base_uri}: {message}; expected Consul's answer") from exc
    denied = [key for key, (_, what) in zip(keys, errors, strict=True) if DENIED in what.lower()]
    if denied:  # the last one: the first may be the check that goes with every write
        raise SourceError(
            f"Consul at {client.http.base_uri}: {denied[-1]} may not be written with this token; {NOTHING}; "
            f'expected one (consul.token_file) whose policy writes key_prefix "{client.prefix}"'
        )
    raise TransactionRefused(message, tuple(number for number, _ in errors))


def _refused(client: Client, status: int, message: str) -> SourceError:
    at = f"Consul at {client.http.base_uri}: {status} {message}"
    if status == 413:
        return SourceError(f"{at}; {NOTHING}; write fewer or smaller documents at once")
    if status == 429:
        return SourceError(f"{at}; {NOTHING}; try again later")
    if status < 500:
        return SourceError(f"{at}; {NOTHING}; expected a Consul agent that takes transactions")
    if LEADERLESS in message:
        return SourceError(f"{at}; {NOTHING}; try again once the Consul servers have a leader")
    return Unconfirmed(at)
