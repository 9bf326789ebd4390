"""The state of an LM, as in dspy 2.6: history, callbacks, copies and dumped state."""

import copy
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import runner.lm.lm
from runner import errors
from runner.cache import Cache
from runner.cost.budget import Budget
from runner.limits import Endpoint, Limiter
from runner.lm.history import settings
from runner.lm.lm import LM
from runner.providers.base import Provider
from runner.providers.local import LocalProvider
from runner.system.clock import now
from runner.transport import FakeTransport
from runner.types import Choice, Response
from tests.support.scripted import ASKED, KEY, an_lm

# --- history


def test_a_call_adds_a_history_entry(ask):
    lm = an_lm("four", api_key=KEY)
    ask(lm, "2 + 2?", temperature=0.5, api_base="http://host/v1", headers={"Authorization": KEY})
    [entry] = lm.history
    assert set(entry) >= {
        *("prompt", "messages", "kwargs", "response", "outputs", "usage", "cost"),
        *("timestamp", "uuid", "model", "response_model", "model_type"),
    }
    assert (entry["prompt"], entry["messages"], entry["outputs"]) == ("2 + 2?", None, ["four"])
    assert entry["kwargs"] == {"temperature": 0.5}
    assert entry["usage"]["total_tokens"] == 7
    assert (entry["model"], entry["response_model"], entry["model_type"]) == ("fake/m", "served", "chat")
    assert (entry["cost"], entry["cache_hit"]) == (None, False)
    assert isinstance(entry["response"], Response)
    assert KEY not in str(entry)


def test_cache_hits_are_in_the_history_and_cost_nothing(ask):
    lm = an_lm()
    ask(lm, "hi")
    ask(lm, "hi")
    assert [(entry["cache_hit"], entry["cost"]) for entry in lm.history] == [(False, None), (True, 0.0)]
    assert lm.history[0]["uuid"] != lm.history[1]["uuid"]


def test_a_known_model_has_a_cost():
    lm = an_lm(model="openai/gpt-4o-mini")
    lm("hi")
    assert lm.history[0]["cost"] == pytest.approx(5 * 0.15e-6 + 2 * 0.6e-6)


def test_a_model_behind_a_custom_address_has_no_price(monkeypatch):
    assert LM("openai/gpt-4o-mini", api_base="http://host/v1").channel().price is None
    assert LM("openai/gpt-4o-mini", base_url="http://host/v1").channel().price is None
    lm = LM("openai/gpt-4o-mini")
    assert lm.channel().price is not None
    assert lm.copy(model="openai/gpt-4o").channel().price != lm.channel().price
    monkeypatch.setenv("OPENAI_BASE_URL", "http://host/v1")
    assert lm.channel().price is None


def test_history_can_be_switched_off(monkeypatch, ask):
    monkeypatch.setattr(settings, "disable_history", True)
    lm = an_lm()
    assert ask(lm, "hi") == ["ok"]
    assert lm.history == []
    assert runner.settings is settings


@pytest.mark.parametrize(("most", "kept"), [(3, ["2", "3", "4"]), (0, [])])
def test_history_is_bounded(monkeypatch, most, kept):
    monkeypatch.setattr(settings, "max_history_size", most)
    lm = an_lm()
    for n in range(5):
        lm(str(n))
    assert [entry["prompt"] for entry in lm.history] == kept


def test_an_entry_that_is_made_when_it_is_read_has_the_time_of_its_call():
    lm = an_lm()
    lm("hi")
    called = now()
    while now() == called:  # until the clock has gone on
        pass
    assert lm.history[0]["timestamp"] <= called
    assert lm.history[0] is lm.history[0]


def test_a_history_that_is_read_while_others_call_has_each_call_once():
    lm, read = an_lm(), []
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(lm, str(n)) for n in range(400)]
        while not all(call.done() for call in calls):
            read.append(len(lm.history))
    assert sorted(int(entry["prompt"]) for entry in lm.history) == list(range(400))
    assert read == sorted(read)


def test_inspect_history_prints_the_last_calls(capsys):
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    lm = an_lm("first answer", Response(choices=[Choice("second answer", "stop", {"content": []})]))
    lm("first question")
    lm(messages=[{"role": "system", "content": "Be brief."}, {"role": "assistant", "tool_calls": calls}, *ASKED], logprobs=True)
    lm.inspect_history()
    printed = capsys.readouterr().out
    assert "first" not in printed
    for part in ("System:\n\nBe brief.", "User:\n\nhi", "Response:\n\nsecond answer", "fake/m", "'name': 'f'"):
        assert part in printed
    lm.inspect_history(n=5)
    assert "first question" in capsys.readouterr().out


# --- callbacks


class Recorder:
    def __init__(self):
        self.seen = []

    def on_lm_start(self, call_id, instance, inputs):
        self.seen.append(("start", call_id, instance, inputs))

    def on_lm_end(self, call_id, outputs, exception=None):
        self.seen.append(("end", call_id, outputs, exception))


class Raiser:
    def on_lm_start(self, call_id, instance, inputs):
        raise RuntimeError("start failed")

    def on_lm_end(self, call_id, outputs, exception=None):
        raise RuntimeError("end failed")


def test_callbacks_are_notified_of_start_and_end(ask):
    recorder = Recorder()
    lm = an_lm("four", callbacks=[recorder])
    ask(lm, "2 + 2?", temperature=0.5, api_key=KEY)
    (_, first, instance, inputs), (_, last, outputs, exception) = recorder.seen
    assert first == last
    assert instance is lm
    assert inputs == {"prompt": "2 + 2?", "messages": None, "temperature": 0.5}
    assert (outputs, exception) == (["four"], None)


