"""keepalived's health checkers to our checks: what is probed, how often, and what was not carried over."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from anycastlb.core.importers.documents import Note, address, number
from anycastlb.core.importers.keepalived_text import Statement, attempt
from anycastlb.core.model import Address

Notes = list[Note]
Check = dict[str, Any]
SCHEDULE = ("delay_loop", "retry", "nb_get_retry", "delay_before_retry", "connect_timeout")
"""Settings of the time-table: of a checker, else of its real server, else of its virtual server."""
TARGET = ("connect_ip", "connect_port", "fwmark")
NEEDLESS = ("warmup", "alpha", "inhibit_on_failure", "log_all_failures", "fast_recovery", "tls_compliant", "enable_sni")
"""What happens here anyway, or has no counterpart anybody would miss."""
HTTP_DONE = ("url", "virtualhost", "sni_name", "http_protocol")
DONE = {
    "HTTP_GET": HTTP_DONE, "SSL_GET": HTTP_DONE, "TCP_CHECK": (), "SMTP_CHECK": (), "DNS_CHECK": ("type", "name"),
    "UDP_CHECK": ("payload", "require_reply"), "PING_CHECK": (),
    "MISC_CHECK": ("misc_path", "misc_timeout", "misc_dynamic"),
}  # fmt: skip
RETRIES = {"DNS_CHECK": 3, "MISC_CHECK": 0}
DELAYS = {"HTTP_GET": 3.0, "SSL_GET": 3.0}
PORTLESS = ("none", "icmp", "command")
UNKNOWN = ("BFD_CHECK", "FILE_CHECK")
CHECKERS = (*DONE, *UNKNOWN)


def check(checkers: Sequence[Statement], outer: Sequence[Statement], vips: Sequence[Address], notes: Notes) -> Check:
    """The check of one real server: ``outer`` is itself and its virtual server, whose VIPs are ``vips``."""
    checks: list[Check] = []
    times: list[Check] = []
    through = False
    for checker in checkers:
        if checker.keyword in UNKNOWN:
            notes.append(checker.note(f"{checker.keyword}: no such check here; left out"))
            continue
        _leftovers(checker, notes)
        times.append(_schedule(checker, outer, notes))
        made = _MAKERS[checker.keyword](checker, outer, notes)
        through |= _through_ipvs(checker, made, vips, notes)
        checks += made
    if not checks:
        return {"type": "none"}
    # Several run together: as often as the quickest of them, as patient as the slowest.
    schedule = min(times, key=lambda one: _seconds(one["interval"]))
    schedule["timeout"] = max((one["timeout"] for one in times), key=_seconds)
    schedule["fall"] = max(one["fall"] for one in times)
    if through:
        schedule["via"] = "forward"
    if len(checks) == 1:
        return {**checks[0], **schedule}
    if len(checks) > 16:
        notes.append(checkers[0].note(f"{len(checks)} checks of one server: only the first 16 are carried over"))
    return {"type": "all", **schedule, "checks": checks[:16]}


def aimed(check: Check, port: int) -> Check:
    """The check with the port of the server that it is for, where it names none itself. Through IPVS it has none."""
    if not port or check.get("via") == "forward":
        return check
    if "checks" in check:
        return {**check, "checks": [aimed(part, port) for part in check["checks"]]}
    return check if check["type"] in PORTLESS else {"type": check["type"], "port": port, **check}


def _through_ipvs(checker: Statement, made: Sequence[Check], vips: Sequence[Address], notes: Notes) -> bool:
    """Does the check reach its server by the VIP and a mark of its own? The VIP alone would be any server."""
    mark = last(checker, "fwmark")
    aimed = [one for one in made if one.get("address") in {str(vip) for vip in vips}]
    for one in aimed:
        vip = one.pop("address")
        if mark is None:
            notes.append(
                checker.note(f"{checker.keyword} of the VIP {vip}: the server's own address is checked instead")
            )
    if mark is None:
        return False
    if not aimed:
        notes.append(mark.note(f"fwmark {mark.argument:.20}: probes carry a mark only on the way by the VIP; left out"))
        return False
    notes.append(mark.note('fwmark: "via": "forward", whose marks the node takes from fwmark_ranges in node.toml'))
    return True


def _leftovers(checker: Statement, notes: Notes) -> None:
    known = {*SCHEDULE, *TARGET, *NEEDLESS, *DONE[checker.keyword]}
    for statement in checker.inside():
        if statement.keyword not in known:
            notes.append(statement.note(f"{checker.keyword} {' '.join(statement.words)[:60]}: left out"))


# ---------------------------------------------------------------- when


def last(statements: Statement, *keywords: str) -> Statement | None:
    return statements.last(*keywords)


def _given(keywords: tuple[str, ...], checker: Statement, outer: Sequence[Statement]) -> Statement | None:
    return next((statement for level in (checker, *outer) if (statement := last(level, *keywords))), None)


def _schedule(checker: Statement, outer: Sequence[Statement], notes: Notes) -> Check:
    kind = checker.keyword
    interval = _timer(_given(("delay_loop",), checker, outer), 60.0, 0.01, 86400, notes)
    retries = RETRIES.get(kind, 1)
    if retry := _given(("retry", "nb_get_retry"), checker, outer):
        retries = attempt(notes, retries, number, retry.argument, retry.line, "retries", 0, 999)
    otherwise = interval if kind == "DNS_CHECK" else DELAYS.get(kind, 1.0)
    pause = _timer(_given(("delay_before_retry",), checker, outer), otherwise, 0.01, 86400, notes)
    timeout = _timer(_given(("connect_timeout",), checker, outer), 5.0, 0.001, 3600, notes)
    if kind == "MISC_CHECK":
        timeout = _timer(last(checker, "misc_timeout"), min(interval, 3600), 0.001, 3600, notes)
    made: Check = {"interval": _duration(interval), "timeout": _duration(timeout), "rise": 1, "fall": retries + 1}
    if retries and pause < interval:
        made["fast_interval"] = _duration(pause)
    return made


def _timer(statement: Statement | None, default: float, low: float, high: float, notes: Notes) -> float:
    """A time in seconds, with decimals, above 0; the default for anything else, as keepalived has it."""
    if statement is None:
        return default
    text = statement.argument
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII) or not float(text):
        notes.append(
            statement.note(f"expected seconds after {statement.keyword}, not {text!r:.40}; {default:g} instead")
        )
        return default
    seconds = min(max(float(text), low), high)
    if seconds != float(text):
        notes.append(statement.note(f"{statement.keyword} {text}: from {low:g} to {high:g} here; {seconds:g} instead"))
    return seconds


def _duration(seconds: float) -> str:
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{max(1, round(seconds * 1000))}ms"


def _seconds(text: str) -> float:
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])


# ---------------------------------------------------------------- what


def _target(checker: Statement, notes: Notes) -> Check:
    made: Check = {}
    if line := last(checker, "connect_ip"):
        host = attempt(notes, None, address, line.argument, line.line)
        made |= {"address": str(host)} if host else {}
    if line := last(checker, "connect_port"):
        port = attempt(notes, None, number, line.argument, line.line, "a port", 1, 65535)
        made |= {"port": port} if port else {}
    return made


def _web(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    made = []
    for url in [s for s in checker.inside() if s.keyword == "url"] or [Statement(("url",), checker.line, checker.name)]:
        one: Check = {"type": "https", "verify": False} if checker.keyword == "SSL_GET" else {"type": "http"}
        one |= _target(checker, notes)
        path = last(url, "path")
        one["path"] = path.argument if path else "/"
        host = last(url, "virtualhost") or _given(("virtualhost",), checker, outer)
        if host:
            one["host"] = host.argument
        if (name := last(checker, "sni_name")) and checker.keyword == "SSL_GET":
            one["sni"] = name.argument
        codes = last(url, "status_code")
        one["expect"] = attempt(notes, "200-299", _codes, codes) if codes else "200-299"
        _body(url, one, notes)
        made.append(one)
    return made


def _codes(statement: Statement) -> Any:
    codes: list[int | str] = []
    for word in statement.words[1:]:
        if not re.fullmatch(r"[1-5]\d\d(-[1-5]\d\d)?", word, re.ASCII):
            raise statement.bad(f"expected status codes such as 200 or 200-299, not {word!r:.40}")
        codes.append(word if "-" in word else int(word))
    if not codes:
        raise statement.bad("expected a status code after status_code")
    return codes[0] if len(codes) == 1 else codes


def _body(url: Statement, one: Check, notes: Notes) -> None:
    options = last(url, "regex_options")
    for statement in url.inside():
        keyword = statement.keyword
        if keyword == "regex" and last(url, "regex_no_match"):
            notes.append(statement.note("regex with regex_no_match: a body must not be excluded here; left out"))
        elif keyword == "regex":
            flags = {"caseless": "i", "dotall": "s"}
            given = "".join(flags[word] for word in options.words[1:] if word in flags) if options else ""
            one["body"] = f"re:(?{given}){statement.argument}" if given else f"re:{statement.argument}"
        elif keyword == "digest":
            notes.append(statement.note("digest: an exact body is not compared; only its status code is"))
        elif keyword not in ("path", "virtualhost", "status_code", "regex_options", "regex_no_match", *NEEDLESS):
            notes.append(statement.note(f"url {' '.join(statement.words)[:60]}: left out"))


def _tcp(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    return [{"type": "tcp", **_target(checker, notes)}]


def _smtp(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    notes.append(checker.note("SMTP_CHECK: the greeting is awaited (220), no HELO is said"))
    return [{"type": "tcp", **_target(checker, notes), "expect": "re:^220[ -]"}]


def _dns(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    name, kind = last(checker, "name"), last(checker, "type")
    return [
        {
            "type": "dns",
            **_target(checker, notes),
            "name": name.argument if name else ".",
            "qtype": kind.argument if kind else "SOA",
        }
    ]


def _udp(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    made: Check = {"type": "udp", **_target(checker, notes)}
    if payload := last(checker, "payload"):
        digits = "".join(payload.words[1:])
        if re.fullmatch(r"([0-9A-Fa-f]{2})+", digits, re.ASCII):
            made["send"] = f"hex:{digits}"
        else:
            notes.append(payload.note("payload: expected pairs of hexadecimal digits; left out"))
    if reply := last(checker, "require_reply"):
        digits = "".join(reply.words[1:])
        if re.fullmatch(r"([0-9A-Fa-f]{2})*", digits, re.ASCII):
            pairs = (digits[at : at + 2] for at in range(0, len(digits), 2))
            made["expect"] = "".join(f"\\x{pair}" for pair in pairs) or "re:(?s)."
        else:
            made["expect"] = "re:(?s)."
            notes.append(reply.note("require_reply: with digits left open, any reply counts"))
    return [made]


def _ping(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    target = _target(checker, notes)
    target.pop("port", None)
    return [{"type": "icmp", **target}]


def _misc(checker: Statement, outer: Sequence[Statement], notes: Notes) -> list[Check]:
    path = last(checker, "misc_path")
    if path is None:
        notes.append(checker.note("expected a misc_path in MISC_CHECK; the check is left out"))
        return []
    text = " ".join(path.words[1:])
    try:
        words = shlex.split(text)
    except ValueError as exc:
        notes.append(path.note(f"expected a command after misc_path: {exc}; the check is left out"))
        return []
    made: Check = {"type": "command", "command": words}
    if dynamic := last(checker, "misc_dynamic"):
        made["weight_from"] = "exit"
        notes.append(dynamic.note("misc_dynamic: exit codes from 2 on set percents of the weight, not the weight"))
    notes.append(path.note(f"MISC_CHECK: allow {words[0][:80] if words else text!r} in [checks] commands of node.toml"))
    return [made]


_MAKERS: dict[str, Callable[[Statement, Sequence[Statement], Notes], list[Check]]] = {
    "HTTP_GET": _web, "SSL_GET": _web, "TCP_CHECK": _tcp, "SMTP_CHECK": _smtp, "DNS_CHECK": _dns, "UDP_CHECK": _udp,
    "PING_CHECK": _ping, "MISC_CHECK": _misc,
}  # fmt: skip
