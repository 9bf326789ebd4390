"""Ask Prefect when a schedule plays, before it is applied: refuse what never plays, and tell what a change of the clocks does.

The dates come from the classes with which Prefect's server plans, so what is told is what will be played.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.schedules.clocks import Change, changes, is_utc
from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.config.schema.schedule import Schedule

SHOWN = 3
"""How many dates are told."""

_AHEAD = timedelta(days=366 * 5)
"""How far changes of the clocks are looked for."""

_STAMP = re.compile(
    r"\b(?P<field>DTSTART|UNTIL|RDATE|EXDATE)(?P<how>(?:;[\w-]+=[^:;\s]+)*)[:=](?P<values>[\dTZ,]+)", re.IGNORECASE
)
_ZONE = re.compile(r";TZID=([^:;\s]+)", re.IGNORECASE)


class Plan(NamedTuple):
    """When a schedule plays.

    Attributes:
        times: Prefect's schedule, as a deployment is given it.
        dates: the next `SHOWN`, or fewer if these are the last; in `schedule.timezone`.
        remarks: what may surprise, one line each.
    """

    times: Any
    dates: list[datetime]
    remarks: list[str]


def plan(schedule: Schedule, now: datetime) -> Plan:
    """Check the times of a schedule.

    Raises:
        ConfigError: Prefect cannot parse or plan them, they never come, or they name two time zones.
    """
    _refuse_six_fields(schedule)
    times = _created(schedule, now)
    _refuse_other_zones(schedule)
    field = "cron" if schedule.cron is not None else "rrule" if schedule.rrule is not None else "interval_s"
    _refuse_counts_without_start(schedule)
    try:
        dates = upcoming(times.schedule, now, SHOWN)
    except ValueError as error:
        raise ConfigError(f"schedule.{field}: {_cannot(schedule, error)}") from None
    if not dates:
        raise ConfigError(f"schedule.{field}: {_never(times.schedule, schedule, now)}")
    zone = times.schedule.timezone or "UTC"
    remarks = [line for change in changes(zone, now, now + _AHEAD) for line in _told(times.schedule, change, zone)]
    return Plan(
        times,
        [date.astimezone(_zone(schedule.timezone)) for date in dates],
        [*_of_interval(schedule), *_of_rule(schedule, times.schedule, now), *_first(remarks)],
    )


def upcoming(times: Any, since: datetime, count: int, until: datetime | None = None) -> list[datetime]:
    """Return the dates on which Prefect's server plans `times`, in UTC.

    Args:
        times: a schedule of Prefect, as a deployment has it.
        since: the first date is not earlier.
        count: how many are wanted.
        until: the last date is not later.

    Raises:
        ValueError: the server cannot plan it. It writes that into its own log only.
    """
    try:
        generator = _as_on_the_server(times)._get_dates_generator  # noqa: SLF001 - its public form is a coroutine of the same
        return sorted(plain(date) for date in generator(count, since, until))
    except (TypeError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def plain(date: datetime) -> datetime:
    """Return a date of Prefect, which may be of a class of its own, as one of Python's, in UTC."""
    return datetime.fromtimestamp(date.timestamp(), UTC)


def _as_on_the_server(times: Any) -> Any:
    from prefect.server.schemas.actions import DeploymentScheduleCreate

    return DeploymentScheduleCreate.model_validate({"schedule": times.model_dump(mode="json")}).schedule


