"""Laws of a write in stages: what readers are shown at any moment is what the tree will be."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.sources import staging
from anycastlb.adapters.sources.staging import Chunk, StagingRecord
from anycastlb.core.model import Conflict, Edit, Entry, SourceError

KEYS = [f"services/{name}" for name in "abcdefgh"]
VALUES = st.binary(max_size=3) | st.sampled_from([b"{}", b"\n", b"\0" * 3])
HANDS = st.dictionaries(st.sampled_from(KEYS), VALUES | st.none(), max_size=3)


class Kv:
    """Consul's key-value store: every transaction has an index of its own."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self.index = 10
        self.entries: dict[str, Entry] = {}
        for key, value in keys.items():
            self.apply({key: value})

    def apply(self, changes: dict[str, bytes | None]) -> None:
        self.index += 1
        for key, value in changes.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                before = self.entries.get(key)
                created = before.created if before else self.index
                self.entries[key] = Entry(value, created, version=str(self.index))

    def place(self, record: StagingRecord, chunk: Chunk) -> StagingRecord:
        record = replace(record, done=record.done + 1)
        moves = {edit.key: edit.value for edit in staging.outstanding(chunk, self.entries)}
        self.apply({staging.RECORD: record.text(), **moves})
        return record


def shown(entries: dict[str, Entry]) -> list[tuple[str, bytes]]:
    """Keys and values in the order in which the parser takes them."""
    found = staging.in_force(entries)
    return [(key, found[key].value) for key in sorted(found, key=lambda key: (found[key].created, key))]


@st.composite
def edits(draw: st.DrawFn) -> list[Edit]:
    chosen = draw(st.lists(st.sampled_from(KEYS), unique=True, min_size=1))
    return [Edit(key, draw(VALUES | st.none())) for key in chosen]


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES),
    edits(),
    st.lists(st.integers(1, 3), min_size=8, max_size=8),
    st.lists(HANDS, min_size=10, max_size=10),
    st.lists(st.booleans(), min_size=10, max_size=10),
)
def test_the_overlay_is_what_the_tree_will_be(
    before: dict[str, bytes],
    wanted: list[Edit],
    sizes: list[int],
    hands: list[dict[str, bytes | None]],
    some: list[bool],
) -> None:
    """At each moment, if nobody else changes anything from then on; with others' changes between the moves."""
    kv = Kv(before)
    settled = staging.settled(wanted, kv.entries)
    chunks: list[Chunk] = []
    for size in sizes:
        if settled:
            chunks.append(settled[:size])
            settled = settled[size:]
    texts = [staging.pack(chunk) for chunk in chunks]
    record = StagingRecord("id", chunks=len(chunks), sha256=staging.checksum(texts))
    old = shown(kv.entries)
    kv.apply({staging.RECORD: record.text()})
    for number, text in enumerate(texts):
        kv.apply({staging.name("id", number): text})
        assert shown(kv.entries) == old
    if some[0]:
        kv.apply(hands[0])
    record = replace(record, state="committed")
    kv.apply({staging.RECORD: record.text()})
    if not (some[0] and hands[0]):
        after: dict[str, bytes | None] = {**before, **{edit.key: edit.value for edit in wanted}}
        assert dict(shown(kv.entries)) == {key: value for key, value in after.items() if value is not None}
    for number, chunk in enumerate(chunks, 1):
        if some[number]:
            kv.apply(hands[number])
        future = Kv({})
        future.index, future.entries, coming = kv.index, dict(kv.entries), record
        now = shown(future.entries)
        for later in chunks[coming.done :]:
            coming = future.place(coming, later)
            assert shown(future.entries) == now
        future.apply({key: None for key in list(future.entries) if key.startswith(staging.BELOW)})
        assert shown(future.entries) == now
        record = kv.place(record, chunk)


@given(
    st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1),
    edits(),
    st.dictionaries(st.sampled_from(KEYS), VALUES | st.none(), min_size=1, max_size=3),
)
def test_what_others_have_changed_since_is_theirs(
    before: dict[str, bytes], wanted: list[Edit], hand: dict[str, bytes | None]
) -> None:
    kv = Kv(before)
    chunk = staging.settled(wanted, kv.entries)
    text = staging.pack(chunk)
    committed = StagingRecord("id", "committed", 1, staging.checksum([text]))
    kv.apply({staging.RECORD: committed.text(), staging.name("id", 0): text})
    kv.apply({key: value for key, value in hand.items() if value is not None or key in kv.entries})
    for _ in range(2):
        now = dict(shown(kv.entries))
        for key, value in hand.items():
            if value is not None:
                assert now[key] == value
            elif key in before:
                assert key not in now
        kv.place(committed, chunk)


@given(st.lists(st.tuples(VALUES | st.none(), st.sampled_from(["", "7", "123456"])), max_size=8))
def test_a_chunk_is_read_as_it_was_written(content: list[tuple[bytes | None, str]]) -> None:
    chunk = tuple(Edit(f"services/ü{n}\n", value, expects) for n, (value, expects) in enumerate(content))
    assert staging.unpack(staging.pack(chunk)) == chunk


@given(
    st.lists(st.tuples(st.integers(0, 300_000) | st.none(), st.sampled_from([None, "", "7"])), max_size=200),
    st.integers(1, 50),
)
def test_every_piece_fits_and_nothing_is_missing(content: list[tuple[int | None, str | None]], length: int) -> None:
    wanted = [
        Edit(f"services/{'ü' * length}{n}", None if size is None else b"x" * size, expects)
        for n, (size, expects) in enumerate(content)
    ]
    pieces = staging.split(wanted, "anycastlb/")
    assert [edit for piece in pieces for edit in piece] == wanted
    for piece in pieces:
        weights = [staging.weight(edit, "anycastlb/") for edit in piece]
        assert piece and sum(count for count, _ in weights) <= staging.MAX_OPERATIONS
        assert len(piece) == 1 or sum(size for _, size in weights) <= staging.MAX_BYTES
        assert sum(size for _, size in weights) < 500 * 1024
        assert len(staging.pack(piece)) * 4 / 3 < 500 * 1024


@given(st.dictionaries(st.sampled_from([staging.RECORD, "import/id/00000", *KEYS]), st.binary(max_size=80)))
def test_garbage_in_the_place_of_an_import_is_an_error_of_ours(content: dict[str, bytes]) -> None:
    kv = Kv(content)
    try:
        assert all(not key.startswith(staging.BELOW) for key in staging.in_force(kv.entries))
    except SourceError as exc:
        assert not isinstance(exc, Conflict) and staging.RECORD in str(exc)
