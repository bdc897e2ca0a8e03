"""``anycastlb convert``: another load balancer's configuration as a dump of our catalog. It asks no node."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--from",
    "kind",
    type=click.Choice(["auto", "anycastlb", "ipvsadm", "keepalived"]),
    default="auto",
    show_default=True,
    help="What FILE is.",
)
def convert(file: str, kind: str) -> None:
    """Turn the output of `ipvsadm -Sn` or a keepalived.conf into documents of the catalog.

    They go to standard output as `anycastlb import` reads them; what could not be carried over is told on standard
    error, each with its line. FILE may be - for standard input.
    """
    from anycastlb.cli import formats
    from anycastlb.cli.render.style import clean

    documents, notes = formats.read(formats.load(file), kind, formats.beside(file))  # type: ignore[arg-type]
    for note in notes:
        click.echo(f"note: {clean(note)}", err=True)
    click.echo(json.dumps(formats.dumped(documents), indent=2))
