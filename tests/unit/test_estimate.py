"""Estimates and dry runs: what would be asked and what that may cost, and that nothing is."""

import json
from pathlib import Path

import pytest

import runner
from runner.config.compose import compose
from runner.cost.budget import Budget
from runner.cost.tokens import estimate, most
from runner.errors import CacheError, DataError
from runner.experiment.estimate import forecast, verdict
from runner.experiment.prepared import prepare
from runner.experiment.run import resume
from runner.experiment.work import Estimate
from runner.types import Request
from tests.support.command import ostinato
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")

QUIET = ["execution.orchestrator=none"]
FAKE = ["model=fake", *QUIET]
TEXT = "how many characters are there in this?"


def rows(count=10, *, text=TEXT, missing=0):
    """A data file whose first rows lack the question, and the overrides that use it."""
    data = [{"id": f"r{n}", "question": f"{n:03d}{text}"} for n in range(count)]
    for row in data[1 : 1 + missing]:
        row["question"] = None
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    return ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "prompt=default", "scoring=none"]


def seen(*overrides):
    return forecast(prepare(compose(list(overrides)).config()))


def chat(*texts, **params):
    return Request(model="openai/x", messages=[{"role": "user", "content": text} for text in texts], params=params)


# -- counting


def test_prompts_are_estimated_by_length_and_answers_by_their_limit():
    guess = estimate(chat("x" * 400, max_tokens=50, n=3))
    assert (guess.prompt_tokens, guess.completion_tokens) == (108, 150)
    assert estimate(chat("x" * 400)).completion_tokens == 0
    assert estimate(chat("语" * 100)).prompt_tokens == pytest.approx(100, abs=10)  # nearly one token a character, not four
    assert estimate(Request(model="m", model_type="text", prompt="x" * 400)).prompt_tokens == 104
    tools = [{"type": "function", "function": {"name": "f" * 400}}]
    assert estimate(chat("x" * 400, tools=tools)).prompt_tokens > 200


def test_the_upper_bound_is_at_least_one_token_per_byte():
    bound = most(chat("x" * 400, "语" * 10, max_completion_tokens=50, n=2))
    assert bound.prompt_tokens >= 430
    assert bound.completion_tokens == 100
    assert bound.total_tokens == bound.prompt_tokens + 100


def test_answers_without_a_limit_are_unbounded():
    assert most(chat("hi")) is None
    assert most(chat("hi", n=2), longest=16).completion_tokens == 32


# -- verdicts


@pytest.mark.parametrize(
    ("bounds", "covers", "said"),
    [
        ({"usd": 2.0, "tokens": 600, "requests": 4}, True, "it covers"),
        ({"usd": 1.99}, False, "$1.99 of budget.usd left, up to $2.00 needed"),
        ({"tokens": 599}, False, "599 of budget.tokens left, up to 600 needed"),
        ({"requests": 3}, False, "continue with: ostinato resume RUN budget.requests="),
    ],
)
def test_the_verdict_compares_the_budget_with_the_upper_bound(bounds, covers, said):
    work = Estimate(samples=4, requests=4, prompt_tokens=100, completion_tokens_max=400, tokens_max=600, cost_usd_max=2.0)
    found = verdict(Budget(**bounds), work)
    assert found["covers"] is covers
    assert said in found["verdict"]
    assert {name: found[name] for name in bounds} == bounds


def test_the_verdict_counts_what_was_spent_before():
    budget = Budget(requests=5)
    budget.charge(requests=3)
    assert not verdict(budget, Estimate(samples=3, requests=3))["covers"]
    assert verdict(budget, Estimate(samples=2, requests=2))["covers"]


def test_unknown_numbers_are_reported_as_unknown():
    unknown = Estimate(samples=1, requests=1, tokens_max=10, cost_usd_max=None)
    found = verdict(Budget(usd=1.0), unknown)
    assert found["covers"] is False
    assert "price is unknown: set model.price" in found["verdict"]
    assert verdict(Budget(usd=1.0, unknown_price="allow"), unknown)["covers"] is None
    endless = Estimate(samples=1, requests=1, completion_tokens_max=None, tokens_max=None, cost_usd_max=None)
    assert "set sampling.max_tokens" in verdict(Budget(tokens=10), endless)["verdict"]
    assert verdict(Budget(requests=1), endless)["covers"]


