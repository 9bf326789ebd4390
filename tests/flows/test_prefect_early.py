"""Stopping early (``expect.stop_early``) under Prefect: the flow completes, and the rows that are owed are asked on request."""

import pytest

import runner
from runner.experiment.run import resume

pytestmark = pytest.mark.prefect


@pytest.fixture
def kept_server(clean, kept, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", kept.api_url)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("reply", "code", "verdict"), [("yes", 0, "pass"), ("no", 100, "fail")])
def test_a_run_under_prefect_stops_when_the_verdict_is_certain(kept_server, api, reply, code, verdict):
    rows = [{"id": f"r{number}", "q": f"q{number}", "a": "yes"} for number in range(60)]
    data = [f"data.rows={rows}", "data.id=id", "data.target=a", "data.shuffle=true", "prompt=default", "prompt.user='{{ q }}'"]
    expect = ["expect.that=['exact >= 0.8']", "expect.stop_early=true", "cache.mode=off", "limits.max_concurrency=4"]
    model = ["model=fake", f"model.reply={reply}", "execution.orchestrator=prefect"]
    done = runner.run(overrides=["name=early", "data=inline", "scoring=exact", *data, *model, *expect])
    assert (done.exit_code, done.summary.stopped_early, done.summary.expectations[0].verdict) == (code, True, verdict)
    assert 0 < done.summary.ok < 60
    assert done.summary.owed == 60 - done.summary.ok
    assert api.settled(done.folder.name, 2) == {"play": "COMPLETED", "summarise": "COMPLETED"}
    assert api.flow_run(done.folder.name)["state_type"] == "COMPLETED"
    rest = resume(done.folder, ["expect.stop_early=false"])
    assert (rest.summary.ok, rest.summary.owed, rest.summary.stopped_early) == (60, 0, False)
