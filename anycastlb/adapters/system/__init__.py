"""The operating system: netlink, Unix sockets, files, journald and systemd."""
