"""Pure functions from a snapshot to what the API answers."""
