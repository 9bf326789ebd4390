"""What the head grants to workers: the same request once, nothing to calls that were given up, and no wait without an end."""

import collections
import json

import pytest

import runner
from runner.workers.wire import Ended, Withdrawn
from tests.support.server import Reply, Server
from tests.workers.here import workers_here


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def play(server, folder, questions, *more):
    """Play questions on two workers."""
    rows = [json.dumps({"id": f"r{number}", "q": question}) for number, question in enumerate(questions)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    model = ["model=server", "model.name=m", f"model.api_base={server.url}"]
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "prompt.user='{{ q }}'", "scoring=none"]
    spread = ["execution.workers.kind=dask", "execution.workers.n=2", "execution.orchestrator=none"]
    return runner.run(overrides=[*model, *data, *spread, *more])


def solved_by(folder, body):
    """Write a program, and return the overrides that have it answer rows."""
    (folder / "ask.py").write_text(f"import asyncio\n\n\nasync def solve(row, lm):\n{body}")
    return ["solver=python", "solver.function=ask.py:solve"]


def times_asked(server):
    return collections.Counter(call.question for call in server.calls)


def test_an_answer_that_is_not_kept_is_asked_again(tmp_path):
    seen = collections.Counter()

    def answer(call):
        seen[call.question] += 1
        return Reply("" if seen[call.question] == 1 else call.question)

    with Server(answer) as server, workers_here():
        result = play(server, tmp_path, [f"q{number}" for number in range(8)], "limits.retry_empty=1")

    assert (result.summary.ok, result.summary.requests) == (8, 16)
    assert set(times_asked(server).values()) == {2}


def test_two_slots_that_ask_what_the_other_has_asked_do_not_wait_for_each_other(tmp_path):
    body = """    order = ("x", "y") if row["q"] == "first" else ("y", "x")
    for question in order:
        await lm.acall(question)
    return "done"
"""
    with Server(Reply("", delay_s=0.05)) as server, workers_here():
        result = play(server, tmp_path, ["first", "second"], "limits.max_concurrency=2", *solved_by(tmp_path, body))

    assert len((result.folder / "samples.jsonl").read_text().splitlines()) == 2


def test_a_request_that_waits_for_its_turn_on_two_workers_is_asked_once(tmp_path):
    body = """    asked = [row["q"] + " one", row["q"] + " two", "same"]
    answers = await asyncio.gather(*[lm.acall(question) for question in asked])
    return answers[-1][0]
"""
    with Server(Reply(lambda call: call.question, delay_s=0.02)) as server, workers_here():
        questions = [f"q{number}" for number in range(8)]
        result = play(server, tmp_path, questions, "limits.max_concurrency=2", *solved_by(tmp_path, body))

    assert result.summary.ok == 8
    assert set(times_asked(server).values()) == {1}
    assert result.summary.requests == server.count == 17


def test_a_call_that_was_cancelled_while_it_waits_is_never_granted(tmp_path):
    body = """    busy = asyncio.ensure_future(lm.acall("busy"))
    await asyncio.sleep(0)
    given_up = asyncio.ensure_future(lm.acall("given up"))
    await asyncio.sleep(0.3)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    return (await busy)[0]
"""
    late, withdrawn = [], []

    def heard(_link, message):
        withdrawn.extend([message] if isinstance(message, Withdrawn) else [])
        late.extend([message] if isinstance(message, Ended) and not message.sent else [])

    with Server(Reply("ok", delay_s=1.0)) as server, workers_here(heard=heard):
        result = play(server, tmp_path, ["one"], "limits.max_concurrency=1", *solved_by(tmp_path, body))

    assert result.summary.ok == 1
    assert (len(withdrawn), late) == (1, []), "the head has granted what nobody waits for"
    assert result.summary.requests == server.count == 1