@pytest.mark.parametrize("error", [errors.AuthenticationError("no"), KeyboardInterrupt()])
def test_callbacks_are_notified_of_failures(ask, error):
    recorder = Recorder()
    with pytest.raises(type(error)):
        ask(an_lm(error, callbacks=[recorder]), "hi")
    assert recorder.seen[1][2:] == (None, error)


def test_errors_in_callbacks_do_not_fail_the_call(ask, caplog):
    recorder = Recorder()
    assert ask(an_lm(callbacks=[Raiser(), recorder]), "hi") == ["ok"]
    assert [event for event, *_ in recorder.seen] == ["start", "end"]
    assert "the callback on_lm_start raised" in caplog.text
    assert "end failed" in caplog.text


# --- copies and state


def test_a_copy_is_independent_and_shares_transport_limiter_and_budget():
    lm = an_lm(top_p=0.5, launch_kwargs={"port": 1}, callbacks=[Recorder()])
    lm("hi")
    lm.limiter, lm.budget = Limiter(Endpoint("test"), max_concurrency=1), Budget()
    new = lm.copy()
    assert new.history == []
    assert len(lm.history) == 1
    new.kwargs["top_p"] = 1
    new.launch_kwargs["port"] = 2
    new.callbacks.clear()
    assert (lm.kwargs["top_p"], lm.launch_kwargs["port"], len(lm.callbacks)) == (0.5, 1, 1)
    assert (new.transport, new.limiter, new.budget, new.provider) == (lm.transport, lm.limiter, lm.budget, lm.provider)


def test_an_lm_can_be_copied_after_a_call():
    lm = an_lm()
    lm("hi", api_client=threading.Lock())
    assert lm.copy()("hi") == ["ok"]


def test_a_copy_updates_attributes_and_arguments():
    lm = LM("openai/gpt-4o-mini", top_p=0.5)
    new = lm.copy(model="openai/gpt-4o", temperature=0.7, seed=3, num_retries=1, cache=False)
    assert (new.model, new.num_retries, new.cache) == ("openai/gpt-4o", 1, False)
    assert new.kwargs == {"temperature": 0.7, "max_tokens": 1000, "top_p": 0.5, "seed": 3}
    assert lm.kwargs == {"temperature": 0.0, "max_tokens": 1000, "top_p": 0.5}
    assert lm.model == "openai/gpt-4o-mini"


def test_a_copy_with_another_model_has_its_provider_and_transport():
    lm = LM("openai/gpt-4o-mini")
    assert isinstance(lm.copy(model="local/smollm2").provider, LocalProvider)
    assert lm.copy(model="fake/x")("hi", cache=False)
    assert not isinstance(LM("fake/x").copy(model="openai/gpt-4o").transport, FakeTransport)
    assert isinstance(lm.copy(model="somewhere/else").provider, Provider)


def test_a_copy_with_a_cache_uses_it(tmp_path):
    own = Cache(tmp_path / "own")
    new = LM("fake/m").copy(cache=own)
    new("hi")
    assert new.cache is True
    assert own.stats()["entries"] == 1
    own.close()


def test_deepcopy_keeps_the_history():
    lm = an_lm()
    lm("hi")
    new = copy.deepcopy(lm)
    assert [entry["prompt"] for entry in new.history] == ["hi"]
    new.history.clear()
    assert len(lm.history) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "openai/gpt-4o-mini"},
        {"model": "openai/gpt-4o-mini", "temperature": 0.3, "max_tokens": None, "top_p": 0.9, "stop": ["x"], "seed": 1},
        {"model": "openai/o3", "temperature": 1.0, "max_tokens": 20_000, "reasoning_effort": "low"},
        {"model": "openai/gpt-5", "temperature": None, "max_tokens": None, "model_type": "responses"},
        {
            "model": "local/smollm2",
            "model_type": "text",
            "cache": False,
            "cache_in_memory": False,
            "num_retries": 2,
            "launch_kwargs": {"port": 0, "backend": "llamacpp"},
            "train_kwargs": {"epochs": 1},
            "finetuning_model": "local/other",
            "api_base": "http://127.0.0.1:8000/v1",
            "timeout": 3,
        },
    ],
)
def test_a_dumped_state_rebuilds_the_lm(arguments):
    lm = LM(**arguments)
    state = json.loads(json.dumps(lm.dump_state()))
    again = LM.load_state(state)
    assert again.dump_state() == lm.dump_state() == state
    assert again.kwargs == lm.kwargs
    for name, value in arguments.items():
        if hasattr(lm, name):
            assert getattr(again, name) == value


def test_state_holds_no_secret(tmp_path):
    lm = LM(
        "bedrock/x",
        api_key=KEY,
        headers={"Authorization": KEY},
        extra_headers={"x-api-key": KEY},
        aws_secret_access_key=KEY,
        aws_session_token=KEY,
        vertex_credentials=KEY,
        launch_kwargs={"env": {"HF_TOKEN": KEY}, "api_key": KEY, "port": 1},
        train_kwargs={"wandb_api_key": KEY, "epochs": 2},
        cache=Cache(tmp_path),
        stop_token_ids=[7],
        max_tokens=5,
    )
    state = lm.dump_state()
    assert KEY not in json.dumps(state)
    assert (state["launch_kwargs"], state["train_kwargs"]) == ({"env": {}, "port": 1}, {"epochs": 2})
    assert (state["stop_token_ids"], state["max_tokens"], state["cache"]) == ([7], 5, True)


def test_a_dumped_state_is_a_copy():
    lm = LM("fake/m", launch_kwargs={"port": 1}, stop=["x"])
    state = lm.dump_state()
    state["launch_kwargs"]["port"] = 2
    state["stop"].append("y")
    assert (lm.launch_kwargs, lm.kwargs["stop"]) == ({"port": 1}, ["x"])
