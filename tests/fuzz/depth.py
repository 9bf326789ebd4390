"""Choose how many examples the fuzzers try: the same few each time (as CI does), or many new ones with ``OSTINATO_FUZZ=deep``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

DEEP = os.environ.get("OSTINATO_FUZZ") == "deep"
"""Read on import, because tests run without the caller's environment variables."""


def examples(count: int) -> settings:
    """Return the settings of a test with `count` examples, or forty times as many new ones if deep."""
    return settings(
        max_examples=count * 40 if DEEP else count,
        derandomize=not DEEP,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
