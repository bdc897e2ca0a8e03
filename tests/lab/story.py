"""How the demo speaks: chapters, what is done, what is seen, and claims that held (✓) or did not (✗).

Colours in a terminal; plain text in a pipe, or when NO_COLOR says that the terminal is not a person.
"""

from __future__ import annotations

import os
import time

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text


class Story:
    def __init__(self) -> None:
        plain = not os.isatty(1) or "NO_COLOR" in os.environ
        self.console = Console(force_terminal=False if plain else None, highlight=False)
        self.held = 0
        self.broken: list[str] = []
        self._began = time.monotonic()
        self._chapter = 0

    @property
    def took(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def chapter(self, title: str) -> None:
        self._chapter += 1
        self.console.print()
        self.console.print(Rule(Text(f"{self._chapter}. {title}", "bold cyan"), align="left", style="cyan"))

    def say(self, text: str) -> None:
        self.console.print(Padding(Text(text), (0, 0, 0, 2), expand=False))

    def command(self, where: str, text: str) -> None:
        """Something an operator would type, or does to a machine."""
        self.console.print(
            Padding(Text.assemble((f"{where} $ ", "dim"), (text, "bold yellow")), (0, 0, 0, 2), expand=False)
        )

    def output(self, text: str) -> None:
        """What a machine answered, as it is."""
        self.console.print(Padding(Text.from_ansi(text.expandtabs(4)), (0, 0, 0, 6), expand=False))

    def table(self, title: str, columns: list[str], rows: list[list[str]]) -> None:
        table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 2), pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left", header_style="dim")
        for row in rows:
            table.add_row(*row)
        self.console.print(Padding(table, (0, 0, 0, 6), expand=False))

    def claim(self, text: str, holds: bool, measured: str) -> None:
        """A promise, whether it held here and now, and the figure that says so."""
        mark = ("✓ ", "bold green") if holds else ("✗ ", "bold red")
        self.console.print(Padding(Text.assemble(mark, text, " — ", (measured, "bold")), (0, 0, 0, 2), expand=False))
        if holds:
            self.held += 1
        else:
            self.broken.append(text)

    def end(self) -> None:
        self.console.print()
        style = "bold red" if self.broken else "bold green"
        total = self.held + len(self.broken)
        self.console.print(Rule(Text(f"{self.held} of {total} claims held, in {self.took:.0f} s", style), style=style))
        for text in self.broken:
            self.console.print(Text(f"  ✗ {text}", "bold red"))
