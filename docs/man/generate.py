"""Writes the manual pages beside this file, from what the commands say of themselves and from configs/node.toml.

    python docs/man/generate.py            writes anycastlb.1, anycastlb-bridge.1 and node.toml.5
    python docs/man/generate.py --check    only says whether they are what it would write; exit code 1 if not

A command's page is its own ``--help``; a setting's text is the comment over it in configs/node.toml, which tests hold
to the code. Nothing is written here that could drift from either.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from anycastlb import bridge  # noqa: E402
from anycastlb.bridge.command import arguments  # noqa: E402
from anycastlb.cli import main  # noqa: E402
from anycastlb.settings import Settings  # noqa: E402

MODEL = "anycastlb"


def pages() -> dict[str, str]:
    """File name -> text."""
    return {"anycastlb.1": commands(), "anycastlb-bridge.1": bridge_page(), "node.toml.5": settings()}


# ---------------------------------------------------------------- roff


def text(words: str) -> str:
    """One paragraph's text, safe for roff: no line begins as a request."""
    words = re.sub(r"``?([^`]+)``?", "\1\\1\2", " ".join(words.split()))
    escaped = words.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("~", "\\(ti")
    escaped = escaped.replace("^", "\\(ha").replace("'", "\\(aq").replace("\1", "\\fB").replace("\2", "\\fR")
    return ascii_only(re.sub(r"^\.", r"\\&.", escaped))


def ascii_only(words: str) -> str:
    return "".join(char if ord(char) < 128 else f"\\[u{ord(char):04X}]" for char in words)


def header(name: str, section: int, summary: str) -> list[str]:
    title = name.upper().replace("-", "\\-")
    return [f'.TH "{title}" {section} "" "{MODEL}"', ".SH NAME", f"{text(name)} \\- {text(summary)}"]


def paragraphs(words: str) -> Iterator[str]:
    for place, part in enumerate(re.split(r"\n\s*\n", words.replace("\b", "").strip())):
        if place:
            yield ".PP"
        yield text(part)


# ---------------------------------------------------------------- commands


def commands() -> str:
    summary = (main.help or "").strip().split("\n\n")[0].rstrip(".")
    lines = header("anycastlb", 1, summary)
    lines += [".SH SYNOPSIS", ".B anycastlb", "[\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGS\\fR]..."]
    lines += [".SH DESCRIPTION", *paragraphs(main.help or "")]
    with click.Context(main, info_name="anycastlb", **main.context_settings) as context:
        lines += options(main, context)
        lines.append(".SH COMMANDS")
        lines += [line for name, command in sorted(main.commands.items()) for line in told(name, command, context)]
    lines += exits()
    lines += [".SH FILES", ".TP", "\\fB/etc/anycastlb/node.toml\\fR", "Node settings: node.toml(5)."]
    lines += [".SH SEE ALSO", "anycastlb\\-bridge(1), node.toml(5), ipvsadm(8), exabgp(1)"]
    return "\n".join(lines) + "\n"


def exits() -> list[str]:
    return [
        ".SH EXIT STATUS",
        ".TP", "0", "Fine.",
        ".TP", "1", "An error, which is told on standard error.",
        ".TP", "2", "Differs, unhealthy, or used wrongly; for \\fBdoctor\\fR: it found warnings or errors.",
    ]  # fmt: skip


