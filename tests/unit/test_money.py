"""What a run says that it has cost, through a real server: failures are not free, and nobody's figure is taken for another's."""

import json
import signal
from pathlib import Path

import pytest

import runner
from runner.analysis.cite import cite
from runner.network.retry import without_sleeping
from runner.records import RunFolder
from tests.support.command import Running
from tests.support.server import Hang, Raw, Reply, Reset, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

PRICED = ["model.price={prompt: 100000, completion: 1000000}", "sampling.max_tokens=10"]  # $0.10 and $1 per token
ANSWER = 7 * 0.1 + 3 * 1.0


def config(server, rows=1, *more):
    data = [{"id": f"r{n}", "question": f"q{n}", "answer": "ok"} for n in range(rows)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    model = ["model=server", "model.name=m", f"model.api_base={server.url}", "execution.orchestrator=none", "cache.mode=off"]
    task = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]
    return [*model, *task, "limits.max_concurrency=1", *more]


def play(server, rows=1, *more):
    with without_sleeping():
        return runner.run(overrides=config(server, rows, *more))


def cost(summary):
    return next(line["value"] for line in summary.table() if line["measure"] == "cost")


UNKNOWN = {
    "lost": Reset(politely=True),
    "reset": Reset(),
    "cut off": Reset(after=5),
    "server error": Status(500, "internal"),
    "overloaded": Status(503, "busy"),
    "gateway timeout": Status(504, "late"),
    "request timeout": Status(408, "late"),
    "unreadable": Raw(b"<html>"),
}


@pytest.mark.parametrize("transport", ["direct", "litellm"])
def test_attempts_that_failed_after_they_were_sent_have_an_unknown_cost(transport):
    with Server() as server:
        for name, fault in UNKNOWN.items():
            server.script(fault)
            result = play(server, 1, *PRICED, f"model.transport={transport}")
            (sample,), summary = result.samples, result.summary
            assert (sample.status, sample.attempts, summary.requests) == ("ok", 2, 2), name
            assert sample.cost_usd == pytest.approx(ANSWER)
            assert sample.held.attempts == summary.held.attempts == 1, name
            assert summary.cost_usd is None, name
            assert summary.cost_known_usd == pytest.approx(ANSWER)
            assert sample.held.usd > 10, name  # ten tokens of an answer, and the prompt
            assert cost(summary) == f"at least $3.70 and at most ${ANSWER + sample.held.usd:.2f} (unknown for 1 of 2 requests)"


@pytest.mark.parametrize("transport", ["direct", "litellm"])
def test_attempts_that_were_refused_are_free(transport):
    with Server() as server:
        server.script(Status(429, "slow down", retry_after=0))
        result = play(server, 1, *PRICED, f"model.transport={transport}")
        assert result.samples[0].held is None
        assert (result.summary.requests, result.summary.cost_usd) == (2, pytest.approx(ANSWER))
        server.script(Status(400, "maximum context length is 10 tokens"), Status(400, "no", error_code="content_filter"))
        result = play(server, 3, *PRICED, f"model.transport={transport}")
        assert [sample.held for sample in result.samples] == [None] * 3
        assert (result.summary.requests, result.summary.cost_usd) == (3, pytest.approx(ANSWER))


def test_an_attempt_that_timed_out_has_an_unknown_cost():
    with Server() as server:
        server.script(Hang())
        result = play(server, 1, *PRICED, "limits.timeout_s=0.3")
        assert result.samples[0].held.attempts == 1
        assert result.summary.cost_usd is None


def test_nothing_is_held_where_nobody_answers():
    with Server() as server:
        overrides = config(server, 1, *PRICED, "limits.max_attempts=2")
    with without_sleeping():
        summary = runner.run(overrides=overrides).summary
    assert (summary.held.attempts, summary.cost_usd) == (0, 0.0)


def test_a_model_with_a_price_is_not_said_to_have_none():
    with Server(Reply(usage=None)) as server:
        summary = play(server, 2, *PRICED).summary
        assert summary.priced
        assert "no price" not in cost(summary)
        assert cost(summary).startswith("at most $")
        assert "no price" not in cite("m", RunFolder.open(Path(summary.run)).manifest(), summary)
        summary = play(server, 2).summary
        assert cost(summary) == "unknown (no price for this model)"


def test_zeros_are_unknown_usage_and_not_free():
    with Server(Reply(usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})) as server:
        result = play(server, 1, *PRICED)
        assert result.samples[0].usage is None
        assert result.summary.cost_usd is None
        assert result.samples[0].held.attempts == 1


NAMED = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "cost": 0.25}


@pytest.mark.parametrize("transport", ["direct", "litellm"])
def test_a_cost_that_the_answer_names_is_recorded_with_its_source(transport):
    with Server(Reply(usage=NAMED)) as server:
        result = play(server, 2, f"model.transport={transport}")
        assert [(sample.cost_usd, sample.cost_from) for sample in result.samples] == [(0.25, "openrouter")] * 2
        assert (result.summary.cost_usd, cost(result.summary)) == (0.5, "$0.5")
        mine = play(server, 1, *PRICED, f"model.transport={transport}")  # one's own price goes before it
        assert [(sample.cost_usd, sample.cost_from) for sample in mine.samples] == [(pytest.approx(ANSWER), None)]
        line = json.loads((mine.folder / "samples.jsonl").read_text())
        assert "cost_from" not in line
        assert "held" not in line


def test_a_budget_counts_the_cost_that_answers_name():
    with Server(Reply(usage=NAMED)) as server:
        bound = ["budget.usd=0.6", "budget.unknown_price=allow", "sampling.max_tokens=10"]
        summary = play(server, 9, *bound).summary
        assert (summary.cost_usd, summary.requests) == (0.75, 3)  # the price is not known beforehand
        with without_sleeping():
            assert runner.resume(summary.run).summary.requests == 3


def test_a_budget_keeps_what_failed_attempts_may_have_used():
    with Server(Status(500, "internal")) as server:
        bound = ["budget.tokens=400", "limits.max_attempts=2"]
        first = play(server, 30, *PRICED, *bound).summary
        sent = server.count
        assert 1 <= sent < 10
        for _ in range(3):
            with without_sleeping():
                again = runner.resume(first.run).summary
            assert (server.count, again.requests, again.held.attempts) == (sent, sent, sent)
        assert 300 < again.held.tokens <= 400


def test_five_requests_stay_five_over_any_number_of_resumes():
    with Server(Status(500, "internal")) as server:
        result = play(server, 3, "budget.requests=5", *PRICED)
        for _ in range(3):
            assert (server.count, result.summary.requests, result.summary.held.attempts) == (5, 5, 5)
            with without_sleeping():
                result = runner.resume(result.folder)
        assert server.count == 5
        with without_sleeping():
            result = runner.resume(result.folder, ["budget.requests=7"])
        assert (server.count, result.summary.requests) == (7, 7)


def test_requests_in_flight_at_a_kill_count_as_sent():
    with Server(Hang()) as server:
        overrides = config(server, 10, "budget.requests=5", "limits.max_concurrency=3", *PRICED)
        with Running("run", *overrides) as running:
            server.wait_for(3)
            running.signal(signal.SIGKILL)
            running.process.wait()
        server.reset()
        server.otherwise = Reply("ok")
        summary = runner.resume("latest").summary
    assert (server.count, summary.requests, summary.ok) == (2, 5, 2)
    assert (summary.unrecorded.requests, summary.held.attempts) == (3, 3)
    assert summary.cost_usd is None
