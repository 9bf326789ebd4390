"""`runner.dspy.LM` where dspy's own would be: streaming, callbacks, attributes, states, training, agents. Skipped without it."""

import asyncio
import json
from pathlib import Path

import pytest

from runner.errors import ConfigError
from runner.network.retry import RetryPolicy
from runner.providers.base import Provider
from tests.support.server import Reply, Server, Status, Stream
from tests.support.streams import DONE, event
from tests.unit.test_dspy import fields, lm_of

dspy = pytest.importorskip("dspy", reason="dspy is not installed: .ci/run tests it in environments of its own")

from runner.dspy import LM  # noqa: E402 - after the skip

pytestmark = [pytest.mark.usefixtures("in_tmp"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

HEAD, TAIL = "[[ ## answer ## ]]\n", "\n\n[[ ## completed ## ]]"
LONG = ["0", *(f", {number}" for number in range(1, 24))]
"""The pieces of an answer. dspy 2.6 keeps the last ten back, and trims the first."""


def said(text, **ends):
    return event({"model": "any", "choices": [{"index": 0, "delta": {"content": text} if text else {}, **ends}]})


def whole(*pieces):
    """A streamed answer in these pieces."""
    return Stream((*map(said, (HEAD, *pieces, TAIL)), said("", finish_reason="stop"), DONE))


def streamed(lm, *, is_async=False):
    """Return the pieces of the field `answer`, and the prediction."""
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener], is_async_program=is_async)

    async def heard():
        with dspy.context(lm=lm):
            return [value async for value in program(question="why")]

    *pieces, prediction = asyncio.run(heard())
    return [piece.chunk for piece in pieces], prediction


@pytest.mark.parametrize("is_async", [False, True])
def test_the_pieces_of_an_answer_are_streamed_and_those_of_the_cache_are_not(is_async):
    with Server(whole(*LONG)) as server:
        lm = lm_of(server)
        pieces, prediction = streamed(lm, is_async=is_async)
        assert (len(pieces) > 3, "".join(pieces).strip()) == (True, "".join(LONG))
        assert prediction.answer == "".join(LONG)
        assert server.last.body["stream"] is True
        again, prediction = streamed(lm, is_async=is_async)
        assert ("".join(again), prediction.answer, len(server.calls)) == ("", "".join(LONG), 1)
    assert [entry["cache_hit"] for entry in lm.history] == [False, True]


def test_pieces_come_before_the_answer_has_ended_and_a_program_may_go_away():
    steps = tuple(map(said, (HEAD, *LONG)))
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener], is_async_program=True)

    async def first(lm):
        with dspy.context(lm=lm):
            return await asyncio.create_task(anext(program(question="why")))

    with Server(Stream(steps, then="hang")) as server:
        assert asyncio.run(first(lm_of(server))).chunk.strip()


def test_an_answer_that_broke_off_is_asked_again_and_not_heard_twice():
    broken = Stream(tuple(map(said, (HEAD, *LONG[:16]))), then="close")
    with Server(whole("another")) as server:
        server.script(broken)
        lm = lm_of(server)
        lm.inner.retry = RetryPolicy(max_attempts=2, base_s=0)
        pieces, prediction = streamed(lm)
    assert "".join(LONG).startswith(heard := "".join(pieces).lstrip())
    assert (heard[:6], prediction.answer) == ("0, 1, ", "another")


@pytest.mark.parametrize("call", ["sync", "async"])
def test_callbacks_of_dspy_and_of_the_lm_hear_of_calls_and_of_errors(call):
    heard = []

    class Watch(dspy.utils.callback.BaseCallback):
        def on_lm_start(self, call_id, instance, inputs):
            heard.append((call_id, instance, inputs["messages"]))

        def on_lm_end(self, call_id, outputs, exception=None):
            heard.append((call_id, outputs, exception and exception.code))

    with Server() as server, dspy.context(callbacks=[Watch()]):
        server.script(Reply("yes"), Status(400, "no"))
        lm = lm_of(server, callbacks=[Watch()])
        asked = [{"role": "user", "content": "ok?"}]
        ask = lm if call == "sync" else lambda **words: asyncio.run(lm.acall(**words))
        assert ask(messages=asked) == ["yes"]
        with pytest.raises(Exception, match="no"):
            ask(messages=[{"role": "user", "content": "and this?"}])
    ids = [entry[0] for entry in heard]
    assert [entry[1:] for entry in heard[:4]] == [(lm, asked), (lm, asked), (["yes"], None), (["yes"], None)]
    assert [entry[2] for entry in heard[6:]] == ["bad_request", "bad_request"]
    assert len(set(ids)) == 2


def test_its_attributes_are_those_of_the_inner_lm():
    with Server() as server:
        lm = lm_of(server, temperature=0.5, num_retries=2, finetuning_model="openai/base")
        assert (lm.model, lm.model_type, lm.num_retries, lm.cache) == ("openai/any", "chat", 2, True)
        assert (lm.finetuning_model, lm.launch_kwargs, lm.kwargs["temperature"]) == ("openai/base", {}, 0.5)
        lm("one"), lm("one")
        lm.cache = False
        lm("one")
        lm.kwargs["temperature"] = 0.7
        lm("one")
        assert [call.body["temperature"] for call in server.calls] == [0.5, 0.5, 0.7]
        with pytest.raises(NotImplementedError, match=r"ask by lm\(...\)"):
            lm.forward("one")
        lm.close()
        asyncio.run(lm.aclose())
    assert (len(server.calls), isinstance(lm, dspy.LM)) == (3, True)
    assert dspy.TwoStepAdapter(extraction_model=lm)


