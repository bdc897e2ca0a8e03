"""The documents of the HTTP tier: gateways, routes and pools, from their documents to values."""
