"""The file store: which file becomes what, and what people with editors do meanwhile."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anycastlb.adapters.sources import file_journal
from anycastlb.adapters.sources.file import FileSource
from anycastlb.adapters.sources.file_store import FileStore
from anycastlb.core.model import Conflict, Edit, SourceError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "catalog"
    (root / "services" / "web" / "backends").mkdir(parents=True)
    (root / "services" / "web.json").write_text("{}")
    (root / "services" / "dns.toml").write_text("port = 53")
    (root / "services" / "mail.yml").write_text("port: 25")
    (root / "services" / "web" / "backends" / "web1").write_text("weight=10")
    return root


@pytest.fixture
async def store(root: Path) -> AsyncIterator[FileStore]:
    store = FileStore(root)
    yield store
    await store.close()


def files(root: Path) -> dict[str, str]:
    """What is there, without what is the store's own."""
    found = {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_text() for name, path in found.items() if not name.startswith(".anycastlb")}


def stopped(root: Path, *changes: file_journal.FileChange) -> None:
    """A writer has died right after the moment."""
    file_journal.write(root, file_journal.FileJournal("dead", changes))


async def test_each_document_stays_in_its_file_or_becomes_json(root: Path, store: FileStore) -> None:
    await store.commit(
        [
            Edit("services/web", b"[1]"),
            Edit("services/web/backends/web1", b"[2]"),
            Edit("services/dns", b"[3]"),
            Edit("services/mail", b"port: 25"),
            Edit("services/new/backends/10.0.0.1:80", b"[4]"),
            Edit("defaults", b"[5]"),
            Edit("drain/lb1.example.yaml", b""),
        ]
    )
    assert files(root) == {
        "defaults.json": "[5]",
        "drain/lb1.example.yaml": "",
        "services/dns.json": "[3]",
        "services/mail.yml": "port: 25",
        "services/new/backends/10.0.0.1:80.json": "[4]",
        "services/web.json": "[1]",
        "services/web/backends/web1": "[2]",
    }
    entries = (await store.load()).entries
    assert not any(entry.error for entry in entries.values())


async def test_a_deleted_document_leaves_no_twin_and_no_empty_folder(root: Path, store: FileStore) -> None:
    (root / "services" / "web.yaml").write_text("port: 1")
    await store.commit([Edit("services/web", None), Edit("services/web/backends/web1", None)])
    assert (await store.load()).entries.keys() == {"services/dns", "services/mail"}
    assert not (root / "services" / "web").exists() and (root / "services").is_dir()


