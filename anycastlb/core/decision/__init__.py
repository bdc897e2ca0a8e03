"""From everything that is known to everything that should be."""
