"""Find the local times that a time zone skips or repeats, from the zone's own rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAY = timedelta(days=1)


class Change(NamedTuple):
    """A change of the clocks of a time zone.

    Attributes:
        begin, end: the local times, without a zone, that it skips or repeats; `end` is the first that it does not.
        skipped: whether these times do not exist; False: they come twice.
    """

    begin: datetime
    end: datetime
    skipped: bool


def changes(zone: str, since: datetime, until: datetime) -> Iterator[Change]:
    """Yield the changes of a zone's clocks between two instants, in order."""
    local = ZoneInfo(zone)
    before = since.astimezone(UTC)
    while before < until:
        after = before + _DAY
        if _offset(before, local) != _offset(after, local):
            yield _change(_instant(before, after, local), local)
        before = after


def is_utc(zone: str, year: int = 2020) -> bool:
    """Return whether a zone's clocks show UTC, and are never changed. False for an unknown zone."""
    try:
        local = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        return False
    begin = datetime(year, 1, 1, tzinfo=UTC)
    return not any(_offset(begin + n * _DAY, local) for n in range(0, 3660, 30))


def _change(at: datetime, local: ZoneInfo) -> Change:
    old, new = (at + _offset(moment, local) for moment in (at - timedelta(seconds=1), at))
    begin, end = sorted((old.replace(tzinfo=None), new.replace(tzinfo=None)))
    return Change(begin, end, skipped=new > old)


def _instant(before: datetime, after: datetime, local: ZoneInfo) -> datetime:
    """Return the first second at which the zone has the offset of `after`."""
    old, step = _offset(before, local), int((after - before).total_seconds())
    low, high = 0, step
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(before + timedelta(seconds=middle), local) == old:
            low = middle
        else:
            high = middle
    return before.replace(microsecond=0) + timedelta(seconds=high)


def _offset(moment: datetime, local: ZoneInfo) -> timedelta:
    return moment.astimezone(local).utcoffset() or timedelta()
