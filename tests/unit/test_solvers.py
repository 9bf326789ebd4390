"""Solvers: each request is a step of its sample, under the run's cache, budget and limits; a failure stays with its row."""

import asyncio
import gc
import weakref

import msgspec
import pytest

from runner.adapters import ChatAdapter, JsonAdapter, Prompt
from runner.batch.asker import Asker
from runner.batch.engine import Stop, ask, plan
from runner.batch.tally import Tally
from runner.cache import Cache, request_key
from runner.cost.pricing import Price
from runner.errors import AuthenticationError, CacheError, ContextWindowError, DataError, SolverError
from runner.lm.lm import LM
from runner.network.retry import RetryPolicy
from runner.scoring import Exact
from runner.solvers import Bounds, Solved
from runner.stats.seeds import seed_of
from runner.transport import FakeTransport
from runner.types import Choice, Response, Row, Sample, Spent, Usage

ROW = Row("r0", {"q": "q0"}, "echo: two")


class Echo(FakeTransport):
    """Answers ``echo: TEXT``; a text that `fails` has an error for is answered with that."""

    def __init__(self, fails=None):
        super().__init__()
        self.fails = fails or {}
        self.asked = []

    async def acomplete(self, request, connection, hear=None):
        await asyncio.sleep(0)
        text = request.messages[-1]["content"]
        self.asked.append(text)
        if (error := self.fails.get(text)) is not None:
            raise error
        return said(request)


def said(request):
    answer = Choice(f"echo: {request.messages[-1]['content']}", "stop")
    return Response(choices=[answer], model="echo", usage=Usage(2, 1, 3))


class Program:
    """A solver that is a function of (row, lm, steps) and returns a text or a value."""

    is_code = True

    def __init__(self, function, **bounds):
        self.function = function
        self.bounds = Bounds(**bounds)
        self.runs = 0

    async def solve(self, row, steps):
        self.runs += 1
        answer = await self.function(row, steps.lm)
        if isinstance(answer, str):
            return Solved(choices=[Choice(answer)])
        return Solved(choices=[Choice(msgspec.json.encode(answer).decode())], parsed=answer)


async def twice(row, lm):
    """Asks, and goes on with the conversation."""
    messages = [{"role": "user", "content": "one"}]
    (first,) = await lm.acall(messages=messages)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "two"}]
    return (await lm.acall(messages=messages))[0]


def asker(function, *, cache=None, fails=None, seed=None, adapter=None, **bounds):
    lm = LM("fake/x", cache=cache or False)
    lm.transport = Echo(fails)
    lm.retry = RetryPolicy(max_attempts=2, base_s=0)
    lm.price_override = Price(1.0, 10.0)
    made = Asker(lm, adapter or ChatAdapter(Prompt(system=None, user="")), {"exact": Exact()}, seed=seed)
    made.solve_with(Program(function, **bounds))
    return made


def solved(function, row=ROW, repeat=0, **settings):
    made = asker(function, **settings)
    return asyncio.run(made.ask((row, repeat))), made


@pytest.fixture
def store(tmp_path):
    cache = Cache(tmp_path / "cache")
    yield cache
    cache.close()


def test_each_request_is_a_step_and_the_sample_is_their_sum(store):
    sample, _ = solved(twice, cache=store)
    first, second = sample.steps
    assert first.added == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "echo: one"}]
    assert second.after == 0  # and so the first two messages are not written again
    assert second.added == [{"role": "user", "content": "two"}, {"role": "assistant", "content": "echo: two"}]
    assert sample.usage == Usage(4, 2, 6) == first.usage + second.usage
    assert sample.cost_usd == 24.0 == first.cost_usd + second.cost_usd
    assert (sample.attempts, sample.cache, sample.held) == (2, "miss", None)
    assert (sample.status, sample.output, sample.scores) == ("ok", "echo: two", {"exact": 1.0})

    again, other = solved(twice, cache=store)
    assert (again.cache, again.attempts, again.cost_usd, again.saved_usd) == ("hit", 0, 0.0, 24.0)
    assert [step.cache for step in again.steps] == ["hit", "hit"]
    assert other.lm.transport.asked == []
    tally = Tally(1)
    tally.add(sample)
    assert (tally.requests, tally.retries) == (2, 0)
    assert msgspec.json.decode(msgspec.json.encode(sample), type=Sample) == sample


