"""Scorers of installed packages: found by their names, recorded with their versions, and not run from capsules unasked."""

import sys
from pathlib import Path

import pytest

import runner
from runner.errors import ConfigError
from tests.support.records import play

CODE = """
def make(word="Paris", broken=False):
    if broken:
        raise RuntimeError("no")
    return lambda output, target, row: float("nan") if word == "oops" else word in output
"""


@pytest.fixture(autouse=True)
def package(in_tmp, monkeypatch):
    """A package that declares a scorer, as an installer would leave it."""
    site = Path("site").absolute()
    facts = site / "acme_scorers-1.2.dist-info"
    facts.mkdir(parents=True)
    (site / "acme_scorers.py").write_text(CODE)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-scorers\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text("[ostinato.scorers]\nacme = acme_scorers:make\n")
    monkeypatch.syspath_prepend(site)
    yield
    sys.modules.pop("acme_scorers", None)


def test_a_scorer_of_a_package_is_used_and_its_version_is_recorded():
    folder = play("model.choices=[Paris,Rome]", "scoring=plugin", "scoring.name=acme", "+scoring.params.word=Rome")
    run = runner.load(folder)
    assert all(sample.scores == {"acme": float(sample.output == "Rome")} for sample in run.samples())
    assert run.manifest["scorers"]["acme"] == {"kind": "Plugin", "distribution": "acme-scorers 1.2"}
    packed = runner.pack(folder, "run.ostinato")
    assert runner.replay(packed.file).not_scored == ["acme"]
    trusted = runner.replay(packed.file, trust_code=True)
    assert (trusted.not_scored, trusted.identical) == ([], True)


def test_what_it_returns_is_a_number_or_an_error_of_the_row():
    run = runner.load(play("scoring=plugin", "scoring.name=acme", "+scoring.params.word=oops"))
    assert {sample.error.code for sample in run.samples()} == {"scoring"}
    assert "acme-scorers 1.2) returned nan" in next(run.samples()).error.message


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scoring.name=acne"], "there is no scorer 'acne'; did you mean 'acme'"),
        (["scoring.name=acme", "+scoring.params.broken=true"], r"from acme-scorers 1.2\) cannot be made: RuntimeError: no"),
        (["scoring.name=acme", "+scoring.params.other=1"], "unexpected keyword argument 'other'"),
    ],
    ids=["unknown", "broken", "other"],
)
def test_what_cannot_be_made_says_so_before_anything_is_asked(words, told):
    with pytest.raises(ConfigError, match=told):
        play("scoring=plugin", *words)
