"""How long the fuzzers look: the same few examples each time (what CI runs), or new and many ones with ``OSTINATO_FUZZ=deep``."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

DEEP = os.environ.get("OSTINATO_FUZZ") == "deep"
"""Read when a fuzzer is imported: tests run in an environment without the caller's variables."""


def examples(count: int) -> settings:
    """The settings of a test with `count` examples in CI, and forty times as many, found anew each time, when deep."""
    return settings(
        max_examples=count * 40 if DEEP else count,
        derandomize=not DEEP,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
