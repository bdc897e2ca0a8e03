"""``anycastlb completion``: the script that makes a shell complete our commands. Names come from ``complete``."""

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
    """Print the completion script for a shell. The names that it completes come from the running node.

    \b
    anycastlb completion bash > /etc/bash_completion.d/anycastlb
    anycastlb completion zsh > /usr/share/zsh/site-functions/_anycastlb
    anycastlb completion fish > /etc/fish/completions/anycastlb.fish
    """
    from click.shell_completion import BashComplete, get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.ClickException(f"there is no completion for {shell}")
    root = click.get_current_context().find_root().command
    script = kind(root, {}, "anycastlb", VARIABLE)
    # For bash, source() would run a bash to see its version; but the shell that reads this may be another one.
    text = script.source_template % script.source_vars() if isinstance(script, BashComplete) else script.source()
    click.echo(text)
