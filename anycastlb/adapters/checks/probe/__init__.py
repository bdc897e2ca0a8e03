"""What the web checks (``http``, ``https``) and ``tcp`` are made of: byte streams, TLS, HTTP/1.1.

A probe is one bounded exchange on a socket that ``sockets`` made, so that it takes its probe path. The socket is closed
at once whatever happens: there is no session, no pool and no transport that outlives it.
"""
