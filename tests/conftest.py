"""For all tests: hypothesis without a deadline per example, because the machine may be busy.

Examples are the same at every run, so that a change is judged by what it did and not by luck. To look for more:
HYPOTHESIS_PROFILE=search pytest tests/unit, and the fuzzer.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("same", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile(
    "search", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=2000, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
