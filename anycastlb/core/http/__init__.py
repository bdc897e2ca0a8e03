"""What becomes of an HTTP request: routes as decision graphs, as map entries of HAProxy, and evaluated in Python."""