def test_nothing_of_a_finished_sample_waits_for_the_garbage_collector(store):
    """Otherwise a long run spends its time looking for it."""
    left = []

    async def program(row, lm):
        left.append(weakref.ref(lm))
        return (await lm.acall("one"))[0]

    made = asker(program, cache=store)
    made.keep = lambda *_: None
    gc.disable()
    try:
        sample = asyncio.run(made.ask((ROW, 0)))
        assert (sample.status, left[0]()) == ("ok", None)
    finally:
        gc.enable()


async def test_an_lm_that_outlives_its_sample_asks_nothing_more():
    kept = []

    async def program(row, lm):
        kept.append(lm)
        return (await lm.acall("one"))[0]

    made = asker(program)
    await made.ask((ROW, 0))
    with pytest.raises(asyncio.CancelledError):
        await kept[0].acall("two")
    assert made.lm.transport.asked == ["one"]


def test_a_plain_row_has_no_steps():
    assert b"steps" not in msgspec.json.encode(Sample(id="r"))
    assert Sample(id="r", steps=[]).steps == []


async def test_steps_that_branch_say_what_each_goes_on_from():
    async def branch(row, lm):
        start = [{"role": "user", "content": "one"}]
        (said,) = await lm.acall(messages=start)
        heard = [*start, {"role": "assistant", "content": said}]
        await asyncio.gather(*(lm.acall(messages=[*heard, {"role": "user", "content": text}]) for text in ("left", "right")))
        return (await lm.acall("fresh"))[0]

    sample = await asker(branch).ask((ROW, 0))
    assert [step.after for step in sample.steps] == [None, 0, 0, None]
    assert [step.added[0]["content"] for step in sample.steps] == ["one", "left", "right", "fresh"]


async def test_repeats_have_their_seeds_and_their_own_entries_in_the_cache(store):
    async def two_rollouts(row, lm):
        await lm.acall("one", rollout_id=1)
        return (await lm.copy(temperature=0.5).acall("one"))[0]

    made = asker(two_rollouts, cache=store, seed=7)
    sent = []
    made.lm.transport.acomplete = lambda request, *_: sent.append(request) or Echo.acomplete(made.lm.transport, request, None)
    for repeat in (0, 1):
        await made.ask((ROW, repeat))
    assert [request.params["seed"] for request in sent] == [7, 7, seed_of(7, 1), seed_of(7, 1)]
    assert [request.rollout for request in sent] == [1, None, (1 << 32) + 1, 1]
    assert len({request_key(request) for request in sent}) == 4


async def refused(row, lm):
    return (await lm.acall("long"))[0]


async def swallowed(row, lm):
    while True:
        try:
            return (await lm.acall("long"))[0]
        except Exception:  # noqa: BLE001 - what a careless program does
            pass


async def catches(row, lm):
    try:
        await lm.acall("long")
    except ContextWindowError:
        return (await lm.acall("two"))[0]


async def gathers(row, lm):
    return str(await asyncio.gather(*(lm.acall(f"{n}") for n in range(9)), return_exceptions=True))


def test_an_error_of_its_row_is_the_rows_and_a_program_may_go_on_without():
    fails = {"long": ContextWindowError("too long", status=400)}
    sample, _ = solved(refused, fails=fails)
    assert (sample.status, sample.error.code, sample.error.status) == ("error", "context_window", 400)
    assert sample.scores == {}
    assert sample.steps[0].error.code == "context_window"
    sample, _ = solved(catches, fails=fails)
    assert (sample.status, sample.output, sample.attempts) == ("ok", "echo: two", 2)
    assert [bool(step.error) for step in sample.steps] == [True, False]


@pytest.mark.parametrize("function", [refused, swallowed])
def test_an_error_that_would_meet_every_row_stops_the_run_whatever_the_program_catches(function):
    made = asker(function, fails={"long": AuthenticationError("who are you", status=401)})
    kept, spent, stop = [], [], Stop()
    made.on_cut = lambda one, model: spent.append(one)
    asyncio.run(ask(made, [(ROW, 0)], kept.extend, concurrency=1, stop=stop))
    assert kept == []  # the slot stays owed
    assert isinstance(stop.reason, AuthenticationError)
    assert [one.requests for one in spent] == [1]


