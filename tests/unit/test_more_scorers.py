"""Scorers by libraries, scorers made of others, quantities as scores, several answers, and pass@k."""

import itertools

import pytest

import runner
from runner import build
from runner.adapters import JsonAdapter, Prompt
from runner.batch.asker import Asker
from runner.batch.tally import Tally
from runner.config.compose import compose
from runner.errors import ConfigError, DataError
from runner.scoring import Bleu, Chrf, Combined, Contains, Edit, Exact, JsonMatch, JsonSchema, Measure, Not, Numeric, Rouge
from runner.stats.pass_at import pass_at_k
from runner.types import Choice, Row, Sample, Usage
from tests.support.scripted import an_lm
from tests.support.server import Reply, Server

pytestmark = pytest.mark.usefixtures("in_tmp")


def score(scorer, output, target=None, parsed=None):
    return scorer.score(output, target, {}, parsed)


def test_edit_is_one_minus_the_distance_over_the_length():
    pytest.importorskip("rapidfuzz")
    for output, target, expected in [
        ("kitten", "sitting", 1 - 3 / 7),
        (" Paris\n", "Paris", 1),
        ("Cafe\u0301", "Café", 1),
        ("5", "-5", 0.5),
        ("", "abc", 0),
        ("b", ["a", "b"], 1),
        ("42", 42.0, 1),
    ]:
        assert score(Edit(), output, target) == pytest.approx(expected), output
    assert score(Edit(ignore_case=True), "PARIS", "paris") == 1


def test_chrf_and_bleu_are_between_0_and_1():
    pytest.importorskip("sacrebleu")
    for scorer in (Chrf(), Chrf(word_order=2), Bleu(), Bleu(tokenize="zh")):
        assert score(scorer, "The cat sat on the mat.", "The cat sat on the mat.") == pytest.approx(1)
        assert 0 < score(scorer, "The cat sat on a mat.", ["no", "The cat sat on the mat."]) < 1
        assert score(scorer, " ", "The cat") == 0
        with pytest.raises(DataError, match="no target"):
            score(scorer, "a", None)
    assert score(Chrf(), "北京", "北京") == pytest.approx(1)
    assert 0 < score(Chrf(), "北京市", "北京") < 1


def test_rouge_counts_words_of_every_script():
    pytest.importorskip("rouge_score")
    assert score(Rouge(), "The cat sat.", "a cat sat") == 1
    assert score(Rouge(variant="rouge1"), "北京市", "北京") == pytest.approx(0.8)  # with rouge-score's own words it is 0
    assert score(Rouge(variant="rouge1", measure="recall"), "北京市", "北京") == 1
    assert score(Rouge(variant="rouge1", measure="precision"), "北京市", "北京") == pytest.approx(2 / 3)
    assert score(Rouge(variant="rouge2"), "b a", "a b") == 0
    assert score(Rouge(), "-5", "5") == 0


@pytest.mark.parametrize(
    ("kind", "package"), [(Edit, "rapidfuzz"), (Chrf, "sacrebleu"), (Bleu, "sacrebleu"), (Rouge, "rouge-score")]
)
def test_without_its_library_a_scorer_says_what_to_install(kind, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}: pip install 'ostinato\[scorers\]'"):
        kind()


def test_json_schema_asks_whether_the_answer_follows_it():
    scorer = JsonSchema({"type": "object", "required": ["a"]})
    assert score(scorer, 'Sure:\n```json\n{"a": 1}\n```') == 1
    assert score(scorer, '{"b": 1}') == 0
    assert score(scorer, "nothing", parsed={"a": 1}) == 1
    assert (scorer.reads('{"b": 1}', None, None), scorer.reads("none", None, None)) == (True, False)
    with pytest.raises(ConfigError, match=r"scoring\.schema is not a valid JSON Schema"):
        JsonSchema({"type": "objekt"})


def test_scorers_combine():
    both, either = Combined("all", {"a": Contains(), "b": Numeric()}), Combined("any", {"a": Exact(), "b": Numeric()})
    for output, all_of_them, any_of_them in [("5", 1, 1), ("5.0", 1, 1), ("25, or 6", 0, 0), ("none", 0, 0)]:
        assert (score(both, output, "5"), score(either, output, "5")) == (all_of_them, any_of_them), output
    assert (both.reads("5", "5", None), Combined("all", {"a": Numeric()}).reads("none", "5", None)) == (True, False)
    assert score(Not(Contains()), "I am sorry", "sorry") == 0
    assert score(Not(Contains()), "42", "sorry") == 1
    with pytest.raises(DataError, match="no target"):
        Combined("all", {"a": Exact()}).check(None)


