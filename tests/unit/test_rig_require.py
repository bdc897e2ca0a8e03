"""tests.rig.require: skip at home, fail where the part was demanded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.rig import programs
from tests.rig import require as rig


def test_a_part_that_is_here_is_named() -> None:
    assert rig.require("sh").endswith("/sh")


def test_the_fixture_is_the_function(require: Callable[[str], str]) -> None:
    assert require is rig.require


def test_a_missing_part_skips_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYCASTLB_REQUIRE", "kernel,nosuch")
    with pytest.raises(pytest.skip.Exception, match=r"nosuch-program is missing.*make setup"):
        rig.require("nosuch-program")


@pytest.mark.parametrize("demanded", ["nosuch-program", "kernel, nosuch-program ,bird"])
def test_a_missing_part_that_is_demanded_fails(monkeypatch: pytest.MonkeyPatch, demanded: str) -> None:
    monkeypatch.setenv("ANYCASTLB_REQUIRE", demanded)
    with pytest.raises(pytest.fail.Exception, match="ANYCASTLB_REQUIRE demands it"):
        rig.require("nosuch-program")


def test_a_missing_python_package_says_what_to_do() -> None:
    with pytest.raises(rig.Missing, match="nosuch_package is not installed; install it: make setup"):
        rig.library("nosuch_package")


def test_daemons_are_found_where_a_users_path_does_not_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert "/usr/sbin" in programs.search_path().split(":")
