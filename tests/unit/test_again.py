"""`retry`: the rows that failed are asked again, in the same record; what was answered, and what was spent, stays."""

import json
from collections import Counter
from pathlib import Path

import pytest

import runner
from runner.cli import main
from runner.errors import ConfigError, RecordError
from runner.experiment.rescore import score
from runner.experiment.run import FAILURES, resume, retry
from runner.records import RunFolder
from runner.scoring import summarise
from runner.types import Spent, Usage
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

TOO_LONG = Status(400, "maximum context length is 10 tokens")
ODD = Status(400, "the image is not a PNG")


class Sick:
    """A server's behaviour: it refuses some questions, until it is well."""

    def __init__(self, **refused):
        self.refused = refused

    def __call__(self, call):
        return self.refused.get(call.question, Reply("odd"))


def play(server, count=6, *more):
    rows = [{"id": f"r{n}", "question": f"q{n}", "answer": "odd" if n % 2 else "even"} for n in range(count)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", "prompt=default"]
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "scoring=exact", "cache.mode=off"]
    return runner.run(overrides=[*config, *data, *more])


def lines(result):
    return [json.loads(line) for line in (result.folder / "samples.jsonl").read_text().splitlines()]


def test_retry_asks_only_failed_rows():
    sick = Sick(q1=TOO_LONG, q4=ODD)
    with Server(sick) as server:
        first = play(server)
        assert (first.exit_code, first.summary.errors_by_code) == (3, {"context_window": 1, "bad_request": 1})
        sick.refused = {"q4": ODD}
        server.reset()
        second = retry(first.folder)
        assert sorted(call.question for call in server.calls) == ["q1", "q4"]
        sick.refused = {}
        server.reset()
        third = retry(first.folder)
        assert [call.question for call in server.calls] == ["q4"]
        assert retry(first.folder).summary.requests == 6 + 2 + 1
        assert server.count == 1
    assert (second.exit_code, second.summary.ok, second.summary.errors_by_code) == (3, 5, {"bad_request": 1})
    assert (third.exit_code, third.summary.status, third.summary.ok, third.summary.errors) == (0, "complete", 6, 0)
    assert third.summary.errors_by_code == {}
    assert (third.summary.scores["exact"].mean, third.summary.scores["exact"].n) == (0.5, 6)
    assert Counter(line["id"] for line in lines(third)) == {"r0": 1, "r1": 2, "r2": 1, "r3": 1, "r4": 3, "r5": 1}
    assert {sample.id: sample.status for sample in third.samples} == {f"r{n}": "ok" for n in range(6)}


def test_retry_can_be_limited_to_some_codes():
    sick = Sick(q1=TOO_LONG, q4=ODD)
    with Server(sick) as server:
        folder = play(server).folder
        sick.refused = {}
        server.reset()
        done = retry(folder, only=["context_window", "timeout"])
        assert [call.question for call in server.calls] == ["q1"]
        assert (done.summary.ok, done.summary.errors_by_code) == (5, {"bad_request": 1})
        done = retry(folder, only=["bad_request"])
    assert (done.summary.ok, done.summary.errors) == (6, 0)


def test_retry_asks_rows_again_that_were_moderated():
    sick = Sick(q4=Status(403, "Content violates usage guidelines"))
    with Server(sick) as server:
        folder = play(server).folder
        sick.refused = {}
        server.reset()
        assert retry(folder, only=["context_window"]).summary.refused == 1
        assert server.count == 0
        done = retry(folder, only=["content_filter"])
        assert [call.question for call in server.calls] == ["q4"]
    assert (done.summary.ok, done.summary.refused) == (6, 0)


def test_retry_refuses_an_unknown_code():
    with Server() as server:
        folder = play(server).folder
    message = r"no row fails with 'ratelimit'; did you mean 'rate_limit'\? the codes are authentication, .*, data, scoring"
    with pytest.raises(ConfigError, match=message):
        retry(folder, only=["timeout", "ratelimit"])
    with pytest.raises(ConfigError, match="codes are a list"):
        retry(folder, only="timeout")
    assert {"rate_limit", "timeout", "server", "context_window", "data", "scoring"} <= set(FAILURES)


def test_retry_asks_owed_rows_too_within_the_budget_of_all_sittings():
    sick = Sick(q0=TOO_LONG)
    with Server(sick) as server:
        first = play(server, 6, "budget.requests=3", "limits.max_concurrency=1")
        assert (first.summary.ok, first.summary.errors, first.summary.owed) == (2, 1, 3)
        sick.refused = {}
        again = retry(first.folder)
        assert (again.summary.ok, again.summary.errors, again.summary.owed, server.count) == (2, 1, 3, 3)  # nothing is left
        again = retry(first.folder, ["budget.requests=4"])
        assert (again.summary.errors, again.summary.owed, server.count) == (0, 3, 4)
        again = retry(first.folder, ["budget.requests=7"])
        assert (again.summary.ok, again.summary.owed, again.summary.requests, server.count) == (6, 0, 7, 7)
        with pytest.raises(ConfigError, match="a resumed run keeps its config"):
            retry(first.folder, ["cache.mode=rw"])


def test_a_row_whose_retry_fails_has_failed():
    with Server(Sick(q1=TOO_LONG)) as server:
        folder = play(server).folder
        for requests in (7, 8):
            done = retry(folder)
            assert (done.exit_code, done.summary.ok, done.summary.errors, done.summary.requests) == (3, 5, 1, requests)
    assert resume(folder).summary.requests == 8
    assert len(done.samples) == 6