def test_a_quantity_is_a_score_or_keeps_a_bound():
    sample = Sample(id="a", latency_s=1.5, cost_usd=0.02, usage=Usage(10, 20, 30))
    found = {what: Measure(what).measure(sample, "two words") for what in ("latency_s", "cost_usd", "completion_tokens", "words")}
    assert found == {"latency_s": 1.5, "cost_usd": 0.02, "completion_tokens": 20.0, "words": 2.0}
    assert Measure("characters").measure(sample, "two words") == 9
    assert [Measure("latency_s", at_most=bound).measure(sample, "") for bound in (1, 2)] == [0, 1]
    assert Measure("latency_s").measure(Sample(id="cached"), "") is None
    assert Measure("prompt_tokens", at_most=5).measure(Sample(id="cached"), "") is None


def test_every_kind_of_scoring_is_built():
    pytest.importorskip("rapidfuzz")
    job = ["model=fake", "scoring=several"]
    parts = "{a: {kind: edit}, b: {kind: not, scorer: {kind: contains}}, c: {kind: all, scorers: {x: {kind: exact}}}, "
    parts += "d: {kind: any, scorers: {x: {kind: f1}, y: {kind: not, scorer: {kind: exact}}}}, e: {kind: measure, what: words}}"
    built = build.scorers(compose([*job, f"scoring.scorers={parts}"]).config())
    assert list(built) == ["a", "b", "c", "d", "e"]
    with pytest.raises(ConfigError, match="scoring 'all' has no scorers"):
        build.scorers(compose(["model=fake", "scoring=all"]).config())
    inside = "scoring.scorers={x: {kind: exact, refused: zero}}"
    with pytest.raises(ConfigError, match=r"scorers\.x: refused, .* apply to all scores"):
        compose(["model=fake", "scoring=any", inside]).config()
    quantity = compose(["model=fake", "scoring=measure", "data.target=null"]).config()
    assert list(build.scorers(quantity)) == ["latency_s"]


def test_pass_at_k_is_the_share_of_draws_with_a_right_answer():
    for n, right, k in itertools.product(range(1, 6), range(6), range(1, 6)):
        if right <= n and k <= n:
            draws = list(itertools.combinations([True] * right + [False] * (n - right), k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_in_the_summary_over_complete_rows():
    tally = Tally(9, repeats=3, pass_at=(1, 2))
    for row, values in {"a": (1, 1, 0), "b": (0, 0, 0), "c": (1,)}.items():
        for repeat, value in enumerate(values):
            tally.add(Sample(id=row, repeat=repeat, scores={"exact": float(value)}))
    found = {name: (passed.mean, passed.n) for name, passed in tally.passes().items()}
    assert found == {"exact.pass_at_1": (pytest.approx(1 / 3), 2), "exact.pass_at_2": (pytest.approx(0.5), 2)}
    assert Tally(1, repeats=1).passes() == {}


def played(server, *more):
    job = ["model=server", "model.name=m", f"model.api_base={server.url}", "execution.orchestrator=none", "cache.mode=off"]
    data = [
        "data=inline",
        "data.rows=[{id: a, q: x, t: 'yes'}]",
        "data.id=id",
        "data.target=t",
        "prompt.user={{ q }}",
        "scoring=exact",
    ]
    return runner.run(overrides=[*job, *data, *more])


@pytest.mark.parametrize(("how", "expected"), {"first": 1.0, "mean": 2 / 3, "best": 1.0, "worst": 0.0}.items())
def test_all_answers_to_a_request_can_be_scored(how, expected):
    adapter = JsonAdapter(Prompt(user="q"), {"type": "object"})
    asker = Asker(an_lm(lambda *_: "yes"), adapter, {"json": JsonMatch(), "words": Measure("words")}, answers=how)
    texts = ['{"a": 1}', "none", '<think>{"a": 2}</think>{"a": 1}']
    sample = Sample(id="r", output=texts[0], parsed={"a": 1}, answers=[Choice(text=text) for text in texts])
    asker.score(sample, Row("r", {}, {"a": 1}))
    assert sample.scores == {"json": pytest.approx(expected), "words": 2.0}


def test_pass_at_k_needs_as_many_repeats():
    answers = itertools.cycle(["yes", "no"])
    with Server(lambda _call: Reply(next(answers))) as server:
        with pytest.raises(ConfigError, match=r"pass@3 needs 3 answers per row: sampling\.repeats=3"):
            played(server, "scoring.pass_at=[3]", "sampling.repeats=2")
        summary = played(server, "scoring.pass_at=[1,2]", "sampling.repeats=2").summary
    assert {name: found.mean for name, found in summary.scores.items()} == {
        "exact": 0.5, "exact.pass_at_1": 0.5, "exact.pass_at_2": 1.0,
    }  # fmt: skip
