"""Routes for the properties of the bridge."""

from __future__ import annotations

from hypothesis import strategies as st

from anycastlb.core.model import Route

u32 = st.integers(0, 2**32 - 1)


routes = st.builds(
    Route,
    communities=st.lists(st.sampled_from(["65001:1", "65535:0", "0:0"]), max_size=3).map(tuple),
    large_communities=st.lists(st.sampled_from(["1:2:3", "4294967295:0:0"]), max_size=2).map(tuple),
    med=st.none() | u32,
    local_preference=st.none() | u32,
    as_path_prepend=st.integers(0, 32),
)


vips = st.ip_addresses(network="192.0.2.0/28") | st.ip_addresses(network="2001:db8::/124")
