"""Sweeps, read from the command line and from YAML: the cells that they make, and what is refused before anything is written."""

from decimal import Decimal
from pathlib import Path

import pytest
from hydra.core.override_parser.types import RangeSweep
from hypothesis import given
from hypothesis import strategies as st

from runner.config import cells as cells_module
from runner.config.cells import combinations, narrowed
from runner.config.grammar import parsed, text_of
from runner.config.load import load
from runner.config.overrides import bare_keys
from runner.config.ranges import for_search, nearest, values_of
from runner.config.schema.sweep import Sweep
from runner.config.sweepers import split
from runner.errors import ConfigError, DataError
from runner.sweeps.forecast import outlook
from runner.sweeps.plan import Plan

pytestmark = pytest.mark.usefixtures("in_tmp")

FAKE = ["model=fake", "data.limit=3"]


def cells(*overrides):
    """The values of the cells that a command line makes, in order."""
    return [cell.values for cell in Plan([*FAKE, *overrides]).cells.values()]


def experiment(text, name="mine"):
    folder = Path("conf/experiment")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    return f"experiment={name}"


# -- the command line


def test_combinations_follow_the_order_of_the_command_line():
    assert cells("sampling.temperature=0,0.5", "sampling.seed=1,2") == [
        {"sampling.temperature": 0, "sampling.seed": 1},
        {"sampling.temperature": 0, "sampling.seed": 2},
        {"sampling.temperature": 0.5, "sampling.seed": 1},
        {"sampling.temperature": 0.5, "sampling.seed": 2},
    ]


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("sampling.seed=range(0,3)", [0, 1, 2]),
        ("sampling.temperature=range(0,1.5,0.5)", [0, 0.5, 1.0]),
        ("sampling.temperature=range(0.7,1,0.1)", [0.7, 0.8, 0.9]),
        ("sampling.temperature=range(1,0.7,-0.1)", [1.0, 0.9, 0.8]),
        ("sampling.temperature=sort(range(1,0.7,-0.1))", [0.8, 0.9, 1.0]),
        ("sampling.temperature=float(range(0,3))", [0.0, 1.0, 2.0]),
        ("sampling.seed=choice(7,8)", [7, 8]),
        ("sampling.stop=[a],[b,c]", [["a"], ["b", "c"]]),
        ("sampling.top_p=null,0.5", [None, 0.5]),
        ("+model.params.top_k=1,2", [1, 2]),
        ("model.params.top_k=1,2", [1, 2]),
        ('model.params.bias={"50256":-1},{50257: 1}', [{"50256": -1}, {"50257": 1}]),
        ("model.params.bias=choice({'7':[{\"8\":x}]},{})", [{"7": [{"8": "x"}]}, {}]),
        ("prompt.system='Be brief, please.','No.'", ["Be brief, please.", "No."]),
        ("prompt.user=choice('{{ country }}?','${x} {{ country }}')", ["{{ country }}?", "${x} {{ country }}"]),
    ],
)
def test_hydras_grammar_of_sweeps_lists_the_values(override, values):
    found = cells(override)
    (key,) = found[0]
    assert [cell[key] for cell in found] == values


def test_a_glob_selects_options_of_a_group():
    assert cells("scoring=glob([ex*,f1*])") == [{"scoring": "exact"}, {"scoring": "f1"}]


def test_a_comma_in_a_prompt_does_not_make_a_sweep():
    asked = split(["prompt.system=Be brief, please.", "sampling.seed=1,2"])
    assert (asked.fixed, list(asked.varied)) == (["prompt.system=Be brief, please."], ["sampling.seed"])


def test_model_ids_need_no_quotes():
    plan = Plan(["model=smollm2,openai/gpt-4o-mini,ollama/llama3:8b", "sampling.temperature=0,1"])
    models = {cell.values["model"]: cell.config.model.name for cell in plan.cells.values()}
    assert models == {"smollm2": "smollm2", "openai/gpt-4o-mini": "openai/gpt-4o-mini", "ollama/llama3:8b": "ollama/llama3:8b"}
    assert len(plan.cells) == 6


def test_the_config_of_a_cell_equals_the_composed_one():
    from runner.config.compose import compose

    varied = ["sampling.temperature=0.5", "model.params.a=[1,x]", "prompt.system=costs ${x}", "data.limit=2", "scoring=numeric"]
    plan = Plan(
        [
            "model=fake",
            "prompt.system='costs ${x}','y'",
            *(f"{one},{one.partition('=')[2]}" for one in varied if "system" not in one),
        ]
    )
    assert next(iter(plan.cells.values())).config == compose(["model=fake", *varied]).config()