async def test_mode_and_owner_stay(root: Path, store: FileStore) -> None:
    path = root / "services" / "web.json"
    path.chmod(0o640)
    await store.commit([Edit("services/web", b"[1]")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 and path.stat().st_uid == os.getuid()


async def test_a_file_changed_by_an_editor_meanwhile_is_a_conflict(root: Path, store: FileStore) -> None:
    version = (await store.load()).entries["services/web"].version
    (root / "services" / "web.json").write_text("[]")
    with pytest.raises(Conflict, match="services/web "):
        await store.commit([Edit("services/new", b"1"), Edit("services/web", b"[1]", version)])
    assert files(root)["services/web.json"] == "[]" and "services/new.json" not in files(root)


async def test_a_file_that_cannot_be_read_can_be_replaced(root: Path, store: FileStore) -> None:
    (root / "services" / "bad.json").symlink_to("nowhere.json")
    (root / "services" / "large.json").write_bytes(b"x" * 600_000)
    (root / "services" / "elsewhere.json").symlink_to("/etc/hostname")
    entries = (await store.load()).entries
    edits = [
        Edit(f"services/{name}", b"{}", entries[f"services/{name}"].version) for name in ("bad", "large", "elsewhere")
    ]
    await store.commit(edits)
    assert {files(root)[f"{edit.key}.json"] for edit in edits} == {"{}"}


async def test_what_a_dead_writer_put_in_force_is_seen_and_finished(root: Path, store: FileStore) -> None:
    """But not where somebody has changed the file since."""
    web, dns = (file_journal.version(text) for text in (b"{}", b"port = 53"))
    stopped(
        root,
        file_journal.FileChange("services/web.json", web, b"[1]"),
        file_journal.FileChange("services/dns.json", "", b"[2]"),
        file_journal.FileChange("services/dns.toml", dns, None),
        file_journal.FileChange("services/mail.yml", file_journal.version(b"port: 25"), None),
        file_journal.FileChange("services/a/backends/b.json", "", b"[3]"),
    )
    (root / "services" / "mail.yml").write_text("port: 26")
    new = {
        "services/web": b"[1]",
        "services/dns": b"[2]",
        "services/mail": b"port: 26",
        "services/web/backends/web1": b"weight=10",
        "services/a/backends/b": b"[3]",
    }
    seen = (await FileSource(root).read(None)).entries
    assert {key: entry.value for key, entry in seen.items()} == new
    versions = {key: entry.version for key, entry in seen.items()}
    await store.commit([Edit("services/web", b"[4]", versions["services/web"])])
    assert "services/dns.toml" not in files(root) and files(root)["services/a/backends/b.json"] == "[3]"
    entries = (await store.load()).entries
    assert {key: entry.value for key, entry in entries.items()} == new | {"services/web": b"[4]"}
    assert file_journal.read(root).changes == ()


async def test_a_source_that_waits_is_told_of_the_moment(root: Path) -> None:
    source = FileSource(root)
    tree = await source.read(None)
    stopped(root, file_journal.FileChange("services/web.json", file_journal.version(b"{}"), b"[1]"))
    assert (await source.read(tree)).entries["services/web"].value == b"[1]"
    await source.close()


@pytest.mark.parametrize(
    "name",
    ["/etc/cron.d/x", "../x.json", "services/../../x.json", "services/.x.json", "services//x", "x.json", "", ".ssh/x"],
)
async def test_a_journal_that_was_laid_there_writes_nowhere_else(name: str, root: Path, store: FileStore) -> None:
    stopped(root, file_journal.FileChange(name, "", b"[1]"))
    (root / file_journal.LOCK).touch()
    before = sorted(root.parent.rglob("*"))
    for act in (store.load(), store.commit([Edit("services/new", b"{}")])):
        with pytest.raises(SourceError, match="is no place for a document"):
            await act
    assert sorted(root.parent.rglob("*")) == before


async def test_a_journal_of_another_directory_is_not_carried_out(root: Path, store: FileStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stopped(other, file_journal.FileChange("services/web.json", file_journal.version(b"{}"), b"[1]"))
    (root / file_journal.NAME).write_bytes((other / file_journal.NAME).read_bytes())
    with pytest.raises(SourceError, match="was written for another directory, and copied"):
        await store.load()
    assert (root / "services/web.json").read_bytes() == b"{}"


async def test_only_who_may_write_can_hold_the_lock(root: Path, store: FileStore) -> None:
    (root / file_journal.LOCK).touch(0o644)
    await store.commit([Edit("services/new", b"{}")])
    assert (root / file_journal.LOCK).stat().st_mode & 0o777 == 0o660


async def test_a_journal_that_is_none(root: Path, store: FileStore) -> None:
    for text in ("", "[]", '{"id": "x"}', '{"id": "x", "changes": [["a", "b", "not base64!"]]}'):
        (root / file_journal.NAME).write_text(text)
        with pytest.raises(SourceError, match="remove it if it cannot be mended"):
            await store.load()
        with pytest.raises(SourceError, match="remove it if it cannot be mended"):
            await store.commit([Edit("services/web", b"[1]")])
    (root / file_journal.NAME).unlink()
    assert files(root)["services/web.json"] == "{}"


@pytest.mark.parametrize("laid", ["deep", "endless", "waiting", "half a letter", "large"])
async def test_a_journal_that_was_laid_there_stops_nobody(
    laid: str, root: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / file_journal.NAME
    if laid == "deep":
        path.write_text("[" * 200_000)
    elif laid == "endless":
        path.symlink_to("/dev/zero")
    elif laid == "waiting":
        os.mkfifo(path)
    elif laid == "large":
        monkeypatch.setattr(file_journal, "MAX_JOURNAL", 1000)
        path.write_text(" " * 1001)
    else:
        stopped(root, file_journal.FileChange("services/\ud800.json", "", b"{}"))
    for act in (store.load(), store.commit([Edit("services/web", b"[1]")])):
        with pytest.raises(SourceError, match="remove it if it cannot be mended"):
            await act


async def test_a_write_that_nobody_could_read_is_none(
    root: Path, store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_journal, "MAX_JOURNAL", 1000)
    with pytest.raises(SourceError, match=r"at most 1000 bytes.*nothing was written"):
        await store.commit([Edit("services/new", b'"' + b"x" * 2000 + b'"')])
    assert "services/new.json" not in files(root)


@pytest.mark.parametrize("laid", ["link", "pipe", "folder"])
async def test_a_lock_that_was_laid_there_is_not_followed(
    laid: str, root: Path, store: FileStore, tmp_path: Path
) -> None:
    """Else whoever may write the directory would make files of his choice, and open others to the daemon's group."""
    other, lock = tmp_path / "other", root / file_journal.LOCK
    other.touch(0o600)
    if laid == "link":
        lock.symlink_to(other)
    elif laid == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(SourceError, match="nothing was written"):
        await store.commit([Edit("services/web", b"[1]")])
    assert stat.S_IMODE(other.stat().st_mode) == 0o600


async def test_nothing_is_written_behind_a_link_that_leads_out(root: Path, store: FileStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (root / "services" / "web" / "backends" / "web1").unlink()
    (root / "services" / "web" / "backends").rmdir()
    (root / "services" / "web" / "backends").symlink_to(other)
    with pytest.raises(SourceError, match="leads out of the catalog; nothing was written"):
        await store.commit([Edit("services/web/backends/b9", b"{}")])
    stopped(root, file_journal.FileChange("services/web/backends/b9.json", "", b"{}"))
    await store.commit([Edit("services/new", b"{}")])
    assert not any(other.iterdir()) and "services/new.json" in files(root)


@pytest.mark.parametrize(
    "key",
    ["services/.web", "services/#web#", "services/" + "x" * 250, "drain/lb1.tmp", "other", "services/a/b/c/d",
     "services", "drain/a/b", "services/caf\ufffd", "defaults/x"],
)  # fmt: skip
async def test_names_that_a_directory_would_not_show(root: Path, store: FileStore, key: str) -> None:
    before = files(root)
    with pytest.raises(SourceError, match="nothing was written"):
        await store.commit([Edit("services/new", b"1"), Edit(key, b"1")])
    assert files(root) == before


async def test_a_directory_in_the_place_of_a_file(root: Path, store: FileStore) -> None:
    (root / "services" / "new.json").mkdir()
    before = files(root)
    with pytest.raises(SourceError, match=r"new\.json is a directory.*nothing was written"):
        await store.commit([Edit("services/web", b"[1]"), Edit("services/new", b"1")])
    assert files(root) == before


async def test_no_directory_and_one_that_may_not_be_written(root: Path, store: FileStore) -> None:
    with pytest.raises(SourceError, match="create it"):
        await FileStore(root / "nowhere").commit([Edit("services/web", b"1")])
    if os.getuid():
        (root / "services").chmod(0o555)
        with pytest.raises(SourceError, match="nothing was written"):
            await store.commit([Edit("services/new", b"1")])
        (root / "services").chmod(0o755)


async def test_another_writer_that_does_not_end(root: Path, monkeypatch: pytest.MonkeyPatch, store: FileStore) -> None:
    monkeypatch.setattr(file_journal, "TIMEOUT", 0.1)
    with (
        file_journal.alone(root),
        pytest.raises(SourceError, match=r"another process has held .*nothing was written"),
    ):
        await store.commit([Edit("services/web", b"[1]")])
    assert files(root)["services/web.json"] == "{}"
