"""The time as records, histories and ledgers write it."""

from __future__ import annotations

import functools
import time


def now() -> str:
    """The time in UTC, to the millisecond, in ISO 8601."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}+00:00"


@functools.lru_cache(maxsize=1)  # calls come by the thousand a second
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
