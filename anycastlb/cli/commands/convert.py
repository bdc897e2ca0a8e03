"""``anycastlb convert``: turn the configuration of another load balancer into a dump of our catalog."""

from __future__ import annotations

import json

import click

from anycastlb.cli.files import FROM


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--from",
    "kind",
    type=click.Choice(FROM),
    default="auto",
    show_default=True,
    help="The program that wrote FILE.",
)
@click.option("--gateway", default="web", show_default=True, metavar="NAME", help="The gateway of ELB's routes.")
def convert(file: str, kind: str, gateway: str) -> None:
    """Turn the output of `ipvsadm -Sn`, a keepalived.conf, ELB's etcd, KgLb's configuration or GORB's store into
    documents of the catalog.

    The documents go to standard output, in the form that `anycastlb validate` and `import` read. What could not be
    carried over, or not exactly, is printed on standard error, each with its place, and the exit code is then 2. FILE
    may be - for standard input. ELB's etcd is what it answers to GET /v2/keys/ELB?recursive=true, and GORB's
    store what `consul kv export` prints.
    """
    from anycastlb.cli import formats
    from anycastlb.cli.options import DIFFERS
    from anycastlb.cli.render.style import clean

    documents, notes = formats.read(formats.load(file), kind, formats.beside(file), gateway)  # type: ignore[arg-type]
    for note in notes:
        click.echo(f"note: {clean(note)}", err=True)
    click.echo(json.dumps(formats.dumped(documents), indent=2))
    if notes:
        click.get_current_context().exit(DIFFERS)