def test_the_cost_of_failures_counts():
    schema = ["adapter=json", "adapter.schema={type: object, required: [n]}", "scoring=none", "limits.max_concurrency=1"]
    with Server() as server:
        server.script(Reply("no json"), TOO_LONG, Reply('{"n": 1}'))  # r0 is asked again, and that is refused
        first = play(server, 2, *schema)
        assert (first.summary.errors, first.summary.requests, first.summary.usage.total_tokens) == (1, 3, 20)
        server.script(Reply('{"n": 2}'))
        second = retry(first.folder)
    assert (second.summary.status, second.summary.requests, second.summary.usage.total_tokens) == ("complete", 4, 30)
    for later in (resume(first.folder), score(first.folder), retry(first.folder), score(first.folder)):
        assert (later.summary.requests, later.summary.usage.total_tokens, later.summary.ok) == (4, 30, 2)
    assert [line["id"] for line in lines(second)] == ["r0", "r1", "r0"]
    assert RunFolder.open(first.folder).manifest()["tokens"]["total_tokens"] == 30


def test_the_cost_of_a_conversation_that_was_cut_off_counts():
    schema = ["adapter=json", "adapter.schema={type: object, required: [n]}", "scoring=none", "limits.max_concurrency=1"]
    with Server(Reply("no json")) as server:
        first = play(server, 1, *schema, "budget.requests=1")
        assert (first.summary.owed, first.summary.requests, first.summary.usage.total_tokens) == (1, 1, 10)
        assert first.summary.unrecorded == Spent(1, Usage(7, 3, 10), None)
        for _ in range(2):  # what it may use is used: going on sends nothing
            again = resume(first.folder)
            assert (again.summary.owed, again.summary.requests, server.count) == (1, 1, 1)
        server.script(Reply('{"n": 1}'))
        last = resume(first.folder, ["budget.requests=2"])
    assert (last.summary.ok, last.summary.requests, last.summary.usage.total_tokens, server.count) == (1, 2, 20, 2)
    for later in (score(first.folder), resume(first.folder)):
        assert (later.summary.requests, later.summary.usage.total_tokens, later.summary.cost_usd) == (2, 20, None)


def test_attempts_of_owed_rows_count():
    with Server(Status(401, "Incorrect API key provided")) as server:
        first = play(server, 4, "limits.max_concurrency=1")
        assert (first.summary.owed, first.summary.requests, server.count) == (4, 1, 1)
        server.otherwise = Reply("odd")
        assert (resume(first.folder).summary.requests, server.count) == (5, 5)


def test_cached_turns_of_a_failure_cost_nothing():
    schema = ["adapter=json", "adapter.schema={type: object, required: [n]}", "scoring=none", "cache.mode=rw"]
    with Server() as server:
        server.script(Reply("no json"), TOO_LONG, TOO_LONG)
        assert play(server, 1, *schema).summary.usage.total_tokens == 10
        again = play(server, 1, *schema)  # its first turn comes from the cache
    assert (again.summary.errors, again.summary.requests, again.summary.usage.total_tokens, server.count) == (1, 1, 0, 3)


def test_answers_whose_scoring_failed_are_scored_again_and_not_asked():
    Path("grade.py").write_text(
        "from pathlib import Path\ndef grade(output, target, row):\n    return Path('ready').exists() or 1 / 0\n"
    )
    scored = ["scoring=python", "scoring.function=grade.py:grade"]
    with Server(Sick(q1=TOO_LONG)) as server:
        first = play(server, 4, *scored)
        assert first.summary.errors_by_code == {"scoring": 3, "context_window": 1}
        assert (first.summary.requests, first.summary.usage.total_tokens, server.count) == (4, 30, 4)
        again = retry(first.folder, only=["scoring"])
        assert (again.summary.errors_by_code, server.count) == ({"scoring": 3, "context_window": 1}, 4)
        Path("ready").touch()
        again = retry(first.folder, only=["scoring"])
        assert (again.summary.ok, again.summary.errors_by_code, server.count) == (3, {"context_window": 1}, 4)
        assert (again.summary.requests, again.summary.usage.total_tokens) == (4, 30)
        assert again.summary.scores == {"grade": summarise([1.0] * 3)}
    assert resume(first.folder).summary.usage.total_tokens == 30


def test_repeats_of_a_row_are_clustered_in_the_scores():
    sick = Sick(q1=TOO_LONG)
    with Server(sick) as server:
        first = play(server, 4, "sampling.repeats=3")
        assert (first.summary.errors, first.summary.scores["exact"].n) == (3, 3)
        sick.refused = {}
        again = retry(first.folder)
    assert (again.summary.ok, again.summary.rows, again.summary.requests) == (12, 12, 15)
    assert again.summary.scores == resume(first.folder).summary.scores
    assert (again.summary.scores["exact"].mean, again.summary.scores["exact"].n) == (0.5, 4)


def test_retry_refuses_a_folder_that_is_locked():
    with Server() as server:
        folder = play(server).folder
    player = RunFolder.open(folder)
    player.lock()
    with pytest.raises(RecordError, match="is being played"):
        retry(folder)
    player.close()


def test_the_command_retries_and_reports(capsys):
    sick = Sick(q1=TOO_LONG, q4=ODD)
    with Server(sick) as server:
        folder = play(server).folder
        sick.refused = {}
        assert main(["retry", "rows", "--only", "bad_request, timeout"]) == 3
        out, err = capsys.readouterr()
        assert out.startswith("rows: incomplete")
        assert err.splitlines()[-1] == f"1 rows failed; retry them with: ostinato retry {folder.relative_to(Path.cwd())}"
        assert main(["retry", "limits.max_concurrency=2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["ok"] == 6
        assert main(["retry", "--only", "nonsense"]) == 2
        assert capsys.readouterr().err.startswith("error: no row fails with 'nonsense'; the codes are ")
