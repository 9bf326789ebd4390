"""The pure parts of rate limiting: buckets, windows, ramps, the learned pace, headers, breakers. Time is passed in."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.limits.breaker import FIRST_COOL_S, LONGEST_COOL_S, PROBES, TRIP, Breaker
from runner.limits.bucket import Bucket
from runner.limits.headers import REQUESTS, TOKENS, Told, told
from runner.limits.mirror import Mirror
from runner.limits.pace import Pace
from runner.limits.trend import SAMPLE, WINDOWS, Trend
from runner.limits.window import Ramp, Window

WALL = 1_800_000_000.0


# --- bucket


@given(
    rpm=st.integers(1, 100_000),
    asks=st.lists(st.floats(0, 3), min_size=1, max_size=80),
)
def test_a_bucket_never_exceeds_its_rate_in_any_minute(rpm, asks):
    bucket, now, sent = Bucket.per_minute(rpm, 0.0), 0.0, []
    for gap in asks:
        now = max(now + gap, bucket.ready_at(1, now + gap))
        bucket.take(1, now)
        sent.append(now)
    for begin in sent:
        assert sum(1 for at in sent if begin <= at < begin + 59.999) <= rpm


@given(rpm=st.integers(60, 6000))
@settings(max_examples=20)
def test_a_busy_bucket_admits_almost_its_full_rate(rpm):
    bucket, now, count = Bucket.per_minute(rpm, 0.0), 0.0, 0
    while (now := bucket.ready_at(1, now)) < 59.99:
        bucket.take(1, now)
        count += 1
    assert 0.98 * rpm - 1 <= count <= rpm


def test_a_request_larger_than_the_bucket_waits_until_it_is_full_and_leaves_a_debt():
    bucket = Bucket(10.0, 5.0, 0.0)
    assert bucket.ready_at(100, 0.0) == 0.0
    bucket.take(100, 0.0)
    assert bucket.ready_at(1, 0.0) == pytest.approx(9.6)
    assert bucket.ready_at(100, 0.0) == pytest.approx(10.0)


def test_unused_units_return_to_the_bucket_and_excess_use_is_a_debt():
    bucket = Bucket(10.0, 5.0, 0.0)
    bucket.take(100, 0.0)
    bucket.give_back(90, 0.0)
    assert bucket.level(0.0) == -5.0
    bucket.give_back(50, 0.0)
    assert bucket.level(0.0) == 45.0  # above its capacity: the units had been taken
    assert bucket.level(100.0) == 45.0
    bucket.give_back(10_000, 100.0)
    assert bucket.level(100.0) == 600.0  # a minute's worth
    bucket.give_back(-700, 100.0)
    assert bucket.ready_at(1, 100.0) == pytest.approx(110.1)


# --- window


def test_a_window_follows_its_bound_until_it_shrinks():
    window = Window()
    window.fit(16)
    assert window.size == 16
    window.fit(64)
    assert window.size == 64
    window.overloaded(1.0, 0.5, 64)
    assert window.size == 48
    window.fit(128)
    assert window.size == 48
    window.fit(32)
    assert window.size == 32


def test_failures_of_one_round_trip_shrink_the_window_once():
    window = Window()
    window.fit(64)
    for _ in range(20):
        window.overloaded(1.0, 0.5, 64)
    assert window.size == 48
    window.overloaded(2.0, 1.5, 48)
    assert window.size == 36


def test_a_window_grows_by_one_per_window_of_successes_up_to_its_bound():
    window = Window()
    window.fit(4)
    window.overloaded(1.0, 0.5, 4)
    assert window.size == 3
    for _ in range(2):
        window.succeeded(2.0, 0.1, 1)
    assert window.size == 3
    window.succeeded(2.0, 0.1, 1)
    assert window.size == 4
    for _ in range(100):
        window.succeeded(2.0, 0.1, 1)
    assert window.size == 4


def test_an_unbounded_window_shrinks_to_a_share_of_the_requests_in_flight():
    window = Window()
    window.fit(math.inf)
    for _ in range(1000):
        window.succeeded(1.0, 0.1, 40)
    assert window.size == math.inf
    window.overloaded(1.0, 0.5, 40)
    assert window.size == 30


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 10)), max_size=300), st.integers(1, 50))
def test_a_window_always_stays_between_one_and_its_bound(events, bound):
    window, now = Window(), 0.0
    window.fit(bound)
    for good, seconds in events:
        now += seconds
        if good:
            window.succeeded(now, seconds, int(window.size))
        else:
            window.overloaded(now, now - seconds, int(window.size))
        assert 1 <= window.size <= bound
        assert window.size == int(window.size)


def test_a_ramp_doubles_with_time_and_grows_with_successes():
    ramp = Ramp(8, 0.025)
    assert ramp.ready_at(5.0) == 5.0
    ramp.begun_at, ramp.in_flight = 5.0, 8
    assert ramp.ready_at(5.0) == pytest.approx(5.0 + 0.025 * math.log2(9 / 8))
    ramp.in_flight = 15
    assert ramp.ready_at(5.0) == pytest.approx(5.025)
    assert ramp.ready_at(6.0) == 6.0
    for _ in range(8):
        ramp.succeeded(1.0)
    assert ramp.ready_at(5.0) == 5.0


def test_a_ramp_spreads_requests_over_the_time_of_the_quickest_answer():
    ramp = Ramp(8, 1.0, pacing=2.0)
    for _ in range(8):
        assert ramp.ready_at(5.0) == 5.0
        ramp.sent(5.0)
    ramp.in_flight = 0
    ramp.succeeded(0.9)
    ramp.succeeded(0.5)
    ramp.succeeded(0.7)
    ramp.sent(5.0)
    assert ramp.ready_at(5.0) == pytest.approx(5.0 + 0.5 / (2.0 * 11))
    ramp.sent(5.0)
    assert ramp.ready_at(5.0) == pytest.approx(5.0 + 2 * 0.5 / (2.0 * 11))
    assert ramp.ready_at(6.0) == 6.0


# --- trend


def simulate(trend, size, latency, answers, *, now=0.0, bound=None):
    """Answer `size` requests in flight, each in latency(in flight) seconds. Return the final size and time."""
    bound = bound or size
    for _ in range(answers):
        seconds = latency(size)
        now += seconds / size  # Little's law
        verdict = trend.note(now, seconds, int(size), size)
        if verdict is not None:
            size = max(1.0, min(verdict, bound))
    return size, now


def test_constant_latency_keeps_the_whole_window():
    trend = Trend()
    size, _ = simulate(trend, 256, lambda _: 0.2, 20_000)
    assert size == 256
    assert not trend.slow


@pytest.mark.parametrize("seed", range(10))
def test_latencies_that_vary_tenfold_keep_the_whole_window(seed):
    dice = random.Random(seed)
    size, _ = simulate(Trend(), 64, lambda _: math.exp(dice.uniform(math.log(1), math.log(10))), 20_000)
    assert size == 64


@pytest.mark.parametrize("seed", range(5))
def test_an_overloaded_server_with_a_queue_gets_a_smaller_window_at_full_throughput(seed):
    dice = random.Random(seed)
    trend = Trend()
    _, now = simulate(trend, 64, lambda _: 0.2 * dice.uniform(0.5, 1.5), 2000)
    # four times slower, whatever is in flight: 80 per second, down from 320
    size, now = simulate(trend, 64, lambda n: max(0.2, n / 80) * dice.uniform(0.5, 1.5), 10_000, now=now)
    assert size < 48
    assert size >= 16  # the 80 x 0.2 s that keep it busy
    assert trend.note(now, 0.2, 1, size) is None
    size, now = simulate(trend, size, lambda _: 0.2, 2000, now=now, bound=64)
    assert not trend.slow  # it may grow again


@pytest.mark.parametrize("seed", range(5))
def test_longer_answers_do_not_shrink_the_window(seed):
    dice = random.Random(seed)
    trend = Trend()
    _, now = simulate(trend, 64, lambda _: 1.0 * dice.uniform(0.5, 1.5), 2000)
    size, now = simulate(trend, 64, lambda _: 5.0 * dice.uniform(0.5, 1.5), 5000, now=now)
    assert size == 64
    assert not trend.slow


def test_samples_without_a_full_window_are_ignored():
    trend, now = Trend(), 0.0
    _, now = simulate(trend, 16, lambda _: 0.2, 1000)
    for _ in range(10 * WINDOWS * SAMPLE):
        now += 1.0
        assert trend.note(now, 5.0, 2, 16) is None
    assert not trend.slow


# --- pace


class Server:
    """A token bucket of a server, queried at chosen times."""

    def __init__(self, per_second, burst):
        self.bucket = Bucket(per_second, burst, 0.0)

    def takes(self, now):
        if self.bucket.level(now) < 1 - 1e-9:
            return False
        self.bucket.take(1, now)
        return True


def drive(server, pace, *, start, until, pause=0.1, limitless=200.0):
    """Send as fast as the pace allows. Return the admitted and the refused requests."""
    now, passed, refused = start, 0, 0
    while now < until:
        if pace.known:
            now = max(now, pace.ready_at(now))
            pace.take(now)
        else:
            now += 1 / limitless
        if server.takes(now):
            passed += 1
        else:
            refused += 1
            pace.refused(now, drive.admitted + passed, now + pause)
            now += pause
    drive.admitted += passed
    return passed, refused


@pytest.mark.parametrize("per_second", [1, 10, 100])
@pytest.mark.parametrize("burst_s", [0, 0.5, 1, 60])
@pytest.mark.parametrize("pause", [0.1, 1.0])
def test_a_learned_rate_uses_most_of_the_limit_and_is_rarely_refused(per_second, burst_s, pause):
    drive.admitted = 0
    server, pace = Server(per_second, max(1, per_second * burst_s)), Pace()
    drive(server, pace, start=0.0, until=120.0, pause=pause)
    passed, refused = drive(server, pace, start=120.0, until=720.0, pause=pause)
    assert passed >= 0.95 * 600 * per_second
    assert refused <= 0.03 * (passed + refused)  # one per second without a burst is the hardest case


def test_a_learned_rate_follows_a_limit_up_and_down():
    drive.admitted = 0
    server, pace = Server(10, 10), Pace()
    drive(server, pace, start=0.0, until=120.0)
    server.bucket.rate = 40
    drive(server, pace, start=120.0, until=400.0)
    passed, _ = drive(server, pace, start=400.0, until=500.0)
    assert passed >= 0.9 * 40 * 100
    server.bucket.rate = 5
    drive(server, pace, start=500.0, until=560.0)
    passed, refused = drive(server, pace, start=560.0, until=760.0)
    assert passed >= 0.9 * 5 * 200
    assert refused <= 0.05 * passed


def test_one_refusal_sets_no_rate_and_refusals_of_its_round_trip_correct_the_count():
    pace = Pace()
    pace.refused(1.0, 50, 1.5)
    assert not pace.known
    pace.refused(11.0, 150, 11.5)
    assert pace.known
    assert pace.rate() == pytest.approx(10 * 0.98)
    for _ in range(10):
        pace.corrected(10.9)
    assert pace.rate() == pytest.approx(9, rel=0.03)


def test_refusals_without_admissions_do_not_lower_the_rate():
    pace = Pace()  # a window of 600 per minute without headers; retried after 1, 2, 4, ... seconds
    for at in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        pace.refused(at, 600, at + 1)
    assert not pace.known
    pace.refused(62.0, 1200, 63.0)
    assert pace.rate() == pytest.approx(600 / 61, rel=0.03)


def test_a_learned_rate_does_not_grow_while_idle():
    pace = Pace()
    pace.refused(1.0, 0, 1.0)
    pace.refused(2.0, 100, 2.0)
    at = pace.ready_at(2.0)
    while pace.ready_at(at) > at:  # it is full after a moment
        at = pace.ready_at(at)
    pace.take(at)
    soon = pace.ready_at(at)
    before = pace.rate()
    pace.ready_at(soon + 600)
    assert pace.rate() == pytest.approx(before, rel=0.01)


def test_the_learned_burst_is_corrected_by_refusals_of_the_same_round_trip():
    def waved(refused):
        pace = Pace()
        pace.refused(1.0, 0, 2.0)
        pace.refused(11.0, 100, 12.0)  # about ten per second: five may follow the pause, and did
        pace.refused(12.01, 104, 13.0)
        for _ in range(refused):
            pace.corrected(12.0)
        sent, at = 0, 13.0
        while pace.ready_at(at) <= at:
            pace.take(at)
            sent += 1
        return sent

    assert waved(0) == 3
    assert waved(3) == 1


def test_a_rate_that_has_grown_far_beyond_its_measure_is_dropped():
    pace, now = Pace(), 2.0
    pace.refused(1.0, 0, 1.0)
    pace.refused(now, 100, now)
    while pace.known:
        now = pace.ready_at(now)
        if pace.known:
            pace.take(now)
        assert now < 1000


# --- headers


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m", 3720.0),
        ("2m59.56s", 179.56),
        ("1d0h", 86400.0),
        ("7", 7.0),
        ("7.66", 7.66),
        (str(int(WALL) + 30), 30.0),
        (str(int(WALL * 1000) + 30_000), 30.0),
        (str(int(WALL) - 30), 0.0),
        ("2027-01-15T08:00:30Z", 30.0),
        ("2027-01-15T08:00:30+00:00", 30.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("-3", None),
    ],
)
def test_resets_are_parsed_in_every_notation(reset, seconds):
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "10", "x-ratelimit-reset-requests": reset}
    said = told(headers, REQUESTS, WALL)
    assert said == Told(10.0, 600.0, pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x-ratelimit-{}-requests", REQUESTS),
        ("x-ratelimit-{}-tokens", TOKENS),
        ("anthropic-ratelimit-requests-{}", REQUESTS),
        ("anthropic-ratelimit-tokens-{}", TOKENS),
        ("ratelimit-{}", REQUESTS),
        ("x-ratelimit-{}", REQUESTS),
    ],
)
def test_every_family_of_rate_limit_headers_is_parsed(pattern, names):
    headers = {pattern.format("limit"): "100, 100;w=60", pattern.format("remaining"): "0", pattern.format("reset"): "5"}
    assert told(headers, names, WALL) == Told(0.0, 100.0, 5.0)
    assert told(headers, REQUESTS if names is TOKENS else TOKENS, WALL) is None


@pytest.mark.parametrize("remaining", ["", "many", "nan", "-1", "inf"])
def test_unparsable_rate_limit_headers_are_ignored(remaining):
    assert told({"ratelimit-remaining": remaining, "ratelimit-reset": "1"}, REQUESTS, WALL) is None


# --- mirror


def test_requests_wait_for_the_reset_of_a_used_up_window():
    mirror = Mirror()
    assert mirror.ready_at(1, 0.0) == 0.0
    mirror.hear(Told(2.0, 100.0, 30.0), 0.0, order=0, age=0.1, unseen=0)
    mirror.take(1)
    mirror.take(1)
    assert mirror.ready_at(1, 1.0) == 30.0
    assert mirror.ready_at(1, 30.0) == 30.0
    assert mirror.per_minute is None


def test_requests_sent_after_the_answered_one_are_subtracted():
    mirror = Mirror()
    mirror.hear(Told(10.0, 100.0, 30.0), 0.0, order=5, age=0.1, unseen=10)
    assert mirror.ready_at(1, 1.0) == 30.0


def test_headers_of_older_requests_are_ignored():
    mirror = Mirror()
    mirror.hear(Told(0.0, 100.0, 30.0), 0.0, order=9, age=0.1, unseen=0)
    mirror.hear(Told(80.0, 100.0, 30.0), 0.1, order=3, age=0.2, unseen=0)
    assert mirror.ready_at(1, 1.0) == 30.0


def test_headers_of_an_unknown_request_only_lower_the_level():
    mirror = Mirror()
    mirror.hear(Told(50.0, 100.0, 30.0), 0.0, order=None, age=0.0, unseen=0)
    mirror.hear(Told(1.0, 100.0, 30.0), 0.0, order=None, age=0.0, unseen=1)
    mirror.hear(Told(90.0, 100.0, 30.0), 0.0, order=None, age=0.0, unseen=0)
    assert mirror.ready_at(1, 1.0) == 30.0


@pytest.mark.parametrize("whole", [False, True])
def test_a_limit_that_refills_evenly_is_recognised_and_used_evenly(whole):
    server, mirror, now = Server(10, 600), Mirror(), 0.0
    sent = 0
    while now < 120.0:
        now = mirror.ready_at(1, now)
        assert server.takes(now)
        mirror.take(1)
        level = server.bucket.level(now)
        reset = (600 - level) / 10
        mirror.hear(Told(math.floor(level), 600.0, math.ceil(reset) if whole else reset), now, order=sent, age=0.0, unseen=0)
        sent += 1
        now += 0.001
    assert mirror.per_minute == pytest.approx(600)
    assert sent >= 0.98 * (600 + 1200)


def test_a_limit_per_day_is_not_taken_for_one_per_minute():
    mirror = Mirror()
    mirror.hear(Told(14370.0, 14400.0, 179.56), 0.0, order=0, age=0.0, unseen=0)
    assert mirror.per_minute == pytest.approx(10)
    assert mirror.ready_at(1, 0.0) == 0.0


def test_without_a_reset_an_empty_limit_is_waited_for_one_second():
    mirror = Mirror()
    mirror.hear(Told(0.0, None, None), 0.0, order=0, age=0.0, unseen=0)
    assert mirror.ready_at(1, 0.5) == 1.0
    assert mirror.ready_at(1, 1.0) == 1.0


def test_headers_sent_only_once_do_not_block_forever():
    mirror = Mirror()
    mirror.hear(Told(0.0, 2.0, 5.0), 0.0, order=0, age=0.0, unseen=0)
    now = 0.0
    for _ in range(20):
        now = mirror.ready_at(1, now)
        mirror.take(1)
    assert now <= 50.0


# --- the breaker


def test_a_breaker_opens_probes_less_and_less_often_and_gives_up():
    breaker, now, cools = Breaker(), 0.0, []
    for _ in range(TRIP):
        assert not breaker.open
        assert not breaker.failed(now, probe=False)
    assert breaker.open
    for probe in range(1, PROBES + 1):
        cools.append(breaker.ready_at() - now)
        now = breaker.ready_at()
        breaker.begin()
        assert breaker.ready_at() == math.inf
        assert not breaker.failed(now, probe=False)  # a request that was in flight before
        assert breaker.failed(now, probe=True) is (probe == PROBES)
    assert cools == [FIRST_COOL_S, 2.0, 4.0, 8.0, 16.0, LONGEST_COOL_S]


def test_one_success_closes_a_breaker_and_a_cancelled_probe_allows_another():
    breaker = Breaker()
    for _ in range(TRIP):
        breaker.failed(0.0, probe=False)
    breaker.begin()
    breaker.abandoned()
    assert breaker.ready_at() == FIRST_COOL_S
    breaker.works()
    assert not breaker.open
    assert breaker.ready_at() <= 0
