"""Checks in a process of their own: a busy daemon makes no backend look dead, and busy checks make no daemon late.

The daemon starts the process and supervises it (``supervisor``); the process runs the checks (``process``). They talk
over one socket (``protocol``): down go the wanted checks and the firewall marks, up comes what each probe proved. The
process folds results for its own times, the daemon folds the same results for its decisions: a process that dies takes
no verdict with it.
"""
