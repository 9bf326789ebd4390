"""Times of schedules, asked of Prefect's own classes: what is refused, what is told, and what a change of the clocks does."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import prefect
import pytest

from flows.schedules import deployments
from flows.schedules.clocks import Change, changes, is_utc
from flows.schedules.times import ended, plan, upcoming
from runner.config.schema.schedule import Schedule
from runner.errors import ConfigError, ScheduleError

NOW = datetime(2026, 12, 1, 7, 30, 15, tzinfo=UTC)
BERLIN = {"timezone": "Europe/Berlin"}
DAILY = "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"

SPRING = {  # what Prefect plays instead of 02:30 on a day without it, by its version: a cron and a rule of the same times
    "3.8.8": ("01:30", "01:30"),
    "3.9.0": ("01:30", "01:30"),
    "3.9.1": ("03:30", "01:30"),
}


def known(table):
    """Return what is known of the installed Prefect, or of the newest version before it."""

    def numbers(version):
        return tuple(int(part) for part in version.split(".")[:3])

    return table[max((version for version in table if numbers(version) <= numbers(prefect.__version__)), key=numbers)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"cron": "0 3 31 2 *"}, "schedule.cron: '0 3 31 2 *' never plays"),
        ({"cron": "*/5 * * * * *"}, "has 6 fields"),
        ({"cron": "0 3 * * * 0 2027"}, "has 7 fields"),
        ({"rrule": "FREQ=DAILY;UNTIL=20270501T000000Z"}, "UNTIL=20270501T000000Z ends with Z, and there is no DTSTART"),
        ({"rrule": "FREQ=DAILY;COUNT=3"}, "COUNT needs a DTSTART"),
        ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=31"}, "schedule.rrule: it never plays"),
        ({"rrule": "DTSTART:20260101T030000 RRULE:FREQ=DAILY;COUNT=2"}, "all of its dates have passed"),
        ({"rrule": "DTSTART;TZID=Europe/Paris:20270101T030000 RRULE:FREQ=DAILY", **BERLIN}, "DTSTART says TZID=Europe/Paris"),
        ({"rrule": "DTSTART:20270101T030000Z RRULE:FREQ=DAILY", **BERLIN}, "DTSTART says 20270101T030000Z, a time in UTC"),
        ({"rrule": "DTSTART:20270101T030000 RRULE:FREQ=DAILY EXDATE:20270102T030000Z", **BERLIN}, "EXDATE says"),
    ],
)
def test_what_never_plays_or_contradicts_itself_is_refused(given, told):
    with pytest.raises(ConfigError, match="schedule") as caught:
        plan(Schedule(**given), NOW)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("given", "dates"),
    [
        ({"cron": "0 3 29 2 *"}, ["2028-02-29T03:00:00+00:00", "2032-02-29T03:00:00+00:00", "2036-02-29T03:00:00+00:00"]),
        ({"cron": "@monthly", **BERLIN}, ["2027-01-01T00:00:00+01:00", "2027-02-01T00:00:00+01:00", "2027-03-01T00:00:00+01:00"]),
        (
            {"rrule": "DTSTART;TZID=Europe/Berlin:20270101T030000 RRULE:FREQ=DAILY;COUNT=2", **BERLIN},
            ["2027-01-01T03:00:00+01:00", "2027-01-02T03:00:00+01:00"],
        ),
        (
            {"rrule": "DTSTART:20270101T030000Z RRULE:FREQ=DAILY;UNTIL=20270104T000000Z EXDATE:20270102T030000Z"},
            ["2027-01-01T03:00:00+00:00", "2027-01-03T03:00:00+00:00"],
        ),
        ({"rrule": "FREQ=HOURLY;INTERVAL=2"}, [f"2026-12-01T{hour:02}:00:00+00:00" for hour in (8, 10, 12)]),
    ],
)
def test_the_next_three_dates_or_the_last_ones_are_told(given, dates):
    found = plan(Schedule(**given), NOW)
    assert [date.isoformat() for date in found.dates] == dates
    assert not found.remarks


def test_an_interval_is_elapsed_time_whatever_the_zone():
    found = plan(Schedule(interval_s=86400, **BERLIN), datetime(2027, 3, 27, 0, 0, tzinfo=UTC))
    assert {later - date for date, later in pairwise(date.astimezone(UTC) for date in found.dates)} == {timedelta(days=1)}
    assert [date.hour for date in found.dates] == [1, 1, 2]  # summer time begins on the 28th
    assert found.remarks[0].startswith("interval_s is elapsed time: schedule.timezone moves nothing")
    assert plan(Schedule(interval_s=5), NOW).remarks == ["interval_s is elapsed time"]


@pytest.mark.parametrize("which", ["cron", "rrule"])
def test_times_that_a_zone_skips_or_repeats_are_told_with_what_prefect_does(which):
    given = {"cron": "30 2 * * *"} if which == "cron" else {"rrule": DAILY}
    skipped, repeated = plan(Schedule(**given, **BERLIN), NOW).remarks
    instead = known(SPRING)[which == "rrule"]
    assert skipped == (
        "on 2027-03-28 the times from 02:00 to 03:00 do not exist in Europe/Berlin; "
        f"Prefect {prefect.__version__} plays 02:30 once, at {instead} (UTC+0{'2' if instead == '03:30' else '1'}00)"
    )
    assert repeated.endswith(
        "come twice in Europe/Berlin; " + f"Prefect {prefect.__version__} plays 02:30 once, at 02:30 (UTC+0200)"
    )


def test_frequent_times_are_merged_with_others_or_played_once():
    skipped, repeated = plan(Schedule(cron="*/20 * * * *", **BERLIN), NOW).remarks
    assert skipped.endswith("plays nothing for 02:00 and 2 more") or known(SPRING)[0] != "03:30"
    assert repeated.endswith("plays 02:00 and 2 more once each, from 02:00 (UTC+0200)")


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("RRULE:FREQ=DAILY;BYHOUR=3 EXDATE:20270102T030000", []),
        ("RRULE:FREQ=DAILY;BYHOUR=3 EXDATE:20270102T030000,20270103", ["EXDATE 20270103 leaves nothing out"]),
        (
            "RRULE:FREQ=WEEKLY;BYDAY=MO;BYHOUR=3 EXDATE;VALUE=DATE-TIME:20270105T030000",
            ["EXDATE 20270105T030000 leaves nothing out"],
        ),
        ("RRULE:FREQ=DAILY;BYHOUR=3 EXDATE:20200102T040000", []),
        ("RRULE:FREQ=DAILY;BYHOUR=3;UNTIL=20270201", ["UNTIL=20270201 is 00:00 of that day"]),
    ],
)
def test_days_that_are_left_out_and_the_end_of_a_rule_mean_what_they_say(rule, told):
    remarks = plan(Schedule(rrule=f"DTSTART:20260101T000000 {rule}"), NOW).remarks
    assert [remark.startswith(words) for remark, words in zip(remarks, told, strict=True)] == [True] * len(told)


@pytest.mark.parametrize("given", [{"cron": "30 3 * * *", **BERLIN}, {"cron": "30 2 * * *"}, {"cron": "30 2 * 6 *", **BERLIN}])
def test_other_times_get_no_remark(given):
    assert not plan(Schedule(**given), NOW).remarks


def test_changes_of_the_clocks_are_found_in_the_zone():
    begin, end = datetime(2027, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC)
    found = {zone: [*changes(zone, begin, end)] for zone in ("Europe/Berlin", "Australia/Lord_Howe", "Asia/Tokyo")}
    assert found["Europe/Berlin"] == [
        Change(datetime(2027, 3, 28, 2), datetime(2027, 3, 28, 3), skipped=True),  # noqa: DTZ001 - times by the clock on the wall
        Change(datetime(2027, 10, 31, 2), datetime(2027, 10, 31, 3), skipped=False),  # noqa: DTZ001
    ]
    assert [change.end - change.begin for change in found["Australia/Lord_Howe"]] == [timedelta(minutes=30)] * 2
    assert not found["Asia/Tokyo"]
    assert [is_utc(zone) for zone in ("Etc/UTC", "Zulu", "Europe/London", "Mars/Base")] == [True, True, False, False]


def test_a_schedule_is_over_when_its_dates_have_passed():
    times = plan(Schedule(rrule="DTSTART:20270101T030000 RRULE:FREQ=DAILY;COUNT=2"), NOW).times.schedule
    after = datetime(2027, 1, 3, tzinfo=UTC)
    assert (ended(times, NOW), ended(times, after)) == (False, True)
    assert not upcoming(times, after, 1)
    daily = plan(Schedule(cron="0 3 * * *"), NOW).times.schedule
    assert not ended(daily, after)
    assert upcoming(daily, NOW, 1)[0].astimezone(ZoneInfo("UTC")).hour == 3


class Unable:
    """A server that takes a schedule and plans no run of it, as Prefect's does when its scheduler fails."""

    def __init__(self, status=200):
        self.status = status

    async def request(self, method, path, **_):
        reply = httpx.Response(self.status, request=httpx.Request(method, f"http://server{path}"))
        reply.raise_for_status()

    async def read_flow_runs(self, **_):
        return []


@pytest.mark.parametrize(("status", "told"), [(200, "the server planned no run of it"), (500, "the server cannot plan it")])
async def test_a_server_that_plans_nothing_is_told(status, told):
    found = plan(Schedule(cron="0 3 * * *"), datetime.now(UTC))
    with pytest.raises(ScheduleError, match=told):
        await deployments._with_dates_of_server(Unable(status), uuid4(), found)
