from __future__ import annotations

from pathlib import Path

from anycastlb.adapters.cluster.instance import NAME, instance


def test_every_process_of_one_installation_is_the_same(tmp_path: Path) -> None:
    one = instance(tmp_path / "one")
    assert len(one) == 16
    assert instance(tmp_path / "one") == one
    assert instance(tmp_path / "two") != one


def test_a_copy_on_another_machine_is_another(tmp_path: Path) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("5b6c\n")
    assert instance(tmp_path, boot) != instance(tmp_path)


def test_where_nothing_can_be_kept_it_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert instance(tmp_path / "file") == ""
    (tmp_path / NAME).write_text("")
    assert instance(tmp_path) == ""
    assert instance(tmp_path / "new", tmp_path / "no-boot") == ""
