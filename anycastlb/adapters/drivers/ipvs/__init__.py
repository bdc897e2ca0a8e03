"""IPVS over generic netlink: services, destinations and its own settings."""
