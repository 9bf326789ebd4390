"""Seeds of repeats: no two meet, old runs keep theirs, and a sweep over seeds has samples that are independent."""

import json
from itertools import pairwise, product
from pathlib import Path

import pytest

import runner
from runner.analysis.compare import compare
from runner.batch import asker
from runner.experiment.rescore import score
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from runner.reproduction.reproduce import reproduce
from runner.stats import seeds
from runner.stats.seeds import recorded_rule, seed_of
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")

ROWS = 3


def asked(server, *more):
    rows = [{"id": f"r{n}", "question": f"q{n}", "answer": "odd"} for n in range(ROWS)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ["model=server", "model.name=test", f"model.api_base={server.url}", "execution.orchestrator=none", "prompt=default"]
    return [*config, "data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "scoring=contains", *more]


@pytest.fixture
def server():
    """A server that answers with the seed that it was sent, so that an answer shows which one that was."""
    with Server(lambda call: Reply(f"odd {call.body.get('seed')}")) as running:
        yield running


def begun_before(monkeypatch, *overrides):
    """Run as a version did that knew only rule 1, and recorded no rule."""
    with monkeypatch.context() as earlier:
        for module in (asker, seeds):
            earlier.setattr(module, "RULE", 1)
        result = runner.run(overrides=list(overrides))
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["seeds"].pop("rule") == 1
    (result.folder / "manifest.json").write_text(json.dumps(manifest))
    return result


def sent(server):
    return sorted((call.question, call.body.get("seed")) for call in server.calls)


def test_no_two_pairs_of_seed_and_repeat_share_a_seed():
    pairs = [*product(range(300), range(300)), *product([0, 1, 16383], [1, 32767])]
    assert len({seed_of(seed, repeat) for seed, repeat in pairs}) == len(set(pairs))
    others = [*product([16384, 2**20, 20261130, 2**40, -1, -7], range(1, 60)), (0, 2**15), (1, 2**20)]
    derived = {seed_of(seed, repeat) for seed, repeat in others}
    assert len(derived) == len(others)
    assert not derived & {seed_of(seed, repeat) for seed, repeat in pairs}
    assert all(2**30 <= seed < 2**31 for seed in derived)


def test_seeds_never_change():
    """Cached answers and resumed runs depend on them."""
    found = [seed_of(*pair) for pair in ((0, 0), (7, 0), (-3, 0), (0, 1), (0, 2), (1, 1), (20261130, 1), (0, 2**15))]
    assert found == [0, 7, -3, 1405546295, 1200479854, 1264742199, 2135225334, 2113771741]
    assert [seed_of(5, repeat, 1) for repeat in range(3)] == [5, 6, 7]


def test_answers_of_one_request_do_not_meet_those_of_the_next_repeat():
    """llama.cpp draws the n answers of a request with the seeds s, s + 1, ..., s + n - 1."""
    found = sorted(seed_of(seed, repeat) for seed, repeat in product(range(10), range(1, 200)))
    assert min(after - before for before, after in pairwise(found)) > 400


def test_a_sweep_over_seeds_with_repeats_has_no_sample_twice(server):
    runner.sweep(asked(server, "sampling.seed=range(2)", "sampling.repeats=3"))
    assert len(sent(server)) == len(set(sent(server))) == 2 * 3 * ROWS
    assert {seed for _, seed in sent(server)} == {seed_of(seed, repeat) for seed, repeat in product(range(2), range(3))}


def test_no_seed_is_sent_where_none_is_set(server):
    result = runner.run(overrides=asked(server, "sampling.repeats=2"))
    assert {seed for _, seed in sent(server)} == {None}
    assert RunFolder.open(result.folder).manifest()["seeds"] == {"sampling": None, "data": None, "rule": 2}


def test_a_run_that_began_with_the_old_rule_keeps_its_seeds(server, monkeypatch, tmp_path):
    old = asked(server, "sampling.seed=4", "sampling.repeats=3", "budget.requests=5", "limits.max_concurrency=1")
    first = begun_before(monkeypatch, *old)
    assert (first.summary.status, first.summary.owed) == ("incomplete", 4)
    finished = runner.resume(first.folder, ["budget.requests=99"])
    assert finished.summary.status == "complete"
    assert sent(server) == sorted(product([f"q{n}" for n in range(ROWS)], [4, 5, 6]))
    assert recorded_rule(RunFolder.open(first.folder).manifest()) == 1

    server.reset()
    packed = pack(first.folder, tmp_path / "run.ostinato")
    replayed = replay(packed.file)
    assert (replayed.identical, replayed.outputs) == (True, 3 * ROWS)
    again = reproduce(first.folder, replay=True)
    assert (again.agreement.same, again.agreement.compared, again.summary.requests) == (9, 9, 0)
    assert recorded_rule(RunFolder.open(again.folder).manifest()) == 1
    score(first.folder, ["scoring=exact"])
    assert recorded_rule(RunFolder.open(first.folder).manifest()) == 1
    assert server.count == 0

    fresh = reproduce(first.folder)
    assert (fresh.agreement.same, sent(server)) == (9, sorted(product([f"q{n}" for n in range(ROWS)], [4, 5, 6])))


def test_repeat_0_of_an_old_run_is_in_the_cache_of_a_new_one(server, monkeypatch):
    old = asked(server, "sampling.seed=4", "sampling.repeats=2")
    begun_before(monkeypatch, *old)
    server.reset()
    new = runner.run(overrides=old)
    assert (new.summary.cache_hits, new.summary.requests) == (ROWS, ROWS)
    assert {seed for _, seed in sent(server)} == {seed_of(4, 1)}


def test_runs_whose_seeds_met_are_said_to_share_answers(server, monkeypatch):
    """Repeat 1 of seed 0 was repeat 0 of seed 1, under another key."""
    zero, one = (asked(server, f"sampling.seed={seed}", "sampling.repeats=2") for seed in range(2))
    old = [runner.load(begun_before(monkeypatch, *run).folder) for run in (zero, one)]
    assert compare(*old).same == ROWS
    assert {sample.output for sample in old[0].samples()} & {sample.output for sample in old[1].samples()} == {"odd 1"}
    new = [runner.load(runner.run(overrides=run).folder) for run in (zero, one)]
    assert compare(*new).same == 0
    assert compare(old[1], new[1]).same == ROWS  # repeat 0 came from the cache


def test_a_reproduction_that_is_cut_off_goes_on_with_the_old_rule(server, monkeypatch):
    first = begun_before(monkeypatch, *asked(server, "sampling.seed=4", "sampling.repeats=2", "limits.max_concurrency=1"))
    server.reset()
    cut = reproduce(first.folder, ["budget.requests=2"])
    assert cut.summary.owed == 4
    runner.resume(cut.folder, ["budget.requests=99"])
    assert {seed for _, seed in sent(server)} == {4, 5}
