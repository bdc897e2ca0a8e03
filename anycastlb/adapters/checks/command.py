"""``command``: up if a program of the node's own exits with 0. It runs without a shell, and only if the node allows it.

The node settings name the programs that may be run (``[checks] commands``; none unless given), as the daemon's own
user. The program gets its arguments as they stand, in which ``{address}`` and ``{port}`` are replaced, an environment
of ``PATH``, ``LANG``, ``ANYCASTLB_ADDRESS`` and ``ANYCASTLB_PORT``, no input, and ``/`` as its directory. At the
deadline, and when it has ended, everything left in its process group is killed. Any exit code but 0 is down, unless
the exit code sets the weight. It goes straight to the backend, never through IPVS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, field_validator

from anycastlb.adapters.checks import CheckType
from anycastlb.adapters.checks.probe.outcome import Down, Found, Probe
from anycastlb.adapters.checks.probe.process import Ended, run_process
from anycastlb.adapters.checks.probe.sockets import error_text
from anycastlb.core.fields import Document, one_or_many, shown
from anycastlb.core.model import Check, ProbePath
from anycastlb.settings import ChecksSettings

DIRECT_ONLY = True
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ARGUMENTS = 64


def _arguments(value: Any) -> Any:
    arguments = one_or_many(value)
    for argument in arguments:
        if not isinstance(argument, str) or len(argument) > 4096 or "\0" in argument:
            raise ValueError(f"a program and its arguments, each a text of at most 4096 characters, not {shown(value)}")
    if not 1 <= len(arguments) <= MAX_ARGUMENTS:
        raise ValueError(f"a program and at most {MAX_ARGUMENTS - 1} arguments, not {shown(value)}")
    if str(PurePosixPath(arguments[0])) != arguments[0] or arguments[0][:1] != "/" or ".." in arguments[0].split("/"):
        raise ValueError(f'the absolute path of a program, such as "/usr/local/bin/check", not {shown(arguments[0])}')
    return tuple(arguments)


class Params(Document):
    command: Annotated[tuple[str, ...], BeforeValidator(_arguments)]
    """The program's absolute path and its arguments, in which ``{address}`` and ``{port}`` are replaced."""
    weight_from: Literal["exit", "output"] | None = None
    """``exit``: exit code 0 leaves the weight as it is, 1 is down, 2 to 255 set it to the code less 2, in percent.

    ``output``: the first line of the output is the weight in percent (``75%``); any exit code but 0 is down.
    """


def bound(settings: ChecksSettings, types: Mapping[str, CheckType]) -> tuple[type[Params], Probe]:
    allowed = settings.commands

    class Allowed(Params):
        @field_validator("command")
        @classmethod
        def _allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            if not permits(allowed, value[0]):
                offer = ", ".join(allowed) or "none"
                what = f"a program that this node's settings allow ([checks] commands: {offer})"
                raise ValueError(f"{what}, not {shown(value[0])}")
            return value

    async def probe(check: Check, probe_path: ProbePath | None) -> Found:
        params = check.params
        assert isinstance(params, Params)
        if not permits(allowed, params.command[0]):
            raise Down(f"{params.command[0]} is not allowed by this node's settings ([checks] commands)")
        return judged(await _ran(check, params), params)

    return Allowed, probe


def permits(patterns: tuple[str, ...], program: str) -> bool:
    """Is this absolute path allowed? A ``*`` never stands for a ``/``."""
    path = PurePosixPath(program)
    return any(path.match(pattern) for pattern in patterns)


async def _ran(check: Check, params: Params) -> Ended:
    address, port = str(check.address), str(check.port)
    program, *arguments = params.command
    filled = [re.sub(r"\{(address|port)\}", lambda m: address if m[1] == "address" else port, a) for a in arguments]
    environment = {"PATH": PATH, "LANG": "C.UTF-8", "ANYCASTLB_ADDRESS": address, "ANYCASTLB_PORT": port}
    try:
        return await run_process([program, *filled], environment)
    except OSError as exc:
        raise Down(f"cannot run {program}: {error_text(exc)}") from exc


def judged(ended: Ended, params: Params) -> Found:
    """What an ended program means. Raises ``Down``."""
    output = ended.output or ended.complaint
    if ended.code < 0:
        raise Down(f"killed by signal {-ended.code}")
    if params.weight_from == "exit" and ended.code >= 2:
        return Found(f"exit code {ended.code}", weight=ended.code - 2)
    if ended.code:
        raise Down(f"exit code {ended.code}" + (f": {shown(output, 120)}" if output else ""))
    if params.weight_from != "output":
        return Found("exit code 0" + (f": {shown(output, 120)}" if output else ""))
    if not (match := re.fullmatch(r"(\d{1,9})\s*%?", ended.output)):
        raise Down(f'its output was {shown(ended.output, 120)}, expected a weight in percent such as "75%"')
    return Found(f"weight {match[1]}%", weight=int(match[1]))
