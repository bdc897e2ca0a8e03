"""A bare Debian machine with its own systemd, installed as docs/INSTALL.md says, in the lab."""
