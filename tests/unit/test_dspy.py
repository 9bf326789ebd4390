"""dspy over `runner.dspy.LM`, and ``solver=dspy``. Skipped where dspy is not installed (tests/README.md says how to run it)."""

import asyncio
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import runner
from runner.errors import BudgetExceeded, ConfigError
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from tests.support.server import Reply, Server

dspy = pytest.importorskip("dspy", reason="dspy is not installed: .ci/run tests it in environments of its own")

from runner.cost.budget import Budget  # noqa: E402 - after the skip
from runner.dspy import LM  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("in_tmp"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*experimental"),  # optuna, of its own features
]

ROWS = ["data=inline", "data.rows=[{id: a, question: one, n: 1}, {id: b, question: two, n: 2}]", "data.id=id"]
COT = ["solver=dspy", "solver.module=dspy:ChainOfThought", "solver.params={signature: 'question -> answer'}"]
FILE = """
import dspy
from hints import HINT

class Two(dspy.Module):
    def __init__(self, style="short"):
        super().__init__()
        self.draft = dspy.Predict("question -> draft")
        self.final = dspy.ChainOfThought(f"draft, hint -> answer")

    def forward(self, question):
        return self.final(draft=self.draft(question=question).draft, hint=HINT)
"""


def fields(call):
    """Answer in the form of dspy's chat adapter: every output field that it asks for."""
    asked = call.body["messages"][-1]["content"]
    wanted = re.findall(r"\[\[ ## (\w+) ## \]\]", asked.rpartition("Respond with")[2])[:-1]
    echo = asked.partition("## ]]\n")[2].partition("\n")[0]
    return Reply("".join(f"[[ ## {name} ## ]]\n{echo}!\n\n" for name in wanted) + "[[ ## completed ## ]]")


def lm_of(server, **more):
    return LM("openai/any", api_base=server.url, api_key="none", **more)


def base(server):
    return ["model=server", f"model.api_base={server.url}", "execution.orchestrator=none", "prompt=default", "scoring=none"]


def test_programs_are_predicted_evaluated_tracked_and_cached():
    seen = []

    class Watch(dspy.utils.callback.BaseCallback):
        def on_lm_start(self, call_id, instance, inputs):
            seen.append("start")

        def on_lm_end(self, call_id, outputs, exception=None):
            seen.append("end")

    with Server(fields) as server:
        lm = lm_of(server, callbacks=[Watch()])
        program = dspy.ChainOfThought("question -> answer")
        with dspy.context(lm=lm, track_usage=True):
            said = program(question="why")
            assert (said.answer, said.reasoning) == ("why!", "why!")
            assert said.get_lm_usage()["openai/any"]["total_tokens"] == 10
            assert program(question="why").answer == "why!"
            assert asyncio.run(program.acall(question="how")).answer == "how!"
            rows = [dspy.Example(question=f"q{n}", answer=f"q{n}!").with_inputs("question") for n in range(8)]
            metric = dspy.evaluate.answer_exact_match
            evaluate = dspy.Evaluate(devset=rows, metric=metric, num_threads=4, display_progress=False)
            assert float(getattr(found := evaluate(program), "score", found)) == 100.0
        assert len(server.calls) == 10  # `why` was asked once
    assert (len(lm.history), [entry["cache_hit"] for entry in lm.history[:2]]) == (11, [False, True])
    assert lm.inner.history == []
    assert seen[:2] == ["start", "end"]


def test_copies_and_states_are_those_of_the_inner_lm():
    lm = LM("openai/any", api_base="http://127.0.0.1:9/v1", api_key="sk-proj-abcdefghijklmnop1234", temperature=0.3)
    copy = lm.copy(temperature=0.9, rollout_id=3)
    assert (lm.kwargs["temperature"], copy.kwargs["temperature"], copy.kwargs["rollout_id"]) == (0.3, 0.9, 3)
    assert copy.inner.keeper == copy._keep
    assert "sk-proj" not in json.dumps(lm.dump_state())
    again = LM.load_state(lm.dump_state())
    assert (again.model, again.kwargs["temperature"]) == ("openai/any", 0.3)
    program = dspy.Predict("question -> answer")
    program.set_lm(lm)
    assert isinstance(program.deepcopy().predictors()[0].lm, dspy.BaseLM)
    assert program.dump_state()["lm"]["model"] == "openai/any"


def optimised(lm, optimiser):
    """Optimise a program over six rows."""
    rows = [dspy.Example(question=f"q{n}", answer=f"q{n}!").with_inputs("question") for n in range(6)]
    metric = dspy.evaluate.answer_exact_match
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm):
        if optimiser == "BootstrapFewShot":
            return dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=6).compile(program, trainset=rows)
        settings = {"auto": None, "num_candidates": 2, "num_threads": 2, "max_bootstrapped_demos": 1, "verbose": False}
        teacher = dspy.MIPROv2(metric=metric, **settings)
        unasked = {"requires_permission_to_run": False} if dspy.__version__ < "3" else {}
        return teacher.compile(program, trainset=rows, num_trials=2, minibatch=False, **unasked)


