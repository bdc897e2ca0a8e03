"""Sends what it is given as another local user: ``python local_user.py UID GID PLACE [hang-up]``, bytes on stdin.

PLACE is a path or ADDRESS:PORT. Becomes that user only once everything is imported, so that the user needs no right to
read the interpreter. Prints what came back; ``hang-up``: closes as soon as all is sent.
"""

import os
import socket
import sys


def main() -> None:
    uid, gid, place, *more = sys.argv[1:]
    data = sys.stdin.buffer.read()
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    if place.startswith("/"):
        link = socket.socket(socket.AF_UNIX)
        link.connect(place)
    else:
        host, _, port = place.rpartition(":")
        link = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        link.connect((host.encode(), int(port)))  # bytes: a text would be looked up in an encoding it cannot import
    with link:
        link.settimeout(120)
        link.sendall(data)
        while not more and (piece := link.recv(65536)):
            sys.stdout.buffer.write(piece)


main()
