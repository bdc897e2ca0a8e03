"""The law of the catalog on disk: what is loaded is what was saved last, in whatever pieces it was written."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from anycastlb.adapters.sources.cache import SavedTree
from anycastlb.core.model import Entry, Tree

LARGE = Tree({f"services/s{number}": Entry(b"x" * 100, number) for number in range(100)}, 1)
edits = st.dictionaries(st.integers(0, 120), st.binary(max_size=300) | st.none(), max_size=4)
"""By the number of a service: its document; None deletes it."""


happens = st.sampled_from(["nothing", "the node is started again", "somebody removes the file"])


@given(st.lists(st.tuples(edits, happens), max_size=5))
def test_what_is_loaded_is_what_was_saved_last(history: list[tuple[dict[int, bytes | None], str]]) -> None:
    with TemporaryDirectory() as folder:
        saved, tree = SavedTree(folder, "x"), LARGE
        saved.save(tree)
        for changes, what in history:
            entries = dict(tree.entries)
            for number, value in changes.items():
                entries.pop(f"services/s{number}", None)
                if value is not None:
                    entries[f"services/s{number}"] = Entry(value, number)
            tree = Tree(entries, tree.index + 1)
            if what == "the node is started again":
                saved = SavedTree(folder, "x")
            elif what == "somebody removes the file":
                saved.path.unlink()
            saved.save(tree)
            assert SavedTree(folder, "x").load() == tree
