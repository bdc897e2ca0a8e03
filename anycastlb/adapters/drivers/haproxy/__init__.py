"""HAProxy, which serves the HTTP tier: its configuration as text, its two sockets, and the driver of its tables."""
