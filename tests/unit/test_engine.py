"""The engine: rows become samples, a failure stays with its row, and what would meet every row stops the run and is owed."""

import asyncio
import contextlib
from itertools import chain, compress

import msgspec
import pytest

from runner.adapters import ChatAdapter, JsonAdapter, Prompt
from runner.batch import tally as tally_module
from runner.batch.asker import Asker
from runner.batch.engine import LOOKUP_BATCH, Stop, ask, plan
from runner.batch.tally import Tally, grouped
from runner.cache import Cache
from runner.cost.budget import Budget
from runner.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetExceeded,
    CacheError,
    ContextWindowError,
    DataError,
    EndpointClosedError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RecordError,
    ServerError,
)
from runner.limits import Endpoint, Limiter
from runner.limits.complaints import SEVERAL
from runner.lm.lm import LM
from runner.network.retry import RetryPolicy
from runner.records.folder import Counted
from runner.scoring import Exact, summarise
from runner.scoring.targets import Comparison
from runner.stats.seeds import seed_of
from runner.transport import FakeTransport
from runner.types import Choice, Response, Row, RowError, Sample, Usage


class Scripted(FakeTransport):
    """Asks `answer(question, how many times it has been asked)` for a text, a Choice, a Response or an error to raise."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.asked = []
        self.at_once = self.most_at_once = 0

    async def acomplete(self, request, connection, hear=None):
        question = request.messages[-1]["content"]
        self.asked.append(question)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            found = self.answer(question, self.asked.count(question))
            if asyncio.iscoroutine(found):
                found = await found
        finally:
            self.at_once -= 1
        if isinstance(found, BaseException):
            raise found
        if isinstance(found, str):
            found = Choice(found, "stop")
        if isinstance(found, Choice):
            found = Response(choices=[found], model="scripted", usage=Usage(2, 1, 3))
        return found


def rows(count, **targets):
    return [Row(f"r{number}", {"q": f"q{number}"}, "yes") for number in range(count)]


def asker(answer, *, adapter=None, cache=None, scorers=None, seed=None, attempts=1, limiter=None, budget=None):
    lm = LM("fake/x", cache=cache or False)
    lm.transport = Scripted(answer)
    lm.retry = RetryPolicy(max_attempts=attempts, base_s=0)
    lm.limiter, lm.budget = limiter, budget
    prompt = Prompt(system=None, user="{{ q }}")
    return Asker(lm, adapter or ChatAdapter(prompt), {"exact": Exact()} if scorers is None else scorers, seed=seed)


async def asked(one, slots, *, concurrency=4, stop=None):
    """Samples by id and repeat, and the Stop."""
    stop = stop or Stop()
    samples = []
    with one.lm.limiter.using() if one.lm.limiter else contextlib.nullcontext():
        await ask(one, slots, samples.extend, concurrency=concurrency, stop=stop)
    return {(sample.id, sample.repeat): sample for sample in samples}, stop


def once(these):
    return [(row, 0) for row in these]


# -- one row


async def test_a_row_becomes_a_sample():
    one = asker(lambda *_: "yes")
    found, stop = await asked(one, once(rows(1)))
    sample = found["r0", 0]
    assert (sample.status, sample.output, sample.scores, sample.target, sample.error) == (
        "ok",
        "yes",
        {"exact": 1.0},
        "yes",
        None,
    )
    assert sample.messages == [{"role": "user", "content": "q0"}]
    assert (sample.model_requested, sample.model_served, sample.finish_reason) == ("fake/x", "scripted", "stop")
    assert (sample.usage, sample.attempts, sample.cache, sample.cost_usd) == (Usage(2, 1, 3), 1, "off", None)
    assert sample.latency_s is not None
    assert sample.started_at
    assert len(sample.request_key) == 64
    assert not stop.requested


@pytest.mark.parametrize(
    ("finish", "status", "scores"),
    [
        ("stop", "ok", {"exact": 1.0}),
        ("length", "truncated", {"exact": 1.0}),
        ("content_filter", "refused", {}),
        ("refusal", "refused", {}),
    ],
)
async def test_each_finish_reason_maps_to_a_status(finish, status, scores):
    found, _ = await asked(asker(lambda *_: Choice("yes", finish)), once(rows(1)))
    assert (found["r0", 0].status, found["r0", 0].scores) == (status, scores)


async def test_tool_calls_are_the_output_without_text():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found, _ = await asked(asker(lambda *_: Choice(None, "tool_calls", tool_calls=[call])), once(rows(1)))
    assert msgspec.json.decode(found["r0", 0].output) == [call]


async def test_a_failed_row_is_recorded_and_cancels_nothing():
    def answer(question, _):
        return ContextWindowError("too long", status=400, request_id="r-1") if question == "q2" else "yes"

    found, stop = await asked(asker(answer), once(rows(20)))
    assert found["r2", 0].error == RowError("context_window", "too long", 400, "r-1")
    assert (found["r2", 0].status, found["r2", 0].scores, found["r2", 0].output) == ("error", {}, None)
    assert sum(sample.status == "ok" for sample in found.values()) == 19
    assert not stop.requested


async def test_attempts_are_counted():
    found, _ = await asked(asker(lambda _, n: "yes" if n == 3 else retryable(), attempts=5), once(rows(1)))
    assert (found["r0", 0].status, found["r0", 0].attempts) == ("ok", 3)
    found, _ = await asked(asker(lambda *_: retryable(), attempts=4), once(rows(1)))
    assert (found["r0", 0].status, found["r0", 0].attempts, found["r0", 0].error.code) == ("error", 4, "server")


def retryable():
    return ServerError("later", status=503)


async def test_a_missing_column_fails_only_its_row():
    found, _ = await asked(asker(lambda *_: "yes"), once([Row("a", {"p": 1}), Row("b", {"q": 1}, "yes")]))
    assert (found["a", 0].status, found["a", 0].error.code, found["b", 0].status) == ("error", "data", "ok")
    assert "q" in found["a", 0].error.message


async def test_a_scorer_that_fails_keeps_the_answer():
    class Fussy(Comparison):
        name = "fussy"

        def score(self, output, target, fields, parsed):
            raise DataError("cannot judge this")

    found, _ = await asked(asker(lambda *_: "yes", scorers={"exact": Exact(), "fussy": Fussy()}), once(rows(1)))
    sample = found["r0", 0]
    assert (sample.status, sample.output, sample.scores) == ("error", "yes", {})
    assert sample.error == RowError("scoring", "cannot judge this")


# -- asking again


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


async def test_json_is_asked_for_again():
    adapter = JsonAdapter(Prompt(system=None, user="{{ q }}"), SCHEMA, retries=2)
    one = asker(lambda question, _: '{"a": 1}' if "Answer again" in question else "nonsense", adapter=adapter, scorers={})
    sample = (await asked(one, once(rows(1))))[0]["r0", 0]
    assert (sample.status, sample.parsed, sample.output, sample.attempts) == ("ok", {"a": 1}, '{"a": 1}', 2)
    assert sample.usage == Usage(4, 2, 6)
    assert [message["role"] for message in sample.messages] == ["user", "assistant", "user"]


async def test_json_that_never_matches_the_schema_is_invalid_and_kept():
    adapter = JsonAdapter(Prompt(system=None, user="{{ q }}"), SCHEMA, retries=1)
    sample = (await asked(asker(lambda *_: '{"a": "x"}', adapter=adapter, scorers={}), once(rows(1))))[0]["r0", 0]
    assert (sample.status, sample.parsed, sample.output, sample.error.code) == ("invalid", None, '{"a": "x"}', "invalid")


async def test_truncated_json_is_not_asked_for_again():
    adapter = JsonAdapter(Prompt(system=None, user="{{ q }}"), SCHEMA, retries=3)
    one = asker(lambda *_: Choice('{"a":', "length"), adapter=adapter, scorers={})
    sample = (await asked(one, once(rows(1))))[0]["r0", 0]
    assert (sample.status, len(one.lm.transport.asked)) == ("truncated", 1)


# -- repeats and the cache


async def test_each_repeat_has_its_own_seed_and_cache_entry(tmp_path):
    cache = Cache(tmp_path / "cache")
    one = asker(lambda question, n: f"{question} {n}", cache=cache, seed=7, scorers={})
    slots = [(row, repeat) for row in rows(2) for repeat in range(3)]
    found, _ = await asked(one, slots)
    assert len({sample.request_key for sample in found.values()}) == 6
    assert [one.request(one.adapter.format(rows(1)[0]), repeat).params["seed"] for repeat in range(3)] == [
        seed_of(7, repeat) for repeat in range(3)
    ]
    again = asker(None, cache=cache, seed=7, scorers={}).from_cache(slots)
    assert [sample.output for sample in again] == [found[row.id, repeat].output for row, repeat in slots]
    assert {sample.cache for sample in again} == {"hit"}
    unseeded = asker(None, cache=cache, scorers={})
    assert "seed" not in unseeded.request(unseeded.adapter.format(rows(1)[0]), 1).params
    cache.close()


@pytest.mark.parametrize("memory", [10, 0], ids=["in memory", "on disk only"])
async def test_equal_requests_of_rows_in_turn_are_paid_once(tmp_path, memory):
    class Waits(Comparison):
        name, asks = "waits", True

        async def judge(self, asked, models):
            return 1.0

    cache = Cache(tmp_path / "cache", memory_entries=memory)
    one = asker(lambda *_: "yes", cache=cache, scorers={"waits": Waits()})
    found, _ = await asked(one, once(Row(f"r{number}", {"q": "the same"}, "yes") for number in range(8)), concurrency=1)
    assert [sample.output for sample in found.values()] == ["yes"] * 8
    assert one.lm.transport.asked == ["the same"]
    cache.close()


async def test_cached_answers_need_no_model(tmp_path):
    cache = Cache(tmp_path / "cache")
    many = rows(LOOKUP_BATCH + 10)
    await asked(asker(lambda *_: "yes", cache=cache), once(many[: LOOKUP_BATCH + 5]), concurrency=16)
    seen = []
    owed = plan(asker(None, cache=cache), once([*many, Row("bad", {})]), (), seen.extend)
    assert [row.id for row in compress([*many, None], owed)] == [row.id for row in many[LOOKUP_BATCH + 5 :]]
    assert len(seen) == LOOKUP_BATCH + 6
    assert (seen[-1].id, seen[-1].status) == ("bad", "error")
    assert all(
        (sample.cache, sample.cost_usd, sample.attempts, sample.scores) == ("hit", 0.0, 0, {"exact": 1.0}) for sample in seen[:-1]
    )
    assert plan(asker(None), once(many), (), seen.extend) == b"\1" * len(many)
    done = {(row.id, 0) for row in many[::2]}
    assert plan(asker(None), once(many), done, seen.extend) == b"\0\1" * (len(many) // 2)
    cache.close()


async def test_a_conversation_of_two_turns_is_answered_from_the_cache(tmp_path):
    cache = Cache(tmp_path / "cache")
    adapter = JsonAdapter(Prompt(system=None, user="{{ q }}"), SCHEMA)

    def answer(question, _):
        return '{"a": 1}' if "Answer again" in question else "nonsense"

    await asked(asker(answer, adapter=adapter, cache=cache, scorers={}), once(rows(2)))
    again = asker(None, adapter=adapter, cache=cache, scorers={}).from_cache(once(rows(3)))
    assert [sample and (sample.status, sample.parsed, sample.cache) for sample in again] == [("ok", {"a": 1}, "hit")] * 2 + [None]
    cache.close()


async def test_samples_are_recorded_together_after_their_answers_are_stored(tmp_path):
    cache, recorded = Cache(tmp_path / "cache"), []

    def keep(samples):
        other = Cache(cache.folder, mode="read")
        assert all(other.get(sample.request_key) for sample in samples)
        other.close()
        recorded.append([sample.id for sample in samples])

    await ask(asker(lambda *_: "yes", cache=cache), once(rows(20)), keep, concurrency=8, stop=Stop())
    cache.close()
    assert sorted(chain(*recorded)) == sorted(row.id for row in rows(20))
    assert len(recorded) < 10


async def test_a_cache_that_cannot_store_ends_the_run(tmp_path):
    cache, recorded = Cache(tmp_path / "cache"), []
    cache.put_many = failing
    with pytest.raises(ExceptionGroup) as caught:
        await ask(asker(lambda *_: "yes", cache=cache), once(rows(20)), recorded.extend, concurrency=4, stop=Stop())
    assert {type(error) for error in caught.value.exceptions} == {CacheError}
    assert recorded == []


def failing(_items):
    raise CacheError("the folder cannot be used")


# -- how many at once, and stopping


async def test_concurrency_is_not_exceeded():
    one = asker(lambda *_: "yes")
    found, _ = await asked(one, once(rows(40)), concurrency=3)
    assert len(found) == 40
    assert one.lm.transport.most_at_once == 3


async def test_slots_are_drawn_only_when_needed():
    drawn = []

    def slots():
        for row in rows(100):
            drawn.append(row.id)
            yield row, 0

    stop = Stop()
    samples = []

    def keep(new):
        samples.extend(new)
        stop.request()

    await ask(asker(lambda *_: "yes"), slots(), keep, concurrency=2, stop=stop)
    assert len(drawn) <= 4
    assert stop.reason is None


async def test_a_stop_finishes_requests_in_flight():
    in_flight, go = asyncio.Barrier(4), asyncio.Event()

    async def slow():
        await in_flight.wait()
        await go.wait()
        return "yes"

    stop = Stop()
    playing = asyncio.create_task(asked(asker(lambda *_: slow()), once(rows(10)), concurrency=3, stop=stop))
    await in_flight.wait()
    stop.request()
    go.set()
    found, _ = await playing
    assert sorted(found) == [("r0", 0), ("r1", 0), ("r2", 0)]


@pytest.mark.parametrize("kind", [AuthenticationError, PermissionDeniedError, NotFoundError, QuotaError])
async def test_an_error_that_would_fail_every_row_stops_the_run(kind):
    def answer(question, _):
        return "yes" if question in ("q0", "q1") else kind("no", status=400)

    one = asker(answer, limiter=Limiter(Endpoint("test"), max_concurrency=4))
    found, stop = await asked(one, once(rows(50)))
    assert sum(sample.status == "ok" for sample in found.values()) == 2
    assert len(found) <= 2 + (SEVERAL - 1 if kind is PermissionDeniedError else 0)
    assert isinstance(stop.reason, kind)
    assert len(one.lm.transport.asked) < 10


async def test_a_bad_request_is_the_rows_fault_after_another_was_answered():
    def answer(question, _):
        return BadRequestError("odd", status=400) if question == "q9" else "yes"

    found, stop = await asked(asker(answer, limiter=Limiter(Endpoint("test"), max_concurrency=2)), once(rows(20)), concurrency=2)
    assert (len(found), found["r9", 0].error.code, stop.requested) == (20, "bad_request", False)
    one = asker(lambda *_: BadRequestError("odd", status=400), limiter=Limiter(Endpoint("test"), max_concurrency=2))
    found, stop = await asked(one, once(rows(20)), concurrency=2)
    assert len(found) <= SEVERAL + 1
    assert isinstance(stop.reason, EndpointClosedError)
    assert len(one.lm.transport.asked) <= SEVERAL + 1


async def test_a_spent_budget_stops_and_leaves_the_rest_owed():
    one = asker(lambda *_: "yes", budget=Budget(requests=5))
    found, stop = await asked(one, once(rows(20)), concurrency=2)
    assert len(found) == 5
    assert isinstance(stop.reason, BudgetExceeded)


async def test_a_record_that_cannot_be_written_ends_the_run():
    def keep(_samples):
        raise RecordError("the disk is full")

    with pytest.raises(ExceptionGroup) as caught:
        await ask(asker(lambda *_: "yes"), once(rows(20)), keep, concurrency=4, stop=Stop())
    assert {type(error) for error in caught.value.exceptions} == {RecordError}


# -- the totals


def test_the_tally_adds_up():
    tally = Tally(6)
    tally.add(
        Sample(
            id="a", status="ok", scores={"e": 1.0}, usage=Usage(1, 2, 3), attempts=1, cache="miss", cost_usd=0.5, model_served="m"
        )
    )
    tally.add(Sample(id="b", status="error", error=RowError("server", "x"), attempts=3))
    tally.add(Sample(id="c", status="ok", scores={"e": 0.0}, usage=Usage(4, 5, 9), cache="hit", cost_usd=0.0, saved_usd=0.25))
    tally.add(
        Sample(id="d", status="invalid", error=RowError("invalid", "no JSON"), attempts=1, cost_usd=0.5, usage=Usage(1, 1, 2))
    )
    assert (tally.done, tally.owed, dict(tally.status)) == (4, 2, {"ok": 2, "error": 1, "invalid": 1})
    assert dict(tally.errors) == {"server": 1}
    assert (tally.cache_hits, tally.requests, tally.retries) == (1, 5, 2)
    assert (tally.usage, tally.usage_cached) == (Usage(2, 3, 5), Usage(4, 5, 9))
    assert (tally.cost_usd, tally.saved_usd, tally.models) == (1.0, 0.25, {"m"})
    assert tally.scores() == {"e": summarise([1.0, 0.0])}
    tally.add(Sample(id="e", status="ok", attempts=1, cost_usd=None))
    assert tally.cost_usd is None


def test_samples_that_are_alike_are_counted_at_once(monkeypatch):
    """A record of a million lines is counted in a third of the time; every number is the one of counting each by itself."""
    monkeypatch.setattr(tally_module, "GROUPS", 20)
    usages, scores = [None, Usage(3, 2, 5), Usage(4, 2, 6, cached_tokens=1)], [{}, {"hit": 1.0}, {"hit": 0.0, "f1": 0.25}]
    samples = [
        Sample(
            id=str(n),
            status=("ok", "truncated", "error")[n % 3],
            error=RowError("timeout", "late") if n % 3 == 2 else None,
            cache=("miss", "hit")[n % 5 == 0],
            usage=usages[n % 3],
            scores=scores[n % 4 % 3],
            cost_usd=0.5 if n % 2 else None,
            saved_usd=0.25,
            attempts=1 + n % 2,
            finish_reason=("stop", "length", "unheard-of")[n % 3],
            model_served=f"m{n % 2}",
            cluster="c" if n % 7 == 0 else None,
        )
        for n in range(1200)
    ]
    lines = msgspec.json.decode(msgspec.json.encode(samples), type=list[Counted])
    by_one, by_group = Tally(1200), Tally(1200)
    for sample in samples:
        by_one.add(sample)
    groups = list(grouped(lines, by_group.alike))
    assert (len(groups) < 1100, sum(times for _, times in groups)) == (True, 1200)
    for sample, times in groups:
        by_group.add(sample, times)
    facts = ("status", "unscored", "errors", "unknown_endings", "cache_hits", "requests", "retries", "usage", "usage_cached")
    for fact in (*facts, "known_usd", "cost_usd", "saved_usd", "models", "unpriced", "counted"):
        assert getattr(by_group, fact) == getattr(by_one, fact), fact
    for name, score in by_one.scores().items():
        other = by_group.scores()[name]
        assert (other.mean, other.stderr, other.n) == (pytest.approx(score.mean), pytest.approx(score.stderr), score.n)