# -- dry runs


def test_a_dry_run_counts_the_requests_of_a_run(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    found = seen("model=openai", *rows(10), "sampling.repeats=3", "sampling.max_tokens=100", "budget.usd=1")
    assert (found.rows, found.repeats, found.cache_hits, found.owed) == (10, 3, 0, 30)
    work = found.estimate
    assert (work.samples, work.requests, work.completion_tokens_max) == (30, 30, 3000)
    assert work.prompt_tokens == 30 * (len(TEXT + "000") // 4 + 8)
    least, price = 3000 * 4.5e-6, 0.75e-6
    assert least < work.cost_usd_max <= least + work.tokens_max * price
    assert found.budget == {
        "usd": 1.0,
        "tokens": None,
        "requests": None,
        "covers": True,
        "verdict": "it covers the maximum",
    }
    assert [file.name for file in Path.cwd().iterdir()] == ["rows.jsonl"]


def test_cached_samples_are_not_owed():
    runner.run(overrides=[*FAKE, *rows(10), "data.limit=4", "sampling.repeats=2"])
    found = seen(*FAKE, *rows(10), "sampling.repeats=3")
    assert (found.cache_hits, found.owed, found.estimate.requests) == (8, 22, 22)
    assert seen(*FAKE, *rows(10), "sampling.repeats=3", "cache.mode=off").cache_hits == 0
    assert seen(*FAKE, *rows(10), "sampling.temperature=1").cache_hits == 0


def test_re_asks_raise_the_upper_bound():
    json_adapter = ["adapter=json", "adapter.schema={type: object}", "adapter.retries=2", "sampling.max_tokens=100"]
    found, plain = seen(*FAKE, *rows(2), *json_adapter), seen(*FAKE, *rows(2), "sampling.max_tokens=100")
    assert (found.owed, found.estimate.requests, found.estimate.completion_tokens_max) == (2, 6, 600)
    assert found.estimate.tokens_max > 3 * plain.estimate.tokens_max


def test_a_dry_run_finds_the_errors_of_a_run():
    with pytest.raises(DataError, match="no column 'nothing'"):
        seen(*FAKE, *rows(2), "prompt.user={{ nothing }}")
    with pytest.raises(CacheError, match="no answer for 2 samples"):
        seen(*FAKE, *rows(2), "cache.mode=replay")


def test_a_dry_run_needs_no_key_and_says_which_one_a_run_needs(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = seen("model=openai", *rows(2))
    assert found.missing is not None
    assert "OPENAI_API_KEY" in found.missing
    assert "OPENAI_API_KEY" in dict(found.table())["before a run"]
    assert found.estimate.cost_usd_max is not None
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert seen("model=openai", *rows(2)).missing is None
    assert seen(*FAKE, *rows(2)).missing is None


def test_a_configured_price_counts():
    mine = ["model=server", "model.price={prompt: 10, completion: 20}", "sampling.max_tokens=1000", "model.name=mine"]
    work = seen(*mine, *rows(1), "budget.usd=1").estimate
    assert work.cost_usd_max == pytest.approx(0.02 + (work.tokens_max - 1000) * 10e-6)
    assert seen("model=server", *rows(1)).estimate.cost_usd_max is None


# -- the command


def test_the_command_prints_the_forecast_and_sends_nothing():
    with Server() as server:
        overrides = ["model=server", "model.name=test", f"model.api_base={server.url}", *rows(5), "sampling.max_tokens=10"]
        done = ostinato("run", "--dry-run", *overrides, "budget.requests=3")
        assert server.count == 0
    assert (done.code, done.err) == (0, "")
    facts = {line[:17].strip(): line[17:].strip() for line in done.out.splitlines()}
    assert facts["rows"] == "5"
    assert facts["requests"] == "up to 5"
    assert facts["completion tokens"] == "at most 50"
    assert facts["cost"] == "unknown"
    assert facts["budget"].startswith("3 of budget.requests left, up to 5 needed")
    assert [file.name for file in Path.cwd().iterdir()] == ["rows.jsonl"]


def test_the_command_prints_json():
    found = ostinato("run", "--dry-run", "--json", *FAKE, *rows(4), "sampling.max_tokens=10", "budget.tokens=9").json
    assert (found["rows"], found["cache_hits"], found["owed"], found["requests"]) == (4, 0, 4, 4)
    assert (found["completion_tokens_max"], found["cost_usd_max"]) == (40, None)
    assert found["prompt_tokens"] == 4 * (len(TEXT + "000") // 4 + 8)
    assert (found["budget"]["tokens"], found["budget"]["covers"]) == (9, False)


def test_a_fully_cached_run_would_send_nothing():
    assert ostinato("run", *FAKE, *rows(4), "--display", "none").code == 0
    runs = sorted(Path("runs").rglob("*"))
    done = ostinato("run", "--dry-run", *FAKE, *rows(4))
    assert "none: nothing would be sent" in done.out
    found = ostinato("run", "--dry-run", "--json", *FAKE, *rows(4)).json
    assert (found["cache_hits"], found["owed"], found["requests"], found["cost_usd_max"]) == (4, 0, 0, 0.0)
    assert sorted(Path("runs").rglob("*")) == runs


def test_config_errors_end_a_dry_run():
    done = ostinato("run", "--dry-run", *FAKE, *rows(2), "sampling.temprature=1")
    assert done.code == 2
    assert "did you mean 'temperature'?" in done.err


def test_a_run_with_a_budget_announces_its_estimate():
    bounded = ostinato("run", *FAKE, *rows(3), "sampling.max_tokens=10", "budget.requests=2", "cache.mode=off")
    line = bounded.err.splitlines()[0]
    asked = 3 * (len(TEXT + "000") // 4 + 8)
    assert line.startswith(
        f"up to 3 requests, about {asked} prompt tokens, at most 30 completion tokens, price unknown; budget: 2 "
    )
    assert bounded.code == 3
    enough = ostinato("run", *FAKE, *rows(3), "sampling.max_tokens=10", "budget.requests=9", "cache.mode=off")
    assert enough.err.splitlines()[0].endswith("price unknown")
    assert "up to" not in ostinato("run", *FAKE, *rows(3), "cache.mode=off").err


# -- for real


@pytest.mark.parametrize(("bound", "first", "then"), [("tokens", 4_000, 100_000), ("requests", 70, 1_000)])
def test_a_budget_is_never_exceeded_and_the_rest_can_be_asked_later(bound, first, then):
    def answer(call):
        words = int(call.question[:3]) % 7 + 1
        return Reply(usage={"prompt_tokens": 20, "completion_tokens": words, "total_tokens": 20 + words})

    def used(calls):
        return sum(21 + int(call.question[:3]) % 7 for call in calls) if bound == "tokens" else len(calls)

    with Server(answer) as server:
        overrides = ["model=server", "model.name=test", f"model.api_base={server.url}", *QUIET, *rows(300)]
        overrides += ["sampling.max_tokens=100", "limits.max_concurrency=64", "cache.mode=off", f"budget.{bound}={first}"]
        result = runner.run(overrides=overrides)
        spent, asked = used(server.calls), server.count
        assert spent <= first
        assert spent > first - 300  # and what fits was asked
        assert (result.exit_code, result.summary.ok, result.summary.owed) == (3, asked, 300 - asked)
        assert result.summary.problem.startswith(f"budget.{bound}={first} ")
        again = resume(result.folder, [f"budget.{bound}={then}"])
        assert (again.exit_code, again.summary.ok) == (0, 300)
        assert sorted(call.question for call in server.calls) == sorted({call.question for call in server.calls})
        assert server.count == 300
