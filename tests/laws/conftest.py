"""One Hypothesis profile: no wall-clock deadline (shared machines are slow), the same examples every run in CI.

More of them: ``make laws``, see ``tests.support.examples``.
"""

import os

from hypothesis import HealthCheck, settings

from tests.support.examples import EXAMPLES

settings.register_profile(
    "laws",
    deadline=None,
    max_examples=EXAMPLES or 100,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("laws")
