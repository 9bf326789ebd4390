"""The public face: the names of `runner`, what they do, and what importing them loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from tests.support.command import REPOSITORY

HEAVY = {"litellm", "hydra", "omegaconf", "openai", "aiohttp", "torch", "xllamacpp", "prefect", "diskcache", "rich", "jinja2"}
HEAVY |= {"httpx", "pydantic"}  # they come with those
HEAVY |= {"polars", "pandas", "numpy", "scipy"}

FAKE = ["model=fake", "execution.orchestrator=none", "data.limit=4", "cache.dir=cache"]


def play(*more):
    return runner.run(overrides=[*FAKE, *more])


def test_every_public_name_can_be_had():
    for name in runner.__all__:
        assert getattr(runner, name) is not None
    assert set(runner.__all__) <= set(dir(runner))
    public = {name for name in vars(runner) if not name.startswith("_")}
    modules = {name for name in public if getattr(runner, name).__class__.__name__ == "module"}
    assert public - modules - {"annotations", "TYPE_CHECKING"} == set(runner.__all__) - {"__version__", "errors"}


def test_public_names_are_listed_once_in_order_and_documented():
    assert list(runner._HOMES) == sorted(runner._HOMES)
    assert sorted(runner.__all__) == sorted([*runner._HOMES, "__version__", "errors"])
    assert all(getattr(runner, name).__doc__ for name in runner.__all__)


def test_public_functions_document_what_they_take_return_and_raise():
    for name in runner.__all__:
        value = getattr(runner, name)
        if value.__class__.__name__ == "function":
            for part in ("Args:", "Returns:", "Raises:"):
                assert part in value.__doc__, (name, part)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Lm'"):
        runner.Lm  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import runner",
        "from runner import LM; LM('fake/x')",
        "from runner import LM; LM('openai/gpt-4o-mini')",
        "import runner; [getattr(runner, name) for name in runner.__all__]",
        "import runner.cli\ntry: runner.cli.main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_importing_loads_nothing_heavy(code):
    check = f"import sys\n{code}\nfound = [name for name in {HEAVY} if name in sys.modules]\nassert not found, found"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_takes_a_tenth_of_a_second_of_cpu_at_most():
    code = "import time; before = time.process_time(); import runner; print(time.process_time() - before)"
    took = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(3)]
    assert min(took) <= 0.1, took


def test_each_public_name_is_in_the_types_that_are_checked():
    used = (REPOSITORY / "tests/typing/public.py").read_text("utf-8")
    names = {node.attr for node in ast.walk(ast.parse(used)) if isinstance(node, ast.Attribute)}
    assert set(runner.__all__) <= names
    assert (REPOSITORY / "runner/py.typed").is_file()


# -- what they do


@pytest.mark.usefixtures("in_tmp")
@pytest.mark.parametrize("again", [runner.resume, runner.retry, runner.resume_sweep])
def test_a_path_is_a_folder_and_never_a_prefix_of_a_name(again):
    play("budget.requests=3")
    with pytest.raises(runner.errors.RecordError, match="is not a"):
        again(Path("capitals"))


@pytest.mark.usefixtures("in_tmp")
class TestOnARun:
    """Each takes a folder, or a name, as `load` does."""

    def test_resume_asks_what_is_owed(self):
        assert play("budget.requests=3").summary.owed == 1
        resumed = runner.resume("latest", ["budget.requests=9"])
        assert (resumed.summary.status, resumed.summary.ok, resumed.summary.requests) == ("complete", 4, 4)

    def test_retry_asks_rows_that_failed(self):
        failed = play("model.fail_rate=1", "model.fail_with=context_window")
        assert failed.summary.errors == 4
        again = runner.retry(failed.folder, only=["timeout"])
        assert (again.summary.errors, again.summary.requests) == (4, failed.summary.requests)
        assert runner.retry("capitals").summary.requests == 2 * failed.summary.requests
        with pytest.raises(runner.errors.ConfigError, match="no row fails with 'time_out'"):
            runner.retry("latest", only=["time_out"])

    def test_score_replaces_the_scores(self):
        play("model.reply=Paris")
        scored = runner.score("latest", ["scoring=exact"])
        assert {name: score.mean for name, score in scored.summary.scores.items()} == {"exact": 0.25}

    def test_compare_judges_b_against_a(self):
        a, b = play("model.reply=Paris").folder, play("model.reply=Berlin").folder
        found = runner.compare(a, b, rows=2)
        assert isinstance(found, runner.Comparison)
        assert (found.verdict, found.scores["contains"].mean_a, len(found.flips)) == ("tied", 0.25, 2)
        assert [one.a for one in runner.compare_all([a, b, runner.load(b)])] == [found.a, found.a]
        with pytest.raises(runner.errors.ConfigError, match="there is nothing to compare"):
            runner.compare_all([a])

    def test_report_writes_one_page(self):
        folder = play().folder
        (folder / "report.html").unlink()
        assert runner.report("latest") == folder / "report.html"
        assert runner.report(folder, "page.html") == Path("page.html").absolute()
        assert Path("page.html").read_text("utf-8") == (folder / "report.html").read_text("utf-8")

    def test_pack_and_replay_and_reproduce(self):
        folder = play().folder
        packed = runner.pack("latest", "run.ostinato")
        assert (packed.file, packed.facts.answers) == (Path("run.ostinato"), 4)
        replayed = runner.replay("run.ostinato")
        assert (replayed.identical, replayed.outputs, replayed.sha256) == (True, 4, packed.sha256)
        again = runner.reproduce("latest", replay=True)
        assert (again.reproduces, again.agreement.same) == (folder, 4)

    def test_a_run_that_does_not_exist_is_a_record_error(self):
        play()
        for use in (runner.load, runner.resume, runner.retry, runner.score, runner.pack, runner.reproduce, runner.report):
            with pytest.raises(runner.errors.RecordError, match="no run matches 'nowhere' in runs; for example: capitals/"):
                use("nowhere")
            with pytest.raises(runner.errors.RecordError, match="there are no runs in elsewhere"):
                use("latest", runs_dir="elsewhere")


@pytest.mark.usefixtures("in_tmp")
def test_resume_sweep_plays_the_cells_that_are_owed():
    stopped = runner.sweep([*FAKE, "sampling.seed=1,2", "budget.requests=5"])
    assert stopped.manifest.status == "incomplete"
    resumed = runner.resume_sweep("latest", ["budget.requests=9"])
    assert (resumed.folder, [row["ok"] for row in resumed.rows]) == (stopped.folder, [4, 4])
    sweep = runner.load(resumed.folder)
    assert isinstance(sweep, runner.Sweep)
    assert all(isinstance(cell.run, runner.Run) for cell in sweep.cells)


@pytest.mark.usefixtures("in_tmp")
def test_pipeline_says_what_it_needs_before_it_begins():
    with pytest.raises(runner.errors.ConfigError, match="finetune"):
        runner.pipeline(overrides=FAKE)