@pytest.mark.parametrize("function", [swallowed, gathers])
def test_a_program_that_asks_without_end_is_an_error_of_its_row(function):
    sample, _ = solved(function, fails={"long": ContextWindowError("too long", status=400)}, requests=5)
    assert (sample.status, sample.error.code) == ("error", "solver")
    assert sample.error.message == "it asked more than 5 times for one row; solver.max_requests=10 allows more"
    assert sample.attempts <= 5


def test_a_program_that_hangs_is_ended_at_its_deadline_and_takes_what_it_began_with_it():
    left = []

    async def hangs(row, lm):
        async def later():
            try:
                await asyncio.sleep(60)
            finally:
                left.append("cancelled")
                await lm.acall("never")

        await asyncio.gather(lm.acall("one"), later())

    sample, made = solved(hangs, deadline_s=0.05)
    assert sample.error.message == "it took longer than limits.deadline_s=0.05 seconds"
    assert (left, made.lm.transport.asked) == (["cancelled"], ["one"])
    assert [step.usage for step in sample.steps] == [Usage(2, 1, 3)]


def test_what_is_in_flight_is_written_down_before_it_is_sent():
    made = asker(gathers)
    kept = []
    made.keep = lambda slot, spent, model: kept.append((slot, spent))
    asyncio.run(made.ask((ROW, 0)))
    assert kept[-1] == (("r0", 0), Spent(9, held=kept[-1][1].held))  # all nine at once
    assert kept[-1][1].held.attempts == 9


def test_known_answers_are_played_without_a_request_and_code_is_not_run_for_nothing(store):
    slots = [(Row(f"r{n}", {}, None), 0) for n in range(3)]

    async def by_row(row, lm):
        return (await lm.acall(row.id))[0]

    made = asker(by_row, cache=store)
    kept = []
    assert plan(made, slots, (), kept.extend) == bytearray([1, 1, 1])
    assert made.solving._solver.runs == 1  # the first has no answer: the others are left to `ask`
    asyncio.run(ask(made, slots, kept.extend, concurrency=2, stop=Stop()))
    made = asker(by_row, cache=store)
    again = []
    assert plan(made, slots, (), again.extend) == bytearray(3)
    assert [sample.output for sample in again] == ["echo: r0", "echo: r1", "echo: r2"]
    assert {sample.cache for sample in again} == {"hit"}

    async def from_a_loop():
        return asker(by_row, cache=store).from_cache(slots)

    assert [sample.output for sample in asyncio.run(from_a_loop())] == [sample.output for sample in again]
    store.mode = "replay"
    with pytest.raises(CacheError):
        solved(by_row, row=Row("r9", {}), cache=store)
    found = asker(by_row, cache=store).from_cache([(Row("r9", {}), 0), *slots])
    assert [sample and sample.output for sample in found] == [None, "echo: r0", "echo: r1", "echo: r2"]


def test_a_sample_is_played_from_any_answers():
    recorded, made = solved(twice)
    entries = {}

    class Known(msgspec.Struct):
        response: Response
        cost_usd: float | None = None

    def look(request):
        entries[request_key(request)] = request
        return Known(said(request))

    played = made.replay((ROW, 0), look)
    assert (played.output, len(entries)) == (recorded.output, 2)
    assert [step.added for step in played.steps] == [step.added for step in recorded.steps]
    assert made.replay((ROW, 0), lambda _: None) is None


def test_the_adapter_parses_a_text_and_no_value():
    adapter = JsonAdapter(Prompt(system=None, user=""), {"type": "object"})

    async def says(row, lm):
        return row.fields["says"]

    def of(text):
        sample, _ = solved(says, row=Row("r", {"says": text}, "x"), adapter=adapter)
        return sample.status, sample.parsed, sample.steps

    assert of('{"a": 1}') == ("ok", {"a": 1}, [])
    assert of({"b": 2}) == ("ok", {"b": 2}, [])
    assert of("nothing")[:2] == ("invalid", None)
    assert of("")[0] == "empty"


@pytest.mark.parametrize(("error", "code"), [(DataError("no column"), "data"), (SolverError("it broke"), "solver")])
def test_what_a_solver_raises_is_its_rows(error, code):
    async def fails(row, lm):
        await lm.acall("one")
        raise error

    sample, _ = solved(fails)
    assert (sample.status, sample.error.code, sample.error.message) == ("error", code, str(error))
    assert (sample.cost_usd, sample.attempts, len(sample.steps)) == (12.0, 1, 1)