OPTIMISERS = ["BootstrapFewShot", pytest.param("MIPROv2", marks=pytest.mark.skipif(not find_spec("optuna"), reason="no optuna"))]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_an_optimiser_ends_within_a_budget_that_suffices(optimiser):
    with Server(fields) as server:
        lm = lm_of(server)
        with lm.within(Budget(requests=200)) as budget:
            made = optimised(lm, optimiser)
        assert budget.spent == {"usd": 0.0, "tokens": 10 * len(server.calls), "requests": len(server.calls)}
        assert (len(server.calls) > 5, lm.inner.budget) == (True, None)
        with dspy.context(lm=lm):
            assert made(question="new").answer == "new!"


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("requests", [1, 3, 5])
def test_a_spent_budget_ends_an_optimiser_wherever_it_is_and_what_was_spent_is_said(optimiser, requests):
    with Server(fields) as server:
        lm = lm_of(server)
        spent = rf"spent: {requests} requests?, {10 * requests} tokens, "
        with pytest.raises(BudgetExceeded, match=spent) as told, lm.within(Budget(requests=requests)):
            optimised(lm, optimiser)
        assert "resume" not in str(told.value)
        assert len(server.calls) == requests
        with pytest.raises(BudgetExceeded):  # nor may threads that dspy has left running ask for more
            lm("after it")
        with lm.within(Budget(requests=1)):
            assert lm("with another one")
        assert len(server.calls) == requests + 1


def test_a_spent_budget_ends_an_evaluation_in_which_dspy_would_score_zeros():
    rows = [dspy.Example(question=f"q{n}", answer=f"q{n}!").with_inputs("question") for n in range(6)]
    evaluate = dspy.Evaluate(devset=rows, metric=dspy.evaluate.answer_exact_match, num_threads=3, display_progress=False)
    with Server(fields) as server:
        lm = lm_of(server)
        with dspy.context(lm=lm), pytest.raises(BudgetExceeded), lm.within(Budget(requests=2)):
            evaluate(dspy.Predict("question -> answer"))
        assert len(server.calls) == 2


def test_a_program_is_run_packed_and_replayed(tmp_path, monkeypatch):
    Path("flow.py").write_text(FILE)
    Path("hints.py").write_text("HINT = 'be brief'\n")
    with Server(fields) as server:
        done = runner.run(overrides=[*base(server), *ROWS, "solver=dspy", "solver.module=flow.py:Two"])
        asked = len(server.calls)
        again = runner.run(overrides=[*base(server), *ROWS, "solver=dspy", "solver.module=flow.py:Two"])
        assert (asked, len(server.calls)) == (4, 4)
        assert (again.summary.requests, again.summary.cache_hits) == (0, 2)
    first = next(sample for sample in RunFolder.open(done.folder).samples() if sample.id == "a")
    assert (first.status, first.output, first.parsed) == ("ok", "one!!", {"reasoning": "one!!", "answer": "one!!"})
    assert len(first.steps) == 2
    capsule = pack(done.folder, "it.ostinato").file.resolve()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "elsewhere"))
    assert replay(capsule, trust_code=True).outputs == 2


def test_a_saved_program_brings_its_demos_and_not_its_lm():
    made = dspy.ChainOfThought("question -> answer")
    made.predictors()[0].demos = [dspy.Example(question="seen", reasoning="r", answer="a")]
    made.set_lm(LM("openai/other", api_base="http://127.0.0.1:9/v1", api_key="none"))
    made.save("saved.json")
    with Server(fields) as server:
        done = runner.run(overrides=[*base(server), *ROWS, *COT, "solver.program=saved.json"])
        assert [message["role"] for message in server.calls[0].body["messages"]] == ["system", "user", "assistant", "user"]
    assert done.summary.ok == 2
    assert replay(pack(done.folder, "it.ostinato").file, trust_code=True).outputs == 2


def test_failures_are_errors_and_no_zeros():
    with Server(lambda call: Reply("no fields here")) as server:
        done = runner.run(overrides=[*base(server), *ROWS, *COT])
    samples = list(RunFolder.open(done.folder).samples())
    assert {(sample.status, sample.error.code) for sample in samples} == {("error", "solver")}
    assert "AdapterParseError" in samples[0].error.message
    assert samples[0].scores == {}
    with Server(fields) as server:
        done = runner.run(overrides=[*base(server), *ROWS, *COT[:2], "solver.params={signature: 'topic -> answer'}"])
    (sample, _) = RunFolder.open(done.folder).samples()
    assert (sample.error.code, "no column 'topic'" in sample.error.message) == ("data", True)
    for more, told in [
        (["solver.module=dspy:Nothing"], "is not a class of dspy programs"),
        (["solver.params.signature=5"], "cannot be made with"),
        (["solver.program=gone.json"], "solver.program: gone.json"),
        (["solver.program=saved.pkl"], "pickles are not read"),
    ]:
        with pytest.raises(ConfigError, match=told):
            runner.run(overrides=["model=fake", *base(server)[2:], *ROWS, *COT, *more])
