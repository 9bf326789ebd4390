"""Formulas are compared by child processes: within a limit, in any thread, and again after one of them was ended."""

import importlib.util
import threading
from pathlib import Path

import pytest

from runner.errors import ConfigError, DataError
from runner.scoring import Math
from runner.scoring.mathpool import TIMED_OUT, Pool, Verdict

PROGRAM = """
import json, sys, time
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["gold"] == "slow":
        time.sleep(600)
    if asked["gold"] == "dies":
        sys.exit(1)
    print(json.dumps({"gold": True, "answer": True, "equal": asked["gold"] == asked["answer"]}), flush=True)
"""


@pytest.fixture
def pool(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    made = Pool(2, limit_s=0.2, program=program)
    yield made
    made.close()


def test_a_comparison_that_takes_too_long_or_kills_its_child_is_unknown(pool):
    assert pool.compare("x", "x") == Verdict(gold=True, answer=True, equal=True)
    assert pool.compare("slow", "x") == TIMED_OUT
    assert pool.compare("dies", "x") == TIMED_OUT
    assert pool.compare("x", "y") == Verdict(gold=True, answer=True, equal=False)


def test_threads_share_the_children(pool):
    found = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: pool.compare(str(n), str(n % 2))})) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n].equal for n in range(6)] == [True, True, False, False, False, False]


def test_a_child_that_cannot_start_is_a_config_error(tmp_path):
    program = tmp_path / "broken.py"
    program.write_text("import nothing_of_that_name")
    with pytest.raises(ConfigError, match="math-verify cannot be started"):
        Pool(1, limit_s=1.0, program=program).compare("x", "x")


def test_math_without_math_verify_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'ostinato\[math\]'"):
        Math(limit_s=3.25)


def test_plain_numbers_and_words_need_no_child(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    scorer = Math(limit_s=3.5)
    monkeypatch.setattr("subprocess.Popen", lambda *_args, **_options: pytest.fail("a child was started"))
    for output, target, expected in [
        ("#### 70,000", "70000", 1),
        ("So he makes \\boxed{\\$70{,}000}.", 70000.0, 1),
        ("\\boxed{\\frac{1}{2}}", "0.5", 1),
        ("It is \\boxed{\\text{Evelyn}}", "\\text{Evelyn}", 1),
        ("The answer is 18.", ["17", "18"], 1),
        ("10:30", "10:45", 0),
    ]:
        scorer.check(target)
        assert scorer.score(output, target, {}, None) == expected, output


def test_golds_are_parsed_before_the_run_and_answers_that_cannot_be_are_told_apart():
    pytest.importorskip("math_verify")
    scorer = Math()
    with pytest.raises(DataError, match="cannot be parsed as mathematics"):
        scorer.check("???")
    assert (scorer.score("\\boxed{x^2}", "x^2+1", {}, None), scorer.reads("\\boxed{x^2}", "x^2+1", None)) == (0.0, True)
    assert (scorer.score("\\boxed{???}", "x^2+1", {}, None), scorer.reads("\\boxed{???}", "x^2+1", None)) == (0.0, False)


def test_the_program_imports_nothing_of_ours():
    source = Path("runner/scoring/verifier.py").resolve()
    text = (source if source.exists() else Path(__file__).parents[2] / "runner/scoring/verifier.py").read_text("utf-8")
    assert "import runner" not in text
    assert "from runner" not in text