def told(name: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    """One command, and those below it."""
    if command.hidden:
        return
    with click.Context(command, info_name=name, parent=parent) as context:
        pieces = " ".join(command.collect_usage_pieces(context))
        yield f".SS {context.command_path} {text(pieces)}".replace("\\fB", "").replace("\\fR", "")
        yield from paragraphs(command.help or "")
        yield from options(command, context, inside=True)
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                found = command.get_command(context, below)
                if found is not None:
                    yield from told(below, found, context)


def options(command: click.Command, context: click.Context, inside: bool = False) -> list[str]:
    params = [param for param in command.get_params(context) if isinstance(param, click.Option)]
    records = [record for param in params if (record := param.get_help_record(context))]
    records = [record for record in records if not (inside and record[0].startswith(("-h,", "--help")))]
    if not records:
        return []
    lines = [] if inside else [".SH OPTIONS"]
    for names, help in records:
        lines += [".TP", f"\\fB{text(names)}\\fR", text(help) or "\\&"]
    return lines


# ---------------------------------------------------------------- the bridge


def bridge_page() -> str:
    parser = arguments()
    lines = header("anycastlb-bridge", 1, "the process between ExaBGP and anycastlb")
    lines += [".SH SYNOPSIS", text(re.sub(r"^usage:\s*", "", parser.format_usage()))]
    doc = (bridge.__doc__ or "").strip()
    lines += [".SH DESCRIPTION", *paragraphs(doc), ".SH OPTIONS"]
    for action in parser._actions:
        names = ", ".join(action.option_strings) + (f" {action.dest.upper()}" if action.nargs != 0 else "")
        lines += [".TP", f"\\fB{text(names)}\\fR", text((action.help or "") % {"default": action.default})]
    lines += [".SH EXIT STATUS", *paragraphs(bridge.main.__doc__ or "")]
    lines += [".SH SEE ALSO", "anycastlb(1), node.toml(5), exabgp(1)"]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- settings


def settings() -> str:
    lines = header("node.toml", 5, "the settings of one anycastlb node")
    example = (ROOT / "configs" / "node.toml").read_text()
    comments = explained(example)
    lines += [".SH DESCRIPTION", *paragraphs(preamble(example))]
    for table, field in Settings.model_fields.items():
        (model,) = (kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None))
        lines.append(f".SH [{table}]")
        lines += [text(comments[table][1])] if table in comments else []
        for key, inner in model.model_fields.items():
            shown, comment = comments.get(f"{table}.{key}", ("", ""))
            told = text(comment or inner.description or "") or "\\&"
            lines += [".TP", f"\\fB{text(shown or key)}\\fR", told]
    lines += [".SH SEE ALSO", "anycastlb(1), anycastlb\\-bridge(1)"]
    return "\n".join(lines) + "\n"


def preamble(example: str) -> str:
    """The comment at the head of the file, without its first line, which names it."""
    head = example.partition("\n[")[0]
    return "\n".join(line.removeprefix("#").strip() for line in head.splitlines()[1:]).strip()


def explained(example: str) -> dict[str, tuple[str, str]]:
    """``table.key`` -> (the line that sets it, the comment over it or beside it)."""
    found: dict[str, tuple[str, str]] = {}
    table, comment, used = "", "", False
    for line in example.splitlines():
        if header := re.fullmatch(r"(# )?\[(\w+)\]", line):
            if header[1]:  # a table that is off unless it is there
                found[header[2]] = ("", comment.strip())
            table, comment = header[2], ""
        elif key := re.match(r"(?:# )?((\w+)\s*= (?:\"[^\"]*\"|\[.*?\]|\{.*\}|\S+))\s*(?:#\s*(.*))?$", line):
            beside = re.sub(r",?( and)?$", ".", key[3][:1].upper() + key[3][1:], count=1) if key[3] else ""
            said = f"{beside} {comment}".replace("None of these is", "It is not").strip()
            found[f"{table}.{key[2]}"] = (re.sub(r"\s+=", " =", key[1]), said)  # of two examples, the last
            used = True
        elif line.startswith("#"):
            comment = ("" if used else comment) + " " + line.removeprefix("#").strip()
            used = False
        elif not line.strip():
            comment = ""
    return found


def run() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    check = parser.parse_args().check
    stale = [name for name, page in pages().items() if not same(HERE / name, page)]
    for name in stale:
        if check:
            print(f"docs/man/{name} is stale: make man", file=sys.stderr)
        else:
            (HERE / name).write_text(pages()[name])
            print(f"docs/man/{name}")
    return int(bool(stale) and check)


def same(path: Path, page: str) -> bool:
    return path.exists() and path.read_text() == page


if __name__ == "__main__":
    sys.exit(run())
