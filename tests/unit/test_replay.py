"""A finished run is played again from the cache alone: the same bytes, and nothing is sent."""

import json
from pathlib import Path

import msgspec
import pytest

import runner
from runner.errors import CacheError
from tests.support.server import Reply, Server, unlike_any_other

pytestmark = pytest.mark.usefixtures("in_tmp")

JSON = ["adapter=json", "adapter.schema={type: object, required: [n]}", "adapter.retries=2", "scoring=none"]
ANSWERS = ["id", "repeat", "status", "output", "parsed", "scores", "messages", "target", "usage", "finish_reason", "request_key"]


def play(server, *more):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": f"about {n}"} for n in range(7)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", "prompt=default"]
    data = [
        "data=jsonl",
        "data.path=rows.jsonl",
        "data.id=id",
        "data.target=answer",
        "limits.max_concurrency=3",
        "scoring=contains",
    ]
    return runner.run(overrides=[*config, *data, *more])


def answers(result):
    """Everything about the answers, as bytes, whatever the order in which they came."""
    samples = sorted(result.samples, key=lambda sample: (sample.id, sample.repeat))
    return msgspec.json.encode([{name: getattr(sample, name) for name in ANSWERS} for sample in samples])


@pytest.mark.parametrize(
    "more", [[], ["sampling.repeats=3", "sampling.temperature=1"], ["sampling.repeats=2", "sampling.seed=4"]]
)
def test_replay_returns_the_same_bytes_without_the_server(more):
    with Server(unlike_any_other()) as server:
        first = play(server, *more)
        assert server.count == first.summary.rows
    again = play(server, *more, "cache.mode=replay")
    assert (again.summary.status, again.summary.requests, again.summary.cache_hits) == ("complete", 0, first.summary.rows)
    assert answers(again) == answers(first)
    assert len({sample.output for sample in first.samples}) > 3
    assert again.summary.scores["contains"].mean == pytest.approx(first.summary.scores["contains"].mean)
    with pytest.raises(CacheError, match="replay: the cache has no answer"):
        play(server, *more, "cache.mode=replay", "sampling.max_tokens=9")


def test_conversations_are_replayed_turn_by_turn():
    """What is asked again, because the answer was no JSON, is replayed turn by turn."""
    count = iter(range(1000))

    def mostly_wrong(call):
        turn = len(call.body["messages"])
        return Reply(f'{{"n": {next(count)}}}' if (len(call.question) + next(count) + turn) % 3 == 0 or turn > 4 else "no json")

    with Server(mostly_wrong) as server:
        first = play(server, *JSON, "sampling.repeats=2")
        assert server.count == first.summary.requests > first.summary.rows == first.summary.ok == 14
        sent = server.count
        again = play(server, *JSON, "sampling.repeats=2", "cache.mode=replay")
        assert server.count == sent
    assert (again.summary.requests, again.summary.cache_hits) == (0, 14)
    assert max(len(sample.messages) for sample in again.samples) > 2
    assert answers(again) == answers(first)
    later = play(server, *JSON, "sampling.repeats=2", "cache.mode=replay")
    assert answers(later) == answers(first)


def test_more_repeats_send_only_the_new_ones():
    with Server(unlike_any_other()) as server:
        two = play(server, "sampling.repeats=2", "sampling.temperature=1")
        assert server.count == 14
        three = play(server, "sampling.repeats=3", "sampling.temperature=1")
        assert server.count == 21
        assert (three.summary.rows, three.summary.cache_hits, three.summary.requests) == (21, 14, 7)
        fewer = play(server, "sampling.repeats=1", "sampling.temperature=1")
        assert server.count == 21
    before = {(sample.id, sample.repeat): sample.output for sample in two.samples}
    after = {(sample.id, sample.repeat): sample.output for sample in three.samples}
    assert before.items() <= after.items()
    assert after.keys() - before.keys() == {(f"r{n}", 2) for n in range(7)}
    assert {(sample.id, sample.repeat): sample.output for sample in fewer.samples}.items() <= after.items()
