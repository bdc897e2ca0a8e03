"""``[cluster]``: what the nodes owe each other. The same on every node."""

from __future__ import annotations

from anycastlb.documents import Count, Document


class ClusterSettings(Document):
    max_drained: Count = 1
    """How many nodes may be drained at once; 0: any number."""
