"""``[ipvs]``: what of the kernel the daemon sets up."""

from __future__ import annotations

from anycastlb.documents import Document


class IpvsSettings(Document):
    manage_sysctls: bool = True
    """Set the net.ipv4.vs sysctls that let a node take over flows; if false they are only checked."""
