"""The folder of a training job: its id, its moves, what a kill leaves of its files, and one at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.config import schema
from runner.errors import ConfigError, FinetuneError
from runner.finetune.jobs import hyper, ledger
from runner.finetune.jobs.ledger import JobFolder
from runner.finetune.jobs.spec import Access, Base, Recipe, Spec, facts_of
from runner.finetune.jobs.status import TrainingStatus
from runner.finetune.jobs.training import Training
from runner.finetune.trainers.openai import OpenAITrainer

ROWS = [{"prompt": "a", "completion": "b"}]
BASE = Base("b", "sha256:0", gguf="/somewhere/b.gguf")
DATA = facts_of(ROWS)


def spec_of(*, form="completion", data=DATA, **changes):
    return Spec.make(Recipe(**{"provider": "local", "base": BASE, "hyper": {"lr": 0.1}, **changes}), form, data)


def made(**changes):
    return JobFolder.create(spec_of(**changes), ROWS)


def test_the_id_depends_only_on_what_decides_the_model():
    job = spec_of().job
    assert job == "00f4f0c50691"  # for ever: a finished model is found by it
    assert job == spec_of(base=Base("other name", "sha256:0", gguf="/elsewhere")).job
    assert job == spec_of(access=Access("http://x", "KEY", 1.0)).job
    others = [{"hyper": {"lr": 0.2}}, {"base": Base("b", "sha256:1")}, {"provider": "command"}, {"form": "chat"}]
    others += [{"data": facts_of([*ROWS, *ROWS])}, {"data": facts_of(ROWS, ROWS)}, {"data": facts_of([], ROWS)}]
    assert len({job, *(spec_of(**other).job for other in others)}) == 8


def test_formats_that_a_provider_cannot_learn_from_are_refused():
    with pytest.raises(ConfigError, match="databricks trains on chat and completion data, not on preference"):
        spec_of(provider="databricks", form="preference")
    with pytest.raises(
        ConfigError, match=r"learned on this machine by TRL: finetune.backend=trl \(pip install 'ostinato\[trl\]'\)"
    ):
        spec_of(form="preference")
    with pytest.raises(ConfigError, match="beta: only preference data uses it, and this is completion data"):
        spec_of(hyper={"beta": 0.1})
    learned = spec_of(form="preference", hyper={"backend": "trl", "beta": 0.1})
    assert learned.job != spec_of(form="preference", hyper={"backend": "trl"}).job


def test_hyper_parameters_are_complete_and_equal_those_of_the_config():
    assert hyper.whole(hyper.LocalHyper, {}) == hyper.whole(hyper.LocalHyper, {"lr": 3e-3, "epochs": 1})
    assert hyper.whole(hyper.LocalHyper, {"lr": 1})["lr"] == 1.0
    with pytest.raises(ConfigError, match="unknown setting 'learning_rate'; did you mean"):
        hyper.whole(hyper.LocalHyper, {"learning_rate": 1})
    with pytest.raises(ConfigError, match=r"train_kwargs: Expected `float` > 0"):
        hyper.whole(hyper.LocalHyper, {"lr": 0.0})
    for kind, config in (
        (hyper.LocalHyper, schema.finetuning.LocalFinetune()),
        (hyper.OpenAIHyper, schema.finetuning.OpenAIFinetune()),
    ):
        assert hyper.whole(kind, {}) == hyper.whole(kind, {name: getattr(config, name) for name in kind.__struct_fields__})


def test_only_legal_moves_between_statuses_are_allowed():
    s = TrainingStatus
    job = made()
    with pytest.raises(FinetuneError, match="cannot go from not_started to running"):
        job.move(s.running)
    for status in (s.pending, s.pending, s.running, s.failed):
        job.move(status, error="why" if status is s.failed else None)
    state = job.state()
    assert (state.status, state.error, state.attempt, bool(state.started_at), bool(state.ended_at)) == (
        s.failed,
        "why",
        1,
        True,
        True,
    )
    for status in (s.running, s.succeeded, s.pending):
        with pytest.raises(FinetuneError, match="cannot go from failed"):
            job.move(status)
    again = job.again(fresh=False)
    assert (again.status, again.attempt, again.error, again.created_at) == (s.pending, 2, None, state.created_at)
    with pytest.raises(FinetuneError, match="has not ended"):
        job.again(fresh=True)


def test_a_fresh_attempt_archives_the_last_one():
    job = made()
    job.measured(1, loss=0.5)
    (job.path / "checkpoints/step-1").mkdir(parents=True)
    (job.path / "checkpoints/step-1/position.json").touch()
    (job.path / "checkpoints/step-2").mkdir()  # not whole
    assert job.checkpoints() == ["step-1"]
    (job.path / "adapter.gguf").touch()
    (job.path / "merged.gguf").touch()
    job.move(TrainingStatus.cancelled)
    job.again(fresh=True)
    assert (job.checkpoints(), job.metrics(), (job.path / "adapter.gguf").exists()) == ([], [], False)
    assert sorted(path.name for path in (job.path / "attempts/1").iterdir()) == [
        *("adapter.gguf", "checkpoints", "events.jsonl", "merged.gguf", "metrics.jsonl", "state.json"),
    ]


def test_torn_lines_are_ignored_and_do_not_swallow_the_next_line():
    job = made()
    job.measured(1, loss=0.5)
    with (job.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert [line["step"] for line in job.metrics()] == [1]
    job.measured(3, loss=0.3)
    job.measured(3, valid_loss=0.4)
    job.measured(1, loss=0.6)
    assert job.metrics() == [{"step": 1, "loss": 0.6}, {"step": 3, "loss": 0.3, "valid_loss": 0.4}]


def test_one_process_holds_the_lock_and_a_dead_one_releases_it():
    job = made()
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        with job.lock() as ours:
            assert ours
            held.set()
            time.sleep(60)

    other = context.Process(target=hold)
    other.start()
    assert held.wait(20)
    with job.lock() as ours:
        assert not ours
    other.kill()
    other.join()
    with job.lock() as ours:
        assert ours


def test_secrets_are_not_written():
    job = made()
    key = "sk-0123456789abcdefghij"
    job.move(TrainingStatus.pending)
    job.move(TrainingStatus.failed, error=f"the key {key} is wrong")
    job.event("remote", f"Bearer {key}")
    assert all(key not in path.read_text() for path in job.path.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in job.path.iterdir())


def test_jobs_are_found_by_the_beginning_of_their_ids():
    with pytest.raises(FinetuneError, match="there are no training jobs"):
        ledger.find("latest")
    one, two = made(), made(hyper={"lr": 0.2})
    assert ledger.find("latest").spec.job == two.spec.job
    assert ledger.find(one.spec.job[:4]).path == one.path
    assert ledger.find(f"local/ft-{one.spec.job}").path == one.path
    with pytest.raises(FinetuneError, match="no job is called 'zz'"):
        ledger.find("zz")
    with pytest.raises(FinetuneError, match="no job is called ''"):
        ledger.find("")
    one.remove()
    assert [job.spec.job for job in ledger.listed()] == [two.spec.job]


def test_a_folder_of_a_newer_format_is_refused_and_the_others_are_listed():
    job, other = made(), made(hyper={})
    spec = job.path / "spec.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "format": 2}))
    with pytest.raises(FinetuneError, match="its format 2 is not one that"):
        JobFolder.open(job.path)
    assert [found.spec.job for found in ledger.listed()] == [other.spec.job]


def test_abandoned_half_made_folders_are_deleted():
    root = made().path.parent
    old, new = root / ".new-old", root / ".new-new"
    for path in (old, new):
        path.mkdir()
    os.utime(old, (1, 1))
    made(hyper={"lr": 0.3})
    assert (old.exists(), new.exists()) == (False, True)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine draws slowly
@given(
    st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5))
)
def test_the_order_of_settings_does_not_change_the_id(hyper):
    one, other = (spec_of(provider="command", hyper=given) for given in (hyper, dict(reversed(hyper.items()))))
    assert one.job == other.job


@pytest.mark.parametrize(
    ("address", "message"),
    [(None, "accepts no new fine-tuning jobs"), ("http://127.0.0.1:1/v1", "does this server speak OpenAI's /files")],
)
def test_a_refusal_names_its_likely_reason(address, message):
    from runner.errors import NotFoundError

    trainer = OpenAITrainer(api_key="none", api_base=address)
    assert message in trainer._refused(NotFoundError("no such path"))


def test_a_job_that_is_cancelled_before_it_starts_is_never_started():
    class Never:
        paid, poll_s = True, 0.01

    job = made()
    job.ask_to_cancel()
    assert Training(job, Never()).begin().status is TrainingStatus.cancelled