def _created(schedule: Schedule, now: datetime) -> Any:
    """Return the times as a deployment is given them. Raises ConfigError, which names the field of our config."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
    from pydantic import ValidationError

    made: CronSchedule | RRuleSchedule | IntervalSchedule
    try:
        if schedule.cron is not None:
            made = CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
        elif schedule.rrule is not None:
            made = RRuleSchedule(rrule=schedule.rrule, timezone=schedule.timezone)
        else:  # without a time zone, or its days would not be elapsed time
            made = IntervalSchedule(interval=timedelta(seconds=schedule.interval_s or 0), anchor_date=now)
        return DeploymentScheduleCreate(schedule=made, active=True)
    except ValidationError as error:
        mistake = error.errors()[0]
        field = next((str(part) for part in mistake["loc"] if part in ("cron", "rrule", "timezone")), "interval_s")
        raise ConfigError(f"schedule.{field}: {mistake['msg'].removeprefix('Value error, ')}") from None


def _refuse_six_fields(schedule: Schedule) -> None:
    fields = (schedule.cron or "").split()
    if len(fields) > 5:  # noqa: PLR2004 - minute, hour, day, month, weekday
        raise ConfigError(
            f"schedule.cron: '{schedule.cron}' has {len(fields)} fields. Give five: minute, hour, day, month and weekday; "
            "Prefect reads a sixth as seconds, and it stands last"
        )


def _refuse_other_zones(schedule: Schedule) -> None:
    """Refuse a time zone inside the rule that is not `schedule.timezone`. Prefect drops it, and keeps the digits."""
    for field, zone, value in _stamps(schedule):
        said = zone or ("UTC" if value.endswith(("Z", "z")) else None)
        if said is None or said == schedule.timezone or (is_utc(said) and is_utc(schedule.timezone)):
            continue
        what = f"TZID={zone}" if zone else f"{value}, a time in UTC"
        raise ConfigError(
            f"schedule.rrule: {field} says {what}, but schedule.timezone is {schedule.timezone}, which Prefect goes by. "
            f"Give schedule.timezone={said}, or write the local time there, without {'TZID' if zone else 'Z'}"
        )


def _refuse_counts_without_start(schedule: Schedule) -> None:
    rule = (schedule.rrule or "").upper()
    if "DTSTART" in rule:
        return
    if "COUNT=" in rule:
        raise ConfigError(
            "schedule.rrule: COUNT needs a DTSTART: Prefect would count from 2020. Begin the rule with "
            f"DTSTART:{datetime.now(_zone(schedule.timezone)):%Y%m%dT000000} for example, and a space"
        )
    for field, _, value in _stamps(schedule):
        if field == "UNTIL" and value.upper().endswith("Z"):
            raise ConfigError(
                f"schedule.rrule: UNTIL={value} ends with Z, and there is no DTSTART, so Prefect can plan nothing; "
                "leave the Z out: the time is one of schedule.timezone"
            )


def _stamps(schedule: Schedule) -> Iterator[tuple[str, str | None, str]]:
    """Yield the dates that a rule names: the field, its TZID, and the value."""
    for found in _STAMP.finditer(schedule.rrule or ""):
        zone = _ZONE.search(found["how"])
        for value in found["values"].split(","):
            yield found["field"].upper(), zone and zone[1], value


def _cannot(schedule: Schedule, error: ValueError) -> str:
    if schedule.cron is not None:
        return f"'{schedule.cron}' never plays, because no such date comes within 50 years (Prefect: {error})"
    return f"Prefect cannot plan it: {error}"


def _never(times: Any, schedule: Schedule, now: datetime) -> str:
    if ended(times, now):
        return f"all of its dates have passed: {schedule.rrule}"
    return f"it never plays, because there is no such date: {schedule.cron or schedule.rrule}"


def ended(times: Any, now: datetime) -> bool:
    """Return whether a schedule had dates, and has none left."""
    if not hasattr(times, "rrule"):
        return False
    before: datetime | None = _as_on_the_server(times).to_rrule().before(now)
    return before is not None


# --- what may surprise


def _of_interval(schedule: Schedule) -> list[str]:
    if schedule.interval_s is None:
        return []
    told = "interval_s is elapsed time"
    if schedule.timezone != "UTC":
        told += ": schedule.timezone moves nothing, and when the clocks change the hour changes; cron keeps to the hour"
    return [told]


def _of_rule(schedule: Schedule, times: Any, now: datetime) -> Iterator[str]:
    """Say which dates of a rule do not end it, or leave out, what they seem to."""
    out: dict[datetime, str] = {}
    for field, _, value in _stamps(schedule):
        if field == "UNTIL" and len(value) == len("20270101"):
            yield f"UNTIL={value} is 00:00 of that day: later times of the day are not played; UNTIL={value}T235959 plays them"
        if field == "EXDATE":
            out[_wall(value)] = value
    coming = {wall: value for wall, value in out.items() if wall.replace(tzinfo=UTC) > now}
    if not coming:
        return
    whole = type(times).model_validate(
        {**times.model_dump(mode="json"), "rrule": _without_exdates(times.rrule), "timezone": "UTC"}
    )
    first, last = (wall.replace(tzinfo=UTC) for wall in (min(coming), max(coming)))
    played = {date.replace(tzinfo=None) for date in _as_on_the_server(whole).to_rrule().between(first, last, inc=True)}
    if idle := [value for wall, value in coming.items() if wall not in played]:
        yield f"EXDATE {', '.join(idle)} leaves nothing out: the rule has no such time, to the second"


def _wall(value: str) -> datetime:
    digits = value.upper().removesuffix("Z")
    return datetime.strptime(digits, "%Y%m%dT%H%M%S" if "T" in digits else "%Y%m%d")  # noqa: DTZ007 - by the clock on the wall


def _without_exdates(rule: str) -> str:
    return "\n".join(line for line in rule.split() if not line.upper().startswith("EXDATE"))


def _first(remarks: list[str]) -> list[str]:
    """Keep the first remark about each kind of change."""
    found: dict[bool, str] = {}
    for line in remarks:
        found.setdefault(" do not exist " in line, line)
    return [*found.values()]


def _told(times: Any, change: Change, zone: str) -> Iterator[str]:
    """Compare what the rule says with what Prefect plans on the day of a change of the clocks."""
    from prefect import __version__

    if not hasattr(times, "cron") and not hasattr(times, "rrule"):
        return
    day = timedelta(days=1)
    begin, end = change.begin - day, change.end + day
    walls = _walls(times, begin, end)
    named = [wall for wall in walls if change.begin <= wall < change.end]
    if not named:
        return
    local = _zone(zone)
    planned = upcoming(times, begin.replace(tzinfo=local).astimezone(UTC), 2000, end.replace(tzinfo=local).astimezone(UTC))
    others = {wall.replace(tzinfo=local).astimezone(UTC) for wall in walls if wall not in named}
    played = [date.astimezone(local) for date in planned if date not in others]
    fact = "do not exist" if change.skipped else "come twice"
    yield (
        f"on {change.begin:%Y-%m-%d} the times from {change.begin:%H:%M} to {change.end:%H:%M} {fact} in {zone}; "
        f"Prefect {__version__} {_done(named, played)}"
    )


def _done(named: list[datetime], played: list[datetime]) -> str:
    """Say what becomes of the times that a rule names."""
    which = f"{named[0]:%H:%M}" + (f" and {len(named) - 1:,} more" if len(named) > 1 else "")
    if not played:
        return f"plays nothing for {which}"
    if len(played) == len(named):
        return f"plays {which} once{' each' if len(named) > 1 else ''}, {'from' if len(named) > 1 else 'at'} {_hour(played[0])}"
    return f"plays {which} {len(played):,} times, from {_hour(played[0])}"


def _hour(date: datetime) -> str:
    return f"{date:%H:%M} (UTC{date:%z})"


def _walls(times: Any, begin: datetime, end: datetime) -> list[datetime]:
    """Return the times of a rule by the clock on the wall, between two of them, whatever the zone."""
    without = type(times).model_validate({**times.model_dump(mode="json"), "timezone": "UTC"})
    return [date.replace(tzinfo=None) for date in upcoming(without, begin.replace(tzinfo=UTC), 2000, end.replace(tzinfo=UTC))]


def _zone(name: str) -> Any:
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)
