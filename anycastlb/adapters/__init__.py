"""Everything that touches the world outside this process, one folder for each neighbour."""
