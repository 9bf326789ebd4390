"""The time as records, histories and ledgers write it."""

from __future__ import annotations

import functools
import time


def now() -> str:
    """Return the time in UTC, to the millisecond, in ISO 8601."""
    return written(time.time_ns())


def written(nanoseconds: int) -> str:
    """Return a time, in nanoseconds since 1970, as `now` does."""
    return _millisecond(nanoseconds // 1_000_000)


@functools.lru_cache(maxsize=1)  # there are dozens of cache hits per millisecond
def _millisecond(milliseconds: int) -> str:
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}+00:00"


@functools.lru_cache(maxsize=1)  # there are thousands of answers per second
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
