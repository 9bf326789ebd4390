"""Runs against a server that refuses some rows, or all: whose fault it is decides what is recorded, and what is asked again."""

import json
import random
from pathlib import Path

import pytest

import runner
from runner.experiment.run import resume
from runner.limits.breaker import TRIP
from runner.limits.complaints import SEVERAL
from runner.network.retry import without_sleeping
from tests.support.refusals import REFUSALS
from tests.support.server import Raw, Reply, Reset, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

ROWS = 12


@pytest.fixture
def server():
    with Server() as running:
        yield running


def run(server, *overrides, rows=ROWS):
    """Ask so many rows; the question of row n is "What is n?"."""
    lines = [json.dumps({"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"}) + "\n" for n in range(rows)]
    Path("rows.jsonl").write_text("".join(lines))
    data = [
        "data=jsonl",
        "data.path=rows.jsonl",
        "data.id=id",
        "data.target=answer",
        "prompt=default",
        "prompt.user={{ question }}",
    ]
    model = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", "scoring=exact"]
    with without_sleeping():
        return runner.run(overrides=[*model, *data, *overrides])


def refusing(numbers, behaviour):
    """A server's behaviour: these rows get `behaviour`, the others are answered."""
    questions = {f"What is {n}?" for n in numbers}
    return lambda call: behaviour if call.question in questions else Reply("ok")


def as_sent(kind, vendor, status):
    """A real refusal as a behaviour of the server."""
    seen = next(seen for seen in REFUSALS if (seen.kind.code, seen.vendor, seen.status) == (kind, vendor, status))
    return Status(seen.status, body=seen.sent)


def asked(server, number):
    return sum(call.question == f"What is {number}?" for call in server.calls)


MODERATIONS = [
    as_sent("content_filter", "xAI", 403),
    as_sent("content_filter", "OpenRouter", 403),
    as_sent("content_filter", "DeepSeek", 400),
    as_sent("content_filter", "Alibaba", 400),
    as_sent("content_filter", "OpenAI", 400),
    as_sent("content_filter", "Azure", 400),
]


def test_rows_that_are_moderated_are_refused_and_the_run_completes(server):
    server.otherwise = lambda call: next(
        (each for n, each in enumerate(MODERATIONS) if call.question == f"What is {n}?"), Reply("ok")
    )
    result = run(server, "limits.max_concurrency=1")
    summary = result.summary
    assert (summary.status, summary.ok, summary.refused, summary.errors, summary.owed) == ("complete", 6, 6, 0, 0)
    assert summary.scores["exact"].n == 6
    refused = {sample.id: sample for sample in result.samples if sample.status == "refused"}
    assert sorted(refused) == [f"r{n}" for n in range(6)]
    assert {sample.error.code for sample in refused.values()} == {"content_filter"}
    assert "violates usage guidelines" in refused["r0"].error.message
    assert server.count == ROWS
    again = resume(result.folder)
    assert (again.summary.refused, server.count) == (6, ROWS)


@pytest.mark.parametrize("most", [1, 8])
@pytest.mark.parametrize(
    "refusal",
    [Status(400, "no image in row"), as_sent("context_window", "TGI", 422), as_sent("bad_request", "Cloudflare", 403)],
    ids=["bad", "long", "firewall"],
)
def test_a_row_that_is_refused_first_ends_nothing(server, refusal, most):
    server.otherwise = refusing([0], refusal)
    summary = run(server, f"limits.max_concurrency={most}").summary
    assert (summary.ok, summary.errors, summary.owed, server.count) == (ROWS - 1, 1, 0, ROWS)


def test_what_every_row_is_refused_for_stops_the_run(server):
    server.otherwise = Status(400, "Unrecognized request argument supplied: top_k")
    result = run(server, "limits.max_concurrency=1", rows=40)
    assert server.count == SEVERAL
    assert (result.summary.errors, result.summary.owed) == (SEVERAL, 40 - SEVERAL)
    assert "leave it out of `sampling` or `model.params`" in result.summary.problem


