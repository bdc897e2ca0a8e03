"""The engine of a node: it follows the catalog, runs the checks, and reconciles the machine with the decision."""
