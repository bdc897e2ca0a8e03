"""Everything that decides. Nothing here does I/O, reads a clock or depends on anything outside this folder."""
