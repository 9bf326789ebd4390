"""Head and workers, in one process: the record is that of a run without workers, whoever is lost; nothing is paid twice."""

import collections
import contextlib
import json
import threading

import pytest

import runner
from runner.errors import ConfigError, LaunchError, RecordError
from runner.providers import local
from runner.records import RunFolder
from runner.workers import head, player
from runner.workers.wire import Answer, Demand, Done, Ended, Unfit, sample_of
from tests.support.clock import wait_until
from tests.support.server import Reply, Server, Status
from tests.workers.here import workers_here

ROWS = 24
WORKERS = "execution.workers.kind=dask"
TIMES = ("started_at", "latency_s")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"id": f"r{number}", "q": f"q{number}", "target": f"q{number}"}) for number in range(ROWS)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))


@pytest.fixture
def server():
    with Server(Reply(lambda call: call.question)) as one:
        yield one


def given(server, *more, workers=True):
    """The overrides of a run of the rows on a server; None is the fake model."""
    model = ["model=server", "model.name=m", f"model.api_base={server.url}"] if server else ["model=fake"]
    data = ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=target", "prompt.user='{{ q }}'"]
    spread = [WORKERS] if workers else []
    return [*model, *data, *spread, "execution.orchestrator=none", "scoring=exact", *more]


def play(server, *more, workers=True, **arguments):
    """Play the rows on a server."""
    return runner.run(overrides=given(server, *more, workers=workers), **arguments)


def lines(result):
    """The lines of a record without times, in the order of their rows."""
    found = [json.loads(line) for line in (result.folder / "samples.jsonl").read_text().splitlines()]
    for line in found:
        for part in (line, *line.get("steps", ())):
            for name in TIMES:
                part.pop(name, None)
    return sorted(found, key=lambda line: (line["id"], line["repeat"]))


def times_asked(server):
    return collections.Counter(call.question for call in server.calls)


def test_a_record_is_that_of_one_process(server):
    alone = play(server, "cache.mode=off", workers=False)
    with workers_here() as engine:
        spread = play(server, "cache.mode=off")

    assert lines(spread) == lines(alone)
    assert spread.summary.status == "complete"
    assert (spread.summary.scores, spread.summary.usage) == (alone.summary.scores, alone.summary.usage)
    assert set(times_asked(server).values()) == {2}
    assert len(engine.links) == 2
    assert engine.closed
    assert not (spread.folder / "spending.jsonl").exists()


def test_answers_are_in_the_cache_of_the_head(server):
    with workers_here():
        play(server)
        again = play(server)

    assert server.count == ROWS
    assert again.summary.cache_hits == ROWS


def test_an_answer_is_stored_before_its_sample_is_recorded(server):
    order = collections.defaultdict(list)

    def heard(_link, message):
        if isinstance(message, Answer | Ended | Done | Demand):
            order[type(message)].append(message)
        if isinstance(message, Done):
            assert sample_of(message.line).request_key in {one.key for one in order[Answer]}

    with workers_here(heard=heard):
        play(server)

    assert len(order[Done]) == ROWS


def test_the_same_question_on_two_workers_is_asked_once(tmp_path):
    same = [json.dumps({"id": f"r{number}", "q": "one", "target": "one"}) for number in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(same))
    with Server(Reply("one", delay_s=0.1)) as server, workers_here():
        result = play(server, "limits.max_concurrency=8")

    assert server.count == 1
    assert (result.summary.ok, result.summary.cache_hits, result.summary.requests) == (8, 7, 1)


@pytest.mark.parametrize("moment", ["asked", "sent", "done"])
def test_a_lost_worker_costs_what_was_in_flight(server, moment):
    kinds = {"asked": Demand, "sent": Answer, "done": Done}
    seen = collections.Counter()

    def heard(link, message):
        if link.number == 0 and isinstance(message, kinds[moment]):
            seen[moment] += 1
            if seen[moment] == 5:
                link.lose()

    with workers_here(heard=heard, spare=1) as engine:
        result = play(server, "limits.max_concurrency=4")

    assert seen[moment] == 5, "the worker was never lost"
    assert len(engine.links) == 3
    assert [line["id"] for line in lines(result)] == sorted(f"r{number}" for number in range(ROWS))
    assert all(line["output"] == f"q{line['id'][1:]}" for line in lines(result))
    again = {question: count for question, count in times_asked(server).items() if count > 1}
    assert sum(again.values()) - len(again) <= 4 + 1, again
    assert "was lost (killed by the test)" in (result.folder / "run.log").read_text()
    assert result.summary.requests >= server.count, "what may have been sent counts"


def test_samples_are_kept_though_a_later_message_ends_their_worker(server, monkeypatch):
    hear = head.Head._hear
    ended = []

    def with_end(self, worker, messages):
        last = [Unfit("its disk is full")] if not ended and any(isinstance(one, Done) for one in messages) else []
        ended.extend(last)
        hear(self, worker, [*messages, *last])

    monkeypatch.setattr(head.Head, "_hear", with_end)
    with workers_here(), pytest.warns(UserWarning, match="its disk is full"):
        result = play(server, "limits.max_concurrency=4")

    assert ended
    assert [line["id"] for line in lines(result)] == sorted(f"r{number}" for number in range(ROWS))


