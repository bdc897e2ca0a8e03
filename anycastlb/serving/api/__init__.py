"""The HTTP edge: what operators, dashboards and probes may ask a running node.

``serving.views`` turns a ``Snapshot`` into JSON-ready values; ``server`` serves them. Nothing here decides anything or
touches a driver. Import ``anycastlb.serving.api.server`` for the server: this package itself loads nothing, so that a
command which only wants a view starts at once.
"""
