"""HTTP for the API: listeners, connections, who the caller is, and what he may do."""