def test_a_worker_that_hangs_is_given_up(server, monkeypatch):
    monkeypatch.setattr(head, "SILENCE_S", 0.5)
    monkeypatch.setattr(player, "HEARTBEAT_S", 0.1)

    def heard(link, message):
        if link.number == 0 and isinstance(message, Done):
            link.hangs = True

    with workers_here(heard=heard):
        result = play(server, "limits.max_concurrency=4")

    assert result.summary.ok == ROWS
    assert "no word for" in (result.folder / "run.log").read_text()


def test_without_any_worker_left_rows_stay_owed(server, monkeypatch):
    monkeypatch.setattr(head, "NOBODY_S", 0.5)

    def heard(link, message):
        if isinstance(message, Done):
            link.lose()

    with workers_here(heard=heard), pytest.raises(LaunchError, match="there is no worker, and none came"):
        play(server)

    with workers_here():
        done = runner.resume("latest")
    assert done.summary.status == "complete"
    assert len(lines(done)) == ROWS


def test_a_row_that_ends_every_worker_stops_the_run(server):
    def heard(link, message):
        if isinstance(message, Done) and sample_of(message.line).id == "r7":
            link.lose()

    with workers_here(heard=heard, spare=9), pytest.raises(LaunchError, match="row 'r7' was being answered by 5 workers"):
        play(server, "limits.max_concurrency=2", "cache.mode=off")


@pytest.mark.parametrize("bound", ["requests=10", "tokens=10000", "usd=0.01"])
def test_a_budget_is_never_overshot(server, bound):
    lost = threading.Event()

    def heard(link, message):
        if link.number == 0 and isinstance(message, Ended) and message.succeeded:
            lost.set()
            link.lose()

    price = ["model.price.prompt=10", "model.price.completion=10", "sampling.max_tokens=40"]
    with workers_here(heard=heard, spare=1):
        result = play(server, f"budget.{bound}", "cache.mode=off", *price)

    name, _, most = bound.partition("=")
    usage = 10
    sent = {"requests": server.count, "tokens": server.count * usage, "usd": server.count * usage * 1e-5}
    assert lost.is_set()
    assert sent[name] <= float(most)
    assert result.summary.requests >= server.count


def test_a_refused_key_stops_the_run_at_once(server):
    server.api_key = "another"
    with workers_here():
        result = play(server)

    assert result.summary.status == "failed"
    assert server.count <= 16 + 2
    assert "Incorrect API key" in (result.summary.problem or "")
    assert result.summary.owed == ROWS


def test_a_row_that_is_refused_is_that_rows_failure():
    def answer(call):
        return Status(400, "no") if call.question == "q3" else Reply(call.question)

    with Server(answer) as server:
        alone = play(server, "cache.mode=off", "limits.max_concurrency=1", workers=False)
        with workers_here():
            spread = play(server, "cache.mode=off", "limits.max_concurrency=1")

    assert [line["id"] for line in lines(spread) if line["status"] == "error"] == ["r3"]
    assert lines(spread) == lines(alone)


def test_failures_of_the_moment_are_asked_again(server):
    server.script(*[Status(500)] * 3)
    with workers_here():
        result = play(server, "cache.mode=off")

    assert result.summary.ok == ROWS
    assert result.summary.requests == server.count == ROWS + 3


def test_all_workers_obey_one_bound(server):
    server.otherwise = Reply(lambda call: call.question, delay_s=0.02)
    with workers_here():
        play(server, "limits.max_concurrency=3", "execution.workers.n=3")

    assert server.most_at_once == 3


def test_a_scorer_and_a_program_travel_by_content(server, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "helper.py").write_text("def half(text):\n    return len(text) / 2\n")
    (tmp_path / "own" / "ask.py").write_text(
        "import helper\n\n\nasync def solve(row, lm):\n    (first,) = await lm.acall(row['q'])\n"
        "    helper.half(first)\n    return first\n"
    )
    (tmp_path / "own" / "grade.py").write_text("def grade(output, target, row):\n    return float(output == target)\n")
    own = ["solver=python", "solver.function=own/ask.py:solve", "scoring=python", "scoring.function=own/grade.py:grade"]
    alone = play(server, *own, "cache.mode=off", workers=False)
    with workers_here() as engine:
        spread = play(server, *own, "cache.mode=off")

    assert lines(spread) == lines(alone)
    assert spread.summary.scores["grade"].mean == 1.0
    assert str(tmp_path).encode() not in engine.packed[0]


def test_a_program_of_a_command_can_be_run_on_a_worker(server, tmp_path):
    script = tmp_path / "solve.sh"
    script.write_text("#!/bin/sh\necho done\n")
    script.chmod(0o755)
    with workers_here():
        result = play(server, "solver=command", "solver.argv=[./solve.sh]")

    assert {line["output"].strip() for line in lines(result)} == {"done"}


