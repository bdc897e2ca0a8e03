"""From everything that is known to everything that should be: pure functions, without I/O and without a clock."""