@pytest.mark.parametrize("most", [1, 4, 16])
@pytest.mark.parametrize("place", ["first", "last", "anywhere"])
@pytest.mark.parametrize("failure", [Status(500), Reset(), Raw(b"junk")], ids=["status", "closed", "junk"])
def test_a_few_rows_that_always_fail_are_errors_after_their_attempts(server, failure, place, most):
    numbers = {"first": range(4), "last": range(ROWS - 4, ROWS), "anywhere": random.Random(3).sample(range(ROWS), 4)}[place]
    server.otherwise = refusing(numbers, failure)
    attempts = 3 if isinstance(failure, Raw) else 5
    summary = run(server, f"limits.max_concurrency={most}", "limits.max_attempts=5").summary
    assert (summary.ok, summary.errors, summary.owed) == (ROWS - 4, 4, 0)
    assert {asked(server, number) for number in numbers} == {attempts}


def test_the_attempts_of_nine_rows_that_always_fail_do_not_end_the_run(server):
    server.otherwise = refusing(range(TRIP - 1), Status(500))
    summary = run(server, "limits.max_concurrency=4").summary
    assert (summary.ok, summary.errors, summary.owed) == (ROWS - TRIP + 1, TRIP - 1, 0)


def test_a_request_that_is_too_large_is_asked_once(server):
    server.otherwise = refusing([0, 5], as_sent("context_window", "OpenAI", 429))
    result = run(server, "limits.max_concurrency=2")
    assert (result.summary.ok, result.summary.errors, result.summary.owed, server.count) == (ROWS - 2, 2, 0, ROWS)
    error = next(sample.error for sample in result.samples if sample.id == "r0")
    assert (error.code, error.status) == ("context_window", 429)
    assert "shorten the prompt" in error.message


def test_a_schema_that_a_server_cannot_do_is_not_asked_again(server):
    server.otherwise = as_sent("bad_request", "llama-cpp-python", 500)
    result = run(server, "adapter=json", "limits.max_concurrency=1")
    assert server.count == SEVERAL
    assert "adapter.send_schema=none" in result.summary.problem


def test_the_wait_in_a_body_is_waited(server):
    body = {"error": {"message": "exceeded your current quota: PerMinute", "details": [{"retryDelay": "0.08s"}]}}
    server.script(Status(429, body=json.dumps(body).encode()))
    summary = run(server, "limits.max_concurrency=1").summary
    assert (summary.ok, summary.owed, server.count) == (ROWS, 0, ROWS + 1)


def test_a_quota_of_the_day_stops_the_run(server):
    server.otherwise = as_sent("quota", "Gemini", 429)
    result = run(server, "limits.max_concurrency=1")
    assert (server.count, result.summary.errors, result.summary.owed) == (1, 0, ROWS)
    assert "resume the run tomorrow" in result.summary.problem


def test_a_model_that_is_refused_stops_the_run_at_once(server):
    server.otherwise = as_sent("not_found", "transformers serve", 400)
    result = run(server, "limits.max_concurrency=1")
    assert (server.count, result.summary.errors, result.summary.owed) == (1, 0, ROWS)
    assert "check model.name" in result.summary.problem


def test_a_server_that_closes_every_connection_is_not_said_to_be_missing(server):
    server.otherwise = Reset()
    result = run(server, "limits.max_concurrency=2", "limits.max_attempts=2", rows=4)
    assert (result.summary.status, result.summary.errors, server.count) == ("failed", 4, 8)
    assert "the server took the request and closed the connection without an answer" in result.summary.problem


def test_a_server_that_refuses_one_cell_of_a_sweep_answers_the_others(server):
    def behaviour(call):
        if call.body["temperature"] == 1.0:
            return Status(400, "temperature is out of range")
        return Status(500) if call.question in ("What is 0?", "What is 1?") else Reply("ok")

    server.otherwise = behaviour
    Path("rows.jsonl").write_text("".join(json.dumps({"id": f"r{n}", "question": f"What is {n}?"}) + "\n" for n in range(8)))
    data = [
        "data=jsonl",
        "data.path=rows.jsonl",
        "data.id=id",
        "prompt=default",
        "prompt.user={{ question }}",
        "scoring=contains",
    ]
    model = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none"]
    with without_sleeping():
        result = runner.sweep(
            overrides=[*model, *data, "data.target=id", "sampling.temperature=0,1,0.5", "limits.max_attempts=3"]
        )
    counts = {row["sampling.temperature"]: (row["ok"], row["errors"]) for row in result.rows}
    assert counts[0.0] == counts[0.5] == (6, 2)
    assert counts[1.0][0] == 0