def test_code_with_a_secret_does_not_travel(server, tmp_path):
    (tmp_path / "grade.py").write_text(
        'api_token = "sk-verysecret123456789"\n\n\ndef grade(output, target, row):\n    return 1.0\n'
    )
    with workers_here() as engine, pytest.raises(ConfigError, match=r"grade\.py holds what looks like a secret"):
        play(server, "scoring=python", "scoring.function=grade.py:grade")
    assert not engine.packed


def test_no_key_travels(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-verysecret123456789")
    server.api_key = "sk-verysecret123456789"
    with workers_here() as engine:
        result = play(server, "model.api_key_env=MY_KEY")

    assert result.summary.ok == ROWS
    assert b"verysecret" not in engine.packed[0]


def test_judges_are_asked_by_workers(server):
    judge = ["scoring.model.name=j", f"scoring.model.api_base={server.url}"]
    judged = ["scoring=correctness", "model@scoring.model=server", *judge]
    server.otherwise = lambda call: Reply("correct" if call.body["model"] == "j" else call.question)
    alone = play(server, *judged, "cache.mode=off", workers=False)
    with workers_here():
        spread = play(server, *judged, "cache.mode=off")

    assert lines(spread) == lines(alone)
    assert spread.summary.named.keys() == alone.summary.named.keys()


def test_workers_that_cannot_play_are_named(server):
    with (
        workers_here(unfit={0: "w0 has another version", 1: "w1 has another version"}),
        pytest.raises(LaunchError, match="w1 has"),
    ):
        play(server)

    assert server.count == 0


def test_an_unfit_worker_leaves_the_others_at_work(server):
    with workers_here(unfit={0: "w0 has another version"}), pytest.warns(UserWarning, match="w0 has another version"):
        result = play(server)

    assert result.summary.ok == ROWS


def test_a_stopped_run_finishes_what_is_in_flight(server):
    experiments = []
    server.otherwise = Reply(lambda call: call.question, delay_s=0.05)

    def watch(experiment):
        experiments.append(experiment)
        return contextlib.nullcontext()

    def heard(_link, message):
        if isinstance(message, Done):
            experiments[0].interrupt()

    with workers_here(heard=heard):
        stopped = play(server, "limits.max_concurrency=4", watch=watch)
    assert stopped.summary.status == "interrupted"
    assert 1 <= len(lines(stopped)) < ROWS
    assert len(lines(stopped)) == server.count, "an answer that was paid is lost"

    done = runner.resume(stopped.folder, ["execution.workers.kind=null"])
    assert (done.summary.ok, server.count) == (ROWS, ROWS)


def test_a_record_that_cannot_be_written_ends_the_run(server, monkeypatch):
    def full(_self, _samples):
        raise RecordError("the disk is full")

    monkeypatch.setattr(RunFolder, "append", full)
    with workers_here() as engine, pytest.raises(RecordError, match="the disk is full"):
        play(server)
    assert engine.closed


@pytest.mark.parametrize(
    ("override", "why"),
    [
        (["prompt.messages=[{role: user, content: '{{ q }}'}]", "prompt.user=null"], "may attach files"),
    ],
)
def test_what_cannot_travel_is_named(override, why, monkeypatch):
    with workers_here(), pytest.raises(ConfigError, match=why):
        play(None, *override)


def test_a_player_without_a_head_gives_up(server, monkeypatch):
    monkeypatch.setattr(player, "ALONE_S", 0.2)
    monkeypatch.setattr(player, "HEARTBEAT_S", 0.1)
    with workers_here() as engine:
        play(server)
    alone = player.Player(engine.packed[0])

    wait_until(lambda: not any(one.name == "ostinato player" for one in threading.enumerate()), "the end of the player")
    assert alone.is_alone


def test_the_cells_of_a_sweep_share_one_cluster(server):
    with workers_here() as engine:
        swept = runner.sweep(given(server, "sampling.temperature=0,0.5,1"))

    assert swept.manifest.status == "complete"
    assert server.count == 3 * ROWS
    assert (engine.opened, len(engine.links)) == (1, 6), "one player per cell and worker"


@pytest.mark.model
@pytest.mark.usefixtures("with_weights")
def test_a_local_model_is_served_by_the_worker(monkeypatch):
    started, start = [], local.server.start

    def counted(*arguments, **named):
        started.append(start(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(local.server, "start", counted)
    few = ["model=smollm2", "data=capitals", "data.limit=4", "execution.orchestrator=none", "cache.mode=off"]
    alone = runner.run(overrides=few)
    with workers_here(count=1):
        spread = runner.run(overrides=[*few, WORKERS, "execution.workers.n=1"])

    same = ("id", "status", "messages", "output", "scores", "request_key", "model_served")
    assert [[line[name] for name in same] for line in lines(spread)] == [[line[name] for name in same] for line in lines(alone)]
    assert len(started) == 2
    wait_until(lambda: not any(one.process.alive() for one in started), "the end of the servers")
