"""How many inputs each test generates: a few seconds' worth by default, more with FUZZ_EXAMPLES."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
DEFAULT_EXAMPLES = 40

settings.register_profile(
    "fuzz",
    max_examples=EXAMPLES or DEFAULT_EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not EXAMPLES,  # by default the same inputs on every machine; many are new ones each time
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("fuzz")
