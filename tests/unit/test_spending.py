"""What a run has spent is never forgotten: over random failures, cuts, kills and resumes, no budget is exceeded."""

import asyncio
import json
import random
import shutil

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runner.config.compose import compose
from runner.config.schema.running import Budget
from runner.cost.pricing import Price
from runner.cost.tokens import most
from runner.errors import (
    BudgetExceeded,
    ContextWindowError,
    EndpointClosedError,
    LMError,
    LMTimeoutError,
    MalformedError,
    QuotaError,
    RateLimitError,
    RecordError,
    ServerError,
    TransportError,
)
from runner.experiment.experiment import Experiment
from runner.experiment.prepared import prepare
from runner.network.retry import RetryPolicy
from runner.records import RunFolder
from runner.records.spending import Spending, Unrecorded, unrecorded
from runner.types import Choice, Held, Response, Sample, Spent, Usage

PRICE = Price(prompt=0.002, completion=0.01)
FREE = (
    lambda: RateLimitError("slow down", status=429),
    lambda: ContextWindowError("too long", status=400),
    lambda: QuotaError("no credit left", status=402),
)
BILLED = (
    lambda: ServerError("failed", status=500),
    lambda: LMTimeoutError("late"),
    lambda: LMTimeoutError("late", status=504),
    lambda: TransportError("broken"),
    lambda: MalformedError("no answer"),
)


class Provider:
    """A transport that answers or fails by chance, and knows what it has billed."""

    def __init__(self, chance, happens):
        self.chance = chance
        self.happens = happens
        self.billed = {"requests": 0, "tokens": 0, "usd": 0.0}

    def prepare(self, request, connection):
        pass

    async def acomplete(self, request, connection, hear=None):
        self.billed["requests"] += 1
        self.happens()
        await asyncio.sleep(0)
        kind = self.chance.choices(["answer", "invalid", "silent", "billed", "free"], [6, 2, 1, 4, 2])[0]
        if kind == "free":
            refused = self.chance.choices(FREE, [6, 3, 1])[0]
            raise refused()
        bound = most(request)
        prompt, completion = self.chance.randint(1, bound.prompt_tokens), self.chance.randint(0, bound.completion_tokens)
        usage = Usage(prompt, completion, prompt + completion)
        self.billed["tokens"] += usage.total_tokens
        self.billed["usd"] += PRICE.cost(usage)
        self.happens()
        if kind == "billed":
            failed = self.chance.choice(BILLED)
            raise failed()
        text = "no json" if kind == "invalid" else '{"n": 1}'
        return Response(choices=[Choice(text, "stop")], usage=None if kind == "silent" else usage)

    async def aclose(self):
        pass


