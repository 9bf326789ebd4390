#!/usr/bin/env bash
# Prefect 3.9.1, prefect.server.schemas.schedules: one local time, as a cron and as a recurrence rule, on the day that lacks it.
#
# Expected: CronSchedule(cron="30 2 * * *") and RRuleSchedule(rrule="FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0") in one time zone are two
#   ways to write "every day at 02:30", and play at the same instants. RFC 5545 (3.3.5) reads a local time that does not exist with
#   the offset before the gap: 02:30 is then 03:30 summer time.
# Truth: on 28 March 2027 in Europe/Berlin, where 02:00 to 03:00 do not exist, the cron plays at 03:30 and the rule at 01:30. On other
#   days they agree, also on the one that has 02:30 twice. In 3.9.0 and 3.8.8 both play at 01:30.
# Why it matters: a rule plays an hour before the time that RFC 5545 means, and before jobs of 01:45 that it was to follow; a schedule
#   that is written in the other form, or a server that gets a patch release, plays at another time on one night of the year.
# Seen on 2026-12-01. Exits 1 if it is no longer so.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "prefect==3.9.1" "tzdata==2026.6"
cd "$work"
PREFECT_HOME="$work/home" "$work/venv/bin/python" -W ignore - <<'PYTHON'
import asyncio
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from prefect.server.schemas.schedules import CronSchedule, RRuleSchedule

BERLIN = ZoneInfo("Europe/Berlin")
FORMS = {
    "cron": CronSchedule(cron="30 2 * * *", timezone="Europe/Berlin"),
    "rule": RRuleSchedule(rrule="FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0", timezone="Europe/Berlin"),
}


def dates(form: str, month: int, day: int) -> list[str]:
    begin = datetime(2027, month, day, 12, tzinfo=UTC)
    found = asyncio.run(FORMS[form].get_dates(2, start=begin))
    return [datetime.fromtimestamp(one.timestamp(), BERLIN).isoformat(" ", "minutes") for one in found]


spring = {form: dates(form, 3, 27) for form in FORMS}
autumn = {form: dates(form, 10, 30) for form in FORMS}
for name, found in (("02:30 does not exist on 2027-03-28", spring), ("02:30 comes twice on 2027-10-31", autumn)):
    print(name)
    for form, told in found.items():
        print(f"  {form}: {', '.join(told)}")
expected = {"cron": "2027-03-28 03:30+02:00", "rule": "2027-03-28 01:30+01:00"}
if {form: told[0] for form, told in spring.items()} != expected or autumn["cron"] != autumn["rule"]:
    print("the behaviour has changed")
    sys.exit(1)
print("as described")
PYTHON