def test_values_may_interpolate_varied_keys():
    file = experiment("name: t-${sampling.seed}\nsampling: {max_tokens: '${sampling.seed}'}")
    configs = [cell.config for cell in Plan([*FAKE, file, "sampling.seed=1,2"]).cells.values()]
    assert [(config.name, config.sampling.max_tokens) for config in configs] == [("t-1", 1), ("t-2", 2)]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=5))
def test_any_value_round_trips_through_hydras_grammar(value):
    assert parsed(f"key={text_of(value)}") == ("key", value)


@given(
    st.dictionaries(st.integers(0, 10**9).map(str) | st.from_regex(r"[a-z][a-z0-9_ .,:=()-]*[a-z]", fullmatch=True), st.text())
)
def test_keys_of_mappings_round_trip_as_texts(value):
    assert parsed(f"key={text_of([value])}") == ("key", [value])


def test_a_key_that_the_grammar_cannot_express_is_refused():
    with pytest.raises(ConfigError, match="cannot be written in Hydra's grammar"):
        text_of({"1e3": 1})


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ('{"7":x, \'b\' : {"c":1}}', "{7:x, b : {c:1}}"),
        ('["7", {"a":"b: {\\"c\\": 1}"}]', '["7", {a:"b: {\\"c\\": 1}"}]'),  # only keys, and nothing inside a text
        ('{"a b":1}', '{"a b":1}'),
        ('"{\\"a\\": 1}"', '"{\\"a\\": 1}"'),
        ("it's {a: b}", "it's {a: b}"),
    ],
)
def test_quoted_keys_lose_their_quotes(text, bare):
    assert bare_keys(text) == bare


