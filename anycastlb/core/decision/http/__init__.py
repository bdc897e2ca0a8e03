"""The HTTP tier's part of a decision: pools, routes, gateways, and the rows of HAProxy's four tables."""