class Moment:
    """End a sitting at its n-th event: a kill (its folder is copied as it is then), Ctrl-C once, or twice."""

    def __init__(self, folder, how, at, torn):
        self.folder, self.how, self.at, self.torn = folder, how, at, torn
        self.copy = folder.with_name("killed")
        self.provider = self.experiment = self.task = None
        self.billed = None

    def happens(self, written=None):
        """Count an event; `written` is the file whose last line may be torn by a kill at this moment."""
        self.at -= 1
        if self.at == 0 and self.how == "once":
            self.experiment.interrupt()
        elif self.at == 0 and self.how == "twice":
            self.task.cancel()
        elif self.at == 0:
            shutil.copytree(self.folder, self.copy)
            self.billed = dict(self.provider.billed)
            if written and self.torn:
                file = self.copy / written
                file.write_bytes(file.read_bytes()[: -self.torn])

    def over(self, function, written):
        def watched(*arguments):
            self.happens()
            function(*arguments)
            self.happens(written)

        return watched


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run that has asked nothing yet."""
    place = tmp_path_factory.mktemp("spending")
    rows = "".join(json.dumps({"id": f"r{n}", "question": f"q{n}"}) + "\n" for n in range(5))
    (place / "rows.jsonl").write_text(rows)
    config = ["model=fake", "execution.orchestrator=none", "data=jsonl", f"data.path={place / 'rows.jsonl'}", "data.id=id"]
    config += ["adapter=json", "adapter.schema={type: object, required: [n]}", "prompt=default", "scoring=none", "cache.mode=off"]
    config += ["sampling.max_tokens=20", "limits.max_concurrency=3", f"runs_dir={place / 'runs'}", "sampling.repeats=2"]
    experiment = Experiment.create(prepare(compose(config).config()))
    experiment.finish()
    return experiment


@pytest.fixture(autouse=True)
def without_reports(monkeypatch):
    monkeypatch.setattr("runner.experiment.experiment.report_or_warn", lambda folder: None)


def reopened(folder, begun, bounds, *, again=()):
    config = msgspec.structs.replace(begun.config, budget=Budget(**bounds))
    experiment = Experiment.reopen(folder, like=config, again=again)
    experiment.lm.price_override = PRICE
    experiment.lm.retry = RetryPolicy(max_attempts=4, base_s=0.0)
    return experiment


def sit(folder, begun, bounds, chance, billed, *, kill=None, again=()):
    """Hold one sitting. Return what was billed by its end, and the summary (None after a kill)."""
    experiment = reopened(folder, begun, bounds, again=again)
    provider = Provider(chance, kill.happens if kill else lambda: None)
    provider.billed = dict(billed)
    experiment.lm.transport = provider
    if kill:
        kill.provider, kill.experiment = provider, experiment
        experiment.record.append = kill.over(experiment.record.append, "samples.jsonl")
        experiment.asker.keep = kill.over(experiment.spending.keep, "spending.jsonl")

    async def ask():
        experiment.plan()
        asking = asyncio.create_task(experiment.ask())
        if kill:
            kill.task = asking
        try:
            await asking
        except (BudgetExceeded, LMError) as error:
            experiment.record_failure(error)
        except asyncio.CancelledError:
            experiment.stop.request()

    asyncio.run(ask())
    counted = experiment.lm.budget.spent
    summary = experiment.finish()
    assert counted == pytest.approx(experiment.tally.counted)
    if kill and kill.billed is not None:
        shutil.rmtree(folder)
        kill.copy.rename(folder)
        return kill.billed, None
    return provider.billed, summary


@settings(max_examples=60, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    name=st.sampled_from(["requests", "tokens", "usd"]),
    shares=st.lists(st.floats(0.05, 1.0), min_size=3, max_size=3),
    ends=st.lists(
        st.none() | st.tuples(st.sampled_from(["kill", "once", "twice"]), st.integers(1, 40), st.integers(0, 4)),
        min_size=3,
        max_size=3,
    ),
)
def test_no_budget_is_exceeded_over_cuts_kills_and_resumes(begun, tmp_path_factory, seed, name, shares, ends):
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("run") / begun.folder.name
    shutil.copytree(begun.folder, folder)
    whole = {"requests": 25, "tokens": 12_000, "usd": 50.0}[name]
    billed = {"requests": 0, "tokens": 0, "usd": 0.0}
    bound, killed = 0, False
    for share, moment in zip(shares, ends, strict=True):
        bound = max(bound, whole * share if name == "usd" else int(whole * share) + 1)
        kill = Moment(folder, *moment) if moment else None
        again = ("server", "timeout", "transport", "malformed") if chance.random() < 0.3 else ()
        billed, summary = sit(folder, begun, {name: bound}, chance, billed, kill=kill, again=again)
        killed = killed or summary is None
        assert billed[name] <= bound + 1e-6
        after = reopened(folder, begun, {name: bound})
        counted = after.lm.budget.spent
        after.close()
        assert all(counted[one] >= billed[one] - 1e-6 for one in billed)
        if summary is not None and not killed:
            assert counted["requests"] == summary.requests == billed["requests"]
    shutil.rmtree(folder.parent)


def test_a_conversation_that_was_cut_between_attempts_is_not_forgotten(begun, tmp_path):
    """A server that always fails: five requests, and not one more however often the run is resumed."""
    folder = tmp_path / begun.folder.name
    shutil.copytree(begun.folder, folder)

    class Down(Provider):
        async def acomplete(self, request, connection, hear=None):
            self.billed["requests"] += 1
            raise ServerError("failed", status=500)

    down = Down(random.Random(1), lambda: None)
    for _ in range(4):
        experiment = reopened(folder, begun, {"requests": 5})
        experiment.lm.transport = down

        async def ask(experiment=experiment):
            experiment.plan()
            with pytest.raises(BudgetExceeded):
                await experiment.ask()

        asyncio.run(ask())
        summary = experiment.finish()
        assert (down.billed["requests"], summary.requests) == (5, 5)
        assert summary.cost_usd is None
        assert summary.held.attempts == 5
        assert summary.held.tokens > 0
        assert summary.held.usd > 0


def a_record(tmp_path):
    record = RunFolder(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    return record


def test_a_run_that_has_ended_keeps_one_line_or_none(tmp_path):
    record = a_record(tmp_path)
    spending = Spending(record)
    for name in ("a", "b"):
        spending.keep((name, 0), Spent(1, held=Held(1, 30, 0.5)))
    assert unrecorded(record) == spending.total == Unrecorded(Spent(2, held=Held(2, 60, 1.0)))
    samples = [Sample(id="a"), Sample(id="b")]
    record.append(samples[:1])
    spending.recorded(samples[:1])
    assert unrecorded(record) == spending.total == Unrecorded(Spent(1, held=Held(1, 30, 0.5)))
    spending.finish()
    assert len((tmp_path / "spending.jsonl").read_text().splitlines()) == 1
    again = Spending(record)
    again.keep(("b", 0), Spent(1))
    again.keep(("b", 0), Spent(2, Usage(1, 1, 2), 0.25))
    assert unrecorded(record) == again.total == Unrecorded(Spent(3, Usage(1, 1, 2), 0.25, Held(1, 30, 0.5)))
    record.append(samples[1:])
    again.recorded(samples[1:])
    again.finish()
    assert unrecorded(record).spent == Spent(1, held=Held(1, 30, 0.5))
    record.close()


def test_nothing_is_left_of_a_run_whose_samples_say_everything(tmp_path):
    record = a_record(tmp_path)
    spending = Spending(record)
    spending.keep(("a", 0), Spent(1))
    record.append([Sample(id="a")])
    spending.recorded([Sample(id="a")])
    spending.finish()
    assert not (tmp_path / "spending.jsonl").exists()
    record.close()


def test_a_retry_in_flight_is_not_taken_for_the_failure_that_it_replaces(tmp_path):
    record = a_record(tmp_path)
    record.append([Sample(id="a", status="error"), Sample(id="b")])
    spending = Spending(record)
    spending.keep(("a", 0), Spent(1))
    assert unrecorded(record).spent == Spent(1)
    record.append([Sample(id="a")])
    assert unrecorded(record).spent == Spent()
    spending.close()
    record.close()


def test_the_file_is_shortened_while_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.records.spending._LARGEST", 500)
    record = a_record(tmp_path)
    spending = Spending(record)
    for number in range(100):
        sample = Sample(id=str(number))
        spending.keep((sample.id, 0), Spent(1))
        if number % 10:
            record.append([sample])
            spending.recorded([sample])
    assert (tmp_path / "spending.jsonl").stat().st_size < 1500
    assert unrecorded(record).spent == Spent(10)
    spending.close()
    record.close()


def test_a_broken_file_is_named(tmp_path):
    record = a_record(tmp_path)
    (tmp_path / "spending.jsonl").write_text("nonsense\n")
    with pytest.raises(RecordError, match=r"spending\.jsonl is broken"):
        unrecorded(record)


def test_runs_of_earlier_versions_say_it_in_their_summary(tmp_path):
    record = a_record(tmp_path)
    (tmp_path / "summary.json").write_text(
        '{"run": "x", "name": "x", "model": "m", "status": "incomplete", "unrecorded": {"requests": 3, "cost_usd": null}}'
    )
    assert unrecorded(record).spent == Spent(3, cost_usd=None)


@pytest.mark.parametrize("fault", [EndpointClosedError, QuotaError])
def test_what_is_not_this_rows_fault_leaves_it_owed_and_counts(begun, tmp_path, fault):
    folder = tmp_path / begun.folder.name
    shutil.copytree(begun.folder, folder)
    experiment = reopened(folder, begun, {"requests": 50})
    script = [ServerError("failed", status=503), fault("no more")]

    class Once(Provider):
        async def acomplete(self, request, connection, hear=None):
            raise script.pop(0) if script else fault("no more")

    experiment.lm.transport = Once(random.Random(1), lambda: None)
    sample = Sample(id="r0")
    with pytest.raises(fault):
        asyncio.run(experiment.asker.ask((next(iter(experiment.dataset)), 0)))
    assert experiment.tally.unrecorded.requests == experiment.spending.total.spent.requests == 2
    assert sample.held is None
    experiment.close()