@given(st.integers(-50, 50), st.integers(1, 60), st.integers(1, 20), st.integers(0, 4))
def test_ranges_are_counted_in_decimals_as_written(start, length, step, digits):
    first, end, by = (Decimal(number).scaleb(-digits) for number in (start, start + length, step))
    found = values_of("key", RangeSweep(start=float(first), stop=float(end), step=float(by)))
    assert found == [float(first + by * index) for index in range(-(-length // step))]
    search = for_search("key", RangeSweep(start=float(first), stop=float(end), step=float(by)), discrete=False)
    assert f"{max(found)!r}" in search
    assert all(nearest(repr(value + 1e-13), found) == value for value in found)


# -- YAML


def test_a_section_makes_the_same_cells_as_the_command_line():
    file = experiment(
        """
sweep:
  grid:
    sampling.temperature: [0, 0.5]
    sampling.seed: {range: [0, 4, 2]}
  zip:
    prompt.system: [a, b]
    sampling.max_tokens: [10, 20]
  cells:
    - {sampling.temperature: 1.5}
  exclude:
    - {sampling.temperature: 0.5, prompt.system: b}
"""
    )
    found = cells(file)
    assert len(found) == 2 * 2 * 2 - 2 + 1
    assert found[0] == {"sampling.temperature": 0, "sampling.seed": 0, "prompt.system": "a", "sampling.max_tokens": 10}
    assert found[-1] == {"sampling.temperature": 1.5}
    assert {cell["sampling.max_tokens"] for cell in found if cell.get("prompt.system") == "b"} == {20}
    assert not [cell for cell in found if cell["sampling.temperature"] == 0.5 and cell.get("prompt.system") == "b"]


def test_the_command_line_overrides_keys_of_the_section_and_crosses_the_rest():
    file = experiment("sweep: {grid: {sampling.temperature: [0, 1]}, cells: [{sampling.top_p: 0.5}]}")
    assert cells(file, "sampling.temperature=0.3") == [{"sampling.top_p": 0.5}]
    assert cells(file, "sampling.temperature=0.3,0.4", "sampling.seed=1,2") == [
        {"sampling.top_p": 0.5, "sampling.temperature": temperature, "sampling.seed": seed}
        for temperature in (0.3, 0.4)
        for seed in (1, 2)
    ]


def test_hydras_sweeper_params_vary_too():
    file = experiment("hydra: {sweeper: {params: {sampling.temperature: '0,1', sampling.seed: 'range(1,3)'}}}")
    assert len(cells(file)) == 4
    assert cells(file, "sampling.seed=7") == [{"sampling.temperature": 0}, {"sampling.temperature": 1}]


def test_duplicate_cells_are_dropped():
    section = Sweep(grid={"a": [1, 2]}, cells=[{"a": 2}, {"a": 3}])
    assert combinations(section, {}) == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert combinations(Sweep(), {"a": [1, 2, 1]}) == [{"a": 1}, {"a": 2}]
    assert narrowed(section, ["a"]) == Sweep()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"gird": {}}, "sweep.gird: unknown key; did you mean 'grid'?"),
        ({"grid": {"a": []}}, "grid.a: has no values"),
        ({"grid": {"a": {"rnage": [0, 1]}}}, "grid.a: takes a list of values, {range: "),
        ({"grid": {"a": {"range": [0, 1, 0]}}}, "the step of a range cannot be 0"),
        ({"grid": {"a": 5}}, "sweep.grid"),
        ({"zip": {"a": [1, 2], "b": [1]}}, "zip: its keys change together, so each needs the same number of values: a 2, b 1"),
        ({"direction": "up"}, "sweep.direction: 'up' is not allowed; allowed: "),
    ],
)
def test_an_invalid_section_is_refused(section, message):
    with pytest.raises(ConfigError) as error:
        load({"sweep": section})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sampling.temperture=0,1"], "sampling.temperture: unknown key; did you mean 'temperature'?"),
        (["sampling.temperature=0,hot"], "sampling.temperature: expected float | null, got str 'hot'"),
        (["sampling.temperature=0,9"], "sampling.temperature=9, which is varied"),
        (["model=fake,openaii"], "model=openaii: no such option"),
        (["adapter=chat,text"], "add model.model_type=text"),
        (["budget.usd=1,2"], "budget.usd: cannot be varied"),
        (["runs_dir=a,b"], "runs_dir: cannot be varied"),
        (["sampling.temperature=interval(0,1)"], "search it with hydra/sweeper=optuna"),
        (["sampling.temperature=range(0,inf)"], "sampling.temperature: a range needs a start, an end and a step that are finite"),
        (["sampling.temperature=range(0,1,0)"], "and a step other than 0"),
        (["sampling.seed=range(0,1000001)"], "sampling.seed: the range has more than 100,000 values"),
        (["sampling.temperature=range(1,0,0.1)"], "has no values"),
        (["sampling.temperature=0"], "nothing varies"),
        (["gate.min_gain=0,0.05"], "gate.min_gain: cannot be varied"),
        (["sweep.zip={sampling.seed:{range:[0,3]},sampling.temperature:[0,1]}"], "sampling.seed 3, sampling.temperature 2"),
        (["sampling.seed=1,2", "sweep.primary=exactt", "scoring=exact"], "no score 'exactt'; did you mean 'exact'?"),
        (["sampling.seed=1,2", "sweep.exclude=[{sampling.sed:1}]"], "sampling.sed is not varied"),
        (["model=fake", "sampling.seed=1,2", "hydra/sweeper=nope"], "hydra/sweeper=nope: no such option"),
    ],
)
def test_invalid_sweeps_are_refused_before_anything_is_written(overrides, message):
    with pytest.raises(ConfigError) as error:
        Plan([*FAKE, *overrides])
    assert message in str(error.value)
    assert not Path("runs").exists()


def test_a_group_may_be_varied_with_null():
    made = Plan(["finetune=null,tickets"]).cells.values()
    assert [cell.config.finetune is None for cell in made] == [True, False]


def test_a_cell_whose_prompt_names_a_missing_column_is_refused():
    with pytest.raises(DataError, match="nope"):
        Plan([*FAKE, "prompt.user='{{ country }}','{{ nope }}'"])


# -- planning


def test_a_thousand_cells_compose_once_per_choice_of_groups(monkeypatch):
    composed = []
    compose = cells_module.compose
    monkeypatch.setattr(
        cells_module, "compose", lambda overrides, **named: composed.append(overrides) or compose(overrides, **named)
    )
    plan = Plan(["model=fake,smollm2", "data.limit=1", "sampling.temperature=range(0,1,0.1)", "sampling.seed=range(0,50)"])
    assert len(plan.cells) == 1000
    assert len(composed) == 3
    found = outlook(plan)
    assert (found.total("samples"), found.total("owed"), found.estimate.requests) == (1000, 1000, 1000)
    assert not Path("runs").exists()


def test_requests_that_cells_share_are_counted_once():
    found = outlook(Plan(["model=fake", "data.limit=4", "scoring=exact,contains", "sampling.seed=1,2"]))
    assert [(cell.owed, cell.shared) for cell in found.cells] == [(4, 0), (4, 0), (0, 4), (0, 4)]
    assert found.estimate.requests == 8
