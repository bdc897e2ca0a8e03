"""The HTTP edge: what operators, dashboards and probes may ask a running node.

``views`` and ``why`` turn a ``Snapshot`` into JSON-ready values (pure; the commands use them too), ``server`` serves
them. Nothing here decides anything or touches a driver. Import ``anycastlb.api.server`` for the server: this package
itself loads nothing, so that a command which only wants a view starts at once.
"""
