"""What installed packages add: found by its name, recorded with its version, and not run from capsules unasked."""

import shutil
import sys
from pathlib import Path

import pytest

import runner
from runner.errors import ConfigError, DataError, RecordError
from tests.support.records import play

CODE = """
def make(word="Paris", broken=False):
    if broken:
        raise RuntimeError("no")
    return lambda output, target, row: float("nan") if word == "oops" else word in output
"""
PARTS = """
from runner.adapters import ChatAdapter
from runner.types import Choice, Response, Usage


def rows(count=2, broken=False):
    for number in range(count):
        if broken:
            raise OSError("the table is locked")
        yield {"id": str(number), "question": f"question {number}"}


class Upper(ChatAdapter):
    mark = ""

    def parse(self, text):
        return {"said": text.upper() + self.mark}


def upper(prompt, mark="!"):
    made = Upper(prompt)
    made.mark = mark
    return made


def twice(word="again"):
    async def answer(row, lm):
        (first,) = await lm.acall(row["question"])
        (second,) = await lm.acall(f"{word}: {first}")
        return second

    return answer


class Parrot:
    def prepare(self, request, connection):
        pass

    def complete(self, request, connection, hear=None):
        said = request.messages[-1]["content"]
        return Response(choices=[Choice(f"heard {said}", "stop")], usage=Usage(1, 1, 2))

    async def acomplete(self, request, connection, hear=None):
        return self.complete(request, connection, hear)

    async def aclose(self):
        pass


def not_a_function():
    return 5
"""
POINTS = """
[ostinato.scorers]
acme = acme_scorers:make
[ostinato.sources]
acme = acme_parts:rows
[ostinato.adapters]
upper = acme_parts:upper
[ostinato.solvers]
twice = acme_parts:twice
wrong = acme_parts:not_a_function
[ostinato.transports]
parrot = acme_parts:Parrot
"""


@pytest.fixture(autouse=True)
def package(in_tmp, monkeypatch):
    """A package that declares entry points, as an installer would leave it."""
    site = Path("site").absolute()
    facts = site / "acme_scorers-1.2.dist-info"
    facts.mkdir(parents=True)
    (site / "acme_scorers.py").write_text(CODE)
    (site / "acme_parts.py").write_text(PARTS)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-scorers\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(site)
    yield site
    for name in ("acme_scorers", "acme_parts"):
        sys.modules.pop(name, None)


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


ROWS = ["data=plugin", "data.source=acme", "data.id=id", "scoring=none", "prompt.user='{{ question }}'"]
SERVER = ["model=server", "model.api_base=http://127.0.0.1:9/v1", "execution.orchestrator=none", "model.transport=parrot"]


def test_rows_adapter_solver_and_transport_of_a_package_are_used_and_its_version_is_recorded():
    words = [*ROWS, "+data.params.count=3", "adapter=plugin", "adapter.name=upper", "+adapter.params.mark=?"]
    run = runner.load(runner.run(overrides=[*SERVER, *words, "solver=plugin", "solver.name=twice"]).folder)
    samples = list(run.samples())
    assert [sample.output for sample in samples] == [f"heard again: heard question {number}" for number in range(3)]
    assert samples[0].parsed == {"said": "HEARD AGAIN: HEARD QUESTION 0?"}
    assert [len(sample.steps) for sample in samples] == [2, 2, 2]
    assert run.manifest["data"]["name"] == "acme"
    assert run.manifest["environment"]["packages"]["acme-scorers"] == "1.2"


def test_a_capsule_runs_what_packages_have_added_only_if_it_is_trusted():
    plain = runner.pack(runner.run(overrides=[*SERVER, *ROWS]).folder, "plain.ostinato").file
    assert (runner.replay(plain).outputs, runner.replay(plain).environment) == (2, [])
    for name, words in {"adapter": ["adapter.name=upper"], "solver": ["solver.name=twice"]}.items():
        folder = runner.run(overrides=[*SERVER, *ROWS, f"{name}=plugin", *words]).folder
        packed = runner.pack(folder, f"{name}.ostinato").file
        with pytest.raises(RecordError, match="--trust-code runs it"):
            runner.replay(packed)
        assert runner.replay(packed, trust_code=True).outputs == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.source=acne"], r"data.source: there is no data source 'acne'; did you mean 'acme'\? \(installed: acme\)"),
        (["adapter=plugin", "adapter.name=uper"], r"adapter.name: there is no adapter 'uper'.* \(installed: upper\)"),
        (["solver=plugin", "solver.name=thrice"], r"solver.name: there is no solver 'thrice'.* \(installed: twice, wrong\)"),
        (["model.transport=litelm"], r"did you mean 'litellm'\? \(installed: parrot; without a package: auto, direct, litellm\)"),
        (["adapter=plugin", "adapter.name=upper", "+adapter.params.other=1"], "cannot be made: TypeError"),
        (["solver=plugin", "solver.name=wrong"], r"from acme-scorers 1.2\) returned a int; it must return a function"),
        (["+data.params.broken=true"], r"data source 'acme' \(.*\) failed: OSError: the table is locked"),
    ],
)
def test_a_part_that_is_unknown_or_broken_says_so_before_anything_is_asked(words, told):
    with pytest.raises((ConfigError, DataError), match=told):
        runner.run(overrides=[*SERVER, *ROWS, *words])
    assert not list(Path("runs").glob("*/2*"))


def test_a_capsule_has_the_rows_of_a_package_and_needs_none_to_be_replayed(package):
    packed = runner.pack(runner.run(overrides=[*SERVER, *ROWS]).folder, "run.ostinato").file
    shutil.rmtree(package)
    assert runner.replay(packed).outputs == 2
