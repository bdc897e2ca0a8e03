"""tests.rig.debian against an apt-get of our own that records its calls, and once against the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig import debian, programs

FAKE_APT = """#!/bin/sh
echo "$*" >>{log}
case "$*" in
*" install bell") echo "'http://mirror.example/bell.deb' bell_1%3a2.0-1_all.deb 9 SHA256:0";;
*--print-uris*) cat {sources}; exit 0;;
*" update") test ! -e {broken} || {{ cat {broken} >&2; exit 100; }};;
*" download "*) sleep 0.2; cp {deb} .;;
esac
"""


BELL = "#!/bin/sh\necho ding $1\n"


class Archive:
    """A mirror of one package, seen through a recording apt-get."""

    def __init__(self, place: Path) -> None:
        self.log, self.sources, self.broken = place / "log", place / "sources", place / "broken"
        self.program, self.deb = place / "bin", place / "bell_1%3a2.0-1_all.deb"
        self.log.touch()
        self.sources.write_text("'http://mirror.example/debian/dists/sid/InRelease' name 0 \n")
        tree = place / "bell"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin/bell").write_text(BELL)
        (tree / "usr/bin/bell").chmod(0o755)
        (tree / "DEBIAN/control").write_text(
            "Package: bell\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: A <a@b.example>\nDescription: rings\n"
        )
        subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, self.deb], check=True, capture_output=True)
        self.program.mkdir()
        apt = self.program / "apt-get"
        apt.write_text(FAKE_APT.format(log=self.log, sources=self.sources, broken=self.broken, deb=self.deb))
        apt.chmod(0o755)

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def downloads(self) -> int:
        return sum(" download bell" in call for call in self.calls())


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[[str], str]) -> Archive:
    require("dpkg-deb")
    made = Archive(tmp_path)
    monkeypatch.setenv("PATH", f"{made.program}:{os.environ['PATH']}")
    monkeypatch.setenv("ANYCASTLB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ANYCASTLB_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(debian, "KEYRINGS", (__file__,))
    return made


def test_a_package_is_unpacked_and_not_fetched_again(archive: Archive) -> None:
    roots = debian.fetch("sid", ["bell"])
    assert (roots["bell"] / "usr/bin/bell").read_text() == BELL
    assert roots["bell"].parent.name == "bell_1%2.0-1_all"
    calls = archive.calls()
    assert debian.fetch("sid", ["bell"]) == roots
    assert archive.calls() == calls


def test_nothing_half_done_is_left(archive: Archive) -> None:
    debian.fetch("sid", ["bell"])
    assert sorted(path.name for path in (debian.cache() / "debian/sid").iterdir()) == [
        "bell",
        "bell_1%2.0-1_all",
        "lock",
    ]


def test_a_program_is_unpacked_once_and_runs(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.PACKAGES, "bell", "bell")
    for _ in range(2):
        programs.obtain(["bell"])
    assert archive.downloads() == 1
    assert subprocess.check_output([str(programs.find("bell")), "dong"], text=True) == "ding dong\n"


def test_a_program_that_is_on_the_path_is_not_fetched(archive: Archive) -> None:
    (archive.program / "named").symlink_to("/bin/true")
    programs.obtain(["named"])
    assert programs.find("named") == archive.program / "named"
    assert archive.calls() == []


def test_two_processes_fetch_it_once(archive: Archive) -> None:
    code = (
        f"from tests.rig import debian; debian.KEYRINGS = ({__file__!r},); print(debian.fetch('sid', ['bell'])['bell'])"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=debian.REPOSITORY)
        for _ in range(3)
    ]
    answers = {racer.communicate()[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(answers) == 1
    assert archive.downloads() == 1


def test_a_wrong_checksum_is_refused(archive: Archive) -> None:
    with pytest.raises(debian.Unavailable, match=r"bell 1:2.0-1 has SHA-256 \w{64}, expected 00"):
        debian.fetch("sid", ["bell"], {"bell": "00"})
    assert debian.cached("sid", "bell") is None


def test_a_cached_package_with_another_checksum_is_not_used(archive: Archive) -> None:
    debian.fetch("sid", ["bell"])
    assert debian.cached("sid", "bell", "00") is None
    with pytest.raises(debian.Unavailable):
        debian.fetch("sid", ["bell"], {"bell": "00"})


def test_the_right_checksum_is_accepted(archive: Archive) -> None:
    debian.fetch("sid", ["bell"])
    pin = (debian.cache() / "debian/sid/bell/sha256").read_text().strip()
    assert debian.fetch("sid", ["bell"], {"bell": pin})["bell"].is_dir()
    assert archive.downloads() == 1


def test_a_mirror_without_the_suite_is_reported_in_its_own_words(archive: Archive) -> None:
    archive.broken.write_text("E: no Release file\n")
    with pytest.raises(debian.Unavailable, match=r"suite nosuch: http://mirror.example/debian: .*E: no Release file"):
        debian.fetch("nosuch", ["bell"])


def test_the_main_archive_is_told_from_the_other_sources(archive: Archive) -> None:
    archive.sources.write_text(
        "'http://tools.example/apt/dists/stable/InRelease' a 0 \n"
        "'http://security.example/debian-security/dists/trixie-security/InRelease' b 0 \n"
        "'http://mirror.example/debian/dists/stable/InRelease' c 0 \n"
        "'http://mirror.example/debian/dists/stable/main/binary-amd64/Packages.xz' d 0 \n"
        "'http://node.example/dists/nodistro/InRelease' e 0 \n"
    )
    assert debian.mirrors() == ["http://mirror.example/debian", "http://tools.example/apt"]


def test_a_machine_without_debian_sources_is_told_what_to_do(archive: Archive) -> None:
    archive.sources.write_text("")
    with pytest.raises(debian.Unavailable, match=r"no Debian source.*ANYCASTLB_DEBIAN_MIRROR"):
        debian.fetch("sid", ["bell"])


def test_a_named_mirror_is_used_alone(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYCASTLB_DEBIAN_MIRROR", "http://other.example/debian/")
    assert debian.mirrors() == ["http://other.example/debian"]
    assert archive.calls() == []


def test_a_cache_that_cannot_be_made_names_the_variable(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYCASTLB_CACHE", str(archive.deb))
    with pytest.raises(debian.Unavailable, match="ANYCASTLB_CACHE"):
        debian.fetch("sid", ["bell"])


def test_without_apt_it_says_that_this_is_for_debian(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(archive.deb.parent))
    with pytest.raises(debian.Unavailable, match="Debian only"):
        debian.fetch("sid", ["bell"])


def test_the_real_apt_refuses_an_unsigned_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require: Callable[[str], str]
) -> None:
    require("apt-get")
    if not any(Path(path).exists() for path in debian.KEYRINGS):
        pytest.skip("no Debian keyring on this machine")
    release = tmp_path / "mirror/dists/sid"
    (release / "main/binary-amd64").mkdir(parents=True)
    (release / "Release").write_text(
        "Origin: Nobody\nSuite: sid\nCodename: sid\nComponents: main\nArchitectures: amd64\n"
    )
    (release / "main/binary-amd64/Packages").touch()
    monkeypatch.setenv("ANYCASTLB_DEBIAN_MIRROR", f"file://{tmp_path}/mirror")
    monkeypatch.setenv("ANYCASTLB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(debian.Unavailable, match="not signed"):
        debian.fetch("sid", ["bell"])