def test_the_developer_role_is_for_the_responses_api_and_an_engine_of_dspy_is_refused():
    asked = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why"}]
    with Server() as server:
        for kind, role in {"responses": "developer", "chat": "system"}.items():
            lm = lm_of(server, model_type=kind, use_developer_role=True).copy(temperature=0.5)
            assert lm(messages=asked)
            body = server.last.body
            assert (body.get("input") or body["messages"])[0]["role"] == role
            assert LM.load_state(lm.dump_state()).use_developer_role
    assert asked[0]["role"] == "system"
    with pytest.raises(ConfigError, match="engine: this LM asks through"):
        LM("openai/any", engine=object())
    assert "engine" not in LM("openai/any", engine="auto", _dspy_lm_class="other.LM").kwargs


def test_several_completions_and_the_history_of_a_module():
    with Server(fields) as server:
        program = dspy.Predict("question -> answer", n=2)
        with dspy.context(lm=(lm := lm_of(server))):
            found = program(question="why")
    assert (found.completions.answer, server.last.body["n"]) == (["why!", "why!"], 2)
    assert lm.history[-1]["usage"]["total_tokens"] == 10
    assert dspy.clients.base_lm.GLOBAL_HISTORY[-1] is lm.history[-1]
    lm.inspect_history()


def test_a_program_is_saved_with_its_lm_and_loaded_without_a_key():
    program = dspy.Predict("question -> answer")
    program.set_lm(LM("openai/any", api_base="http://127.0.0.1:9/v1", api_key="sk-proj-abcdefghijklmnop1234", temperature=0.3))
    program.save("saved.json")
    assert "sk-proj" not in Path("saved.json").read_text()
    again = dspy.Predict("question -> answer")
    trust = {"allow_unsafe_lm_state": True} if dspy.__version__ >= "3.3" else {}
    again.load("saved.json", **trust)
    assert (again.lm.model, again.lm.kwargs["temperature"]) == ("openai/any", 0.3)
    assert not {name for name in again.lm.kwargs if name.startswith("_")}
    if trust:  # before 3.3 dspy loads each LM as its own
        assert type(again.lm) is LM


class Trainer(Provider):
    """Trains at once."""

    finetunable = True

    def finetune(self, job, model, train_data, train_data_format=None, train_kwargs=None):
        self.seen = (model, train_data, str(train_data_format))
        return "openai/trained"


def test_training_gives_an_lm_for_dspy():
    with Server() as server:
        lm = lm_of(server, provider=(trainer := Trainer()))
        rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
        job = lm.finetune(rows, dspy.clients.utils_finetune.TrainDataFormat.CHAT)
        trained = job.result()
        assert (trainer.seen[:2], trainer.seen[2]) == (("openai/any", rows), "chat")
        assert (type(trained), trained.model, trained("hello")) == (LM, "openai/trained", ["ok"])
        assert server.last.body["model"] == "trained"


def test_bootstrap_finetune_trains_a_program():
    rows = [dspy.Example(question=f"q{n}", answer=f"q{n}!").with_inputs("question") for n in range(3)]
    with Server(fields) as server, dspy.context(experimental=True):
        program = dspy.Predict("question -> answer")
        program.set_lm(lm_of(server, provider=(trainer := Trainer())))
        made = dspy.BootstrapFinetune(metric=dspy.evaluate.answer_exact_match).compile(program, trainset=rows)
        assert len(trainer.seen[1]) == 3
        assert made.predictors()[0].lm.model == "openai/trained"
        assert made(question="new").answer == "new!"


def test_an_agent_calls_its_tools():
    def add(one: int, other: int) -> int:
        """Add two numbers."""
        return one + other

    def thinks(call):
        asked = call.body["messages"][-1]["content"]
        if "next_tool_name" not in asked.rpartition("Respond with")[2]:
            return fields(call)
        name, given = ("finish", {}) if "Observation" in asked or "observation" in asked else ("add", {"one": 2, "other": 3})
        parts = {"next_thought": "t", "next_tool_name": name, "next_tool_args": json.dumps(given)}
        return Reply("".join(f"[[ ## {part} ## ]]\n{text}\n\n" for part, text in parts.items()) + "[[ ## completed ## ]]")

    with Server(thinks) as server, dspy.context(lm=lm_of(server)):
        found = dspy.ReAct("question -> answer", tools=[add])(question="2 and 3?")
    assert (found.trajectory["observation_0"], found.trajectory["tool_name_1"]) in ((5, "finish"), ("5", "finish"))
    assert len(server.calls) == 3


def test_typed_fields_are_asked_for_as_json():
    answer = json.dumps({"label": "b", "sure": 0.5})
    signature = dspy.Signature("text -> label: Literal['a', 'b'], sure: float")
    with Server(Reply(answer)) as server, dspy.context(lm=lm_of(server), adapter=dspy.JSONAdapter()):
        found = dspy.Predict(signature)(text="x")
    assert (found.label, found.sure) == ("b", 0.5)
