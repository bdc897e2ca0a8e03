"""Consul over HTTP: the client, blocking queries and transactions."""
