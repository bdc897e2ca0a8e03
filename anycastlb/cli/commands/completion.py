"""``anycastlb completion``: what a shell must know to complete our words. The names come from ``names``."""

from __future__ import annotations

import click

HOW = {
    "bash": "anycastlb completion bash > /etc/bash_completion.d/anycastlb",
    "zsh": "anycastlb completion zsh > /usr/share/zsh/site-functions/_anycastlb",
    "fish": "anycastlb completion fish > /etc/fish/completions/anycastlb.fish",
}
VARIABLE = "_ANYCASTLB_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(list(HOW)))
def completion(shell: str) -> None:
    """Print the completion for a shell; names come from the running node.

    \b
    anycastlb completion bash > /etc/bash_completion.d/anycastlb
    anycastlb completion zsh > /usr/share/zsh/site-functions/_anycastlb
    anycastlb completion fish > /etc/fish/completions/anycastlb.fish
    """
    from click.shell_completion import BashComplete, get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"there is no completion for {shell}")
    root = click.get_current_context().find_root().command
    made = found(root, {}, "anycastlb", VARIABLE)
    # Not source(): for bash that runs one, to see how old it is; the shell that reads this may be another.
    text = made.source_template % made.source_vars() if isinstance(made, BashComplete) else made.source()
    click.echo(text)
