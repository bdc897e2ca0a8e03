"""How the tour is read: which commands it has, and whether an output is the one it shows."""

from __future__ import annotations

import pytest

from tests.rig.tour import Step, lacks, steps


def test_only_console_blocks_have_commands() -> None:
    text = "```\nvagrant up\n```\n```console\n$ one\nsaid\n…\n  more\n$ two\n```\n"
    assert list(steps(text)) == [Step("one", ("said", "  more")), Step("two", ())]


@pytest.mark.parametrize(
    ("shown", "said", "missing"),
    [
        ((), "anything", ""),
        (("b1",), "  b1  \n", ""),
        (("… b1", "… b3"), "  20 b1\n  9 b2\n  31 b3\n", ""),
        (("… b3", "… b1"), "  20 b1\n  31 b3\n", "… b1"),
        (("0",), "10\n", "0"),
        (("weight … of",), "weight 1 of 2\n", "weight … of"),
        (("a.b",), "aXb\n", "a.b"),
        (("one",), "", "one"),
    ],
)
def test_an_output_has_what_is_shown_in_its_order(shown: tuple[str, ...], said: str, missing: str) -> None:
    assert lacks(shown, said) == missing
