"""The verbs print data on stdout and everything else on stderr, with exit codes that scripts can rely on."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli import VERBS, main
from runner.config.compose import compose
from runner.config.schema.model import FakeModel
from runner.errors import LaunchError
from tests.support.command import REPOSITORY, Done

pytestmark = pytest.mark.usefixtures("in_tmp")

FAKE = ["model=fake", "execution.orchestrator=none"]
MINE = ["run", "resume", "retry", "validate", "config", "ls", "show", "report", "score", "cache"]


@pytest.fixture
def ostinato(capsys):
    """The command, called in this process."""

    def call(*arguments):
        code = main(arguments)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call


# -- help


def test_help_names_every_verb(ostinato):
    done = ostinato("--help")
    assert done == ostinato() == ostinato("help") == ostinato("-h")
    assert (done.code, done.err) == (0, "")
    assert re.findall(r"^  (\w+) ", done.out, re.MULTILINE) == list(VERBS)
    assert "exit codes: 0 ok, 1 error, 2 usage or config, 3 incomplete" in done.out
    assert re.fullmatch(r"ostinato \d+\.\d+\.\d+\n", ostinato("--version").out)


@pytest.mark.parametrize("verb", MINE)
def test_every_verb_has_help(verb, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    assert out.startswith(f"usage: ostinato {verb} ")


def test_help_imports_no_heavy_library():
    code = "import sys; from runner.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    loaded = set(done.stderr.split())
    assert not loaded & {"hydra", "omegaconf", "litellm", "prefect", "rich", "yaml", "msgspec", "asyncio", "diskcache", "jinja2"}


def test_an_unknown_verb_is_a_usage_error_with_a_suggestion(ostinato):
    done = ostinato("vaildate")
    assert (done.code, done.out) == (2, "")
    assert "there is no verb 'vaildate'; did you mean 'validate'?" in done.err


# -- run


def test_run_prints_a_summary_and_what_to_try_next(ostinato):
    done = ostinato("run", *FAKE, "data.limit=8", "model.fail_rate=0.5", "model.fail_with=context_window", "sampling.seed=2")
    assert done.code == 3
    assert done.out.startswith("capitals: incomplete")
    said = dict(re.findall(r"^(\S+(?: \w+)?) {2,}(.*?) *$", done.out, re.MULTILINE))
    assert said["rows"] == "8"
    assert re.fullmatch(r"[1-7] \(context_window [1-7]\)", said["errors"])
    assert said["cost"] == "none (this machine)"
    assert said["record"].startswith("runs/capitals/")
    assert " show latest --failed" in done.out
    assert " rows failed; retry them with: ostinato retry runs/capitals/" in done.err


def test_run_prints_one_json_object(ostinato):
    done = ostinato("run", *FAKE, "data.limit=4", "--json")
    assert (done.code, done.err, done.out.count("\n")) == (0, "", 1)
    promised = {"run", "status", "rows", "ok", "errors", "cache_hits", "requests", "scores", "usage", "cost_usd", "wall_s"}
    assert promised <= set(done.json)
    assert (done.json["status"], done.json["rows"], done.json["requests"]) == ("complete", 4, 4)
    assert (
        ostinato("run", "--json", *FAKE, "--display", "none", "data.limit=4").json["cache_hits"] == 4
    )  # options and overrides mix


def test_display_none_prints_nothing(ostinato):
    assert ostinato("run", *FAKE, "data.limit=4", "--display", "none") == Done(0, "", "")


def test_cfg_prints_the_config_and_runs_nothing(ostinato):
    job = [*FAKE, "runs_dir=${cache.mode}", "prompt.system=pay ${ 5"]
    raw, resolved = ostinato("run", "--cfg", "job", *job), ostinato("run", *job, "--cfg", "job", "--resolve")
    assert (raw.code, raw.err, resolved.code, resolved.err) == (0, "", 0, "")
    assert "runs_dir: ${cache.mode}\n" in raw.out
    assert "runs_dir: rw\n" in resolved.out
    Path("conf").mkdir()
    Path("conf/again.yaml").write_text(resolved.out)
    assert compose([], config_name="again").config() == compose(job).config()
    assert not Path("rw").exists()
    assert ostinato("run", "--cfg", "job", "sampling.temprature=1").code == 2


def test_cn_and_cd_choose_the_config(ostinato):
    Path("mine").mkdir()
    Path("mine/small.yaml").write_text(
        f"defaults: [config, {{override model: fake}}, _self_]\nname: {'small'}\ndata: {{limit: 2}}\n"
    )
    done = ostinato("run", "-cd", "mine", "-cn", "small", "execution.orchestrator=none", "--json")
    assert (done.code, done.json["name"], done.json["rows"], done.json["model"]) == (0, "small", 2, "fake/fake")


# -- validate and config


def test_validate_sends_nothing(ostinato):
    assert ostinato("validate", *FAKE) == Done(
        0, "valid: capitals: 60 samples of 60 rows for fake/fake, scored by contains\n", ""
    )  # fmt: skip
    done = ostinato("validate", "model=openai", "sampling.repeats=2", "--json")  # no key is needed to check
    assert done.json == {
        "valid": True, "name": "capitals", "model": "openai/gpt-5.4-mini", "rows": 60, "samples": 120, "scores": ["contains"],
    }  # fmt: skip
    assert ostinato("validate", *FAKE, "prompt.user={{ nothing }}").code == 1
    assert not Path("runs").exists()


def test_config_lists_groups_and_shows_options(ostinato):
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("# mine\nkind: fake\n")
    groups = ostinato("config", "ls", "--json").json
    assert {"model", "sampling", "experiment"} <= set(groups)
    assert {"mine", "fake", "smollm2"} <= set(groups["model"])
    assert ostinato("config", "ls", "budget").out == "budget  default\n"
    assert ostinato("config", "show", "model/mine").out == "# mine\nkind: fake\n"
    assert ostinato("config", "show", "budget").out == (REPOSITORY / "conf/budget/default.yaml").read_text()
    done = ostinato("config", "show", "model/mien")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: there is no option 'model/mien'; `ostinato config ls` lists them; did you mean 'model/mine'?\n"
    assert ostinato("config", "show", "modle/mine").err.startswith("error: there is no group 'modle'; ")
    assert "did you mean 'model'?" in ostinato("config", "ls", "modle").err


# -- runs


def test_ls_show_and_score_agree_about_a_run(ostinato):
    assert ostinato("ls") == Done(0, "", "")
    first = ostinato("run", *FAKE, "data.limit=3", "model.reply=Paris", "--json").json
    second = ostinato(
        "run", *FAKE, "data.limit=9", "model.fail_rate=0.4", "model.fail_with=context_window", "name=b", "--json"
    ).json
    listed = ostinato("ls", "--json").json["runs"]
    assert [(run["status"], run["ok"]) for run in listed] == [("complete", 3), ("incomplete", second["ok"])]
    assert listed[0]["run"] == str(Path(first["run"]).relative_to(Path.cwd()))
    assert ostinato("ls").out.splitlines()[0] == f"{listed[0]['run']}  complete  fake/fake  3/3  contains 0.333"

    shown = ostinato("show", "capitals", "--rows", "1")
    assert shown.out.startswith("capitals: complete")
    assert "\nfrance: ok; contains 1\n  user: Answer in one short" in shown.out
    assert "  answer: Paris\n  target: Paris\n" in shown.out
    assert ostinato("show", "--failed").out.count("\n  error: context_window: fake failure") == second["errors"] > 0
    done = ostinato("show", "capitals", "--rows", "2", "--json").json
    assert (done["run"], done["summary"]["ok"], len(done["samples"])) == (first["run"], 3, 2)
    assert "samples" not in ostinato("show", "--json").json

    done = ostinato("score", "capitals", "scoring=exact", "--json")
    assert (done.code, done.json["scores"]["exact"].items() >= {"mean": 1 / 3, "stderr": 1 / 3, "n": 3}.items()) == (0, True)
    assert ostinato("score", "capitals").out.startswith("capitals: complete")
    assert ostinato("score", "capitals", "model=fake").code == 2
    assert ostinato("score", "nope").code == 1


def test_a_broken_run_does_not_hide_the_others(ostinato):
    for name in ("a", "b"):
        ostinato("run", *FAKE, "data.limit=1", f"name={name}", "--display", "none")
    next(Path("runs/a").glob("2*/summary.json")).write_text("{")
    done = ostinato("ls", "--json")
    assert [run["status"] for run in done.json["runs"]] == ["unreadable", "complete"]
    assert "summary.json is broken" in done.err
    assert ostinato("ls").code == 0


def test_resume_prints_what_run_prints(ostinato):
    done = ostinato("run", *FAKE, "data.limit=4", "budget.requests=3")
    folder = Path("runs/capitals/latest").resolve().relative_to(Path.cwd())
    assert done.code == 3
    assert "\nerror: budget.requests=3 " in done.err
    assert done.err.endswith(f"1 rows are still owed; resume with: ostinato resume {folder}\n")
    assert ostinato("resume", str(folder), "budget.requests=4").out.startswith("capitals: complete")
    assert ostinato("resume", "capitals", "--json").json["ok"] == 4


# -- cache


def test_cache_lists_shows_prunes_and_clears(ostinato):
    assert ostinato("cache", "ls").out == "the cache is empty\n"
    ostinato("run", *FAKE, "data.limit=3", "--display", "none")
    stats = ostinato("cache", "stats", "--json").json
    assert (stats["entries"], stats["folder"]) == (3, str(Path(os.environ["OSTINATO_HOME"]) / "cache"))
    assert ostinato("cache", "stats").out.splitlines()[1] == "entries: 3"
    entries = ostinato("cache", "ls", "--json").json["entries"]
    assert {entry["model"] for entry in entries} == {"fake/fake"}
    assert len(ostinato("cache", "ls", "-n", "2").out.splitlines()) == 2
    entry = ostinato("cache", "show", entries[0]["key"][:10]).json
    assert entry["key"] == entries[0]["key"]
    assert entry["request"]["messages"][-1]["content"].startswith("Answer in one short sentence. What is the capital of ")
    assert ostinato("cache", "show", "zz").code == 1
    assert ostinato("cache", "prune", "--older-than", "1").out == "0 entries removed\n"
    done = ostinato("cache", "clear")
    assert (done.code, done.out) == (2, "")
    assert "add --yes to do it" in done.err
    assert ostinato("cache", "clear", "--yes", "--json").json == {"removed": 3}
    assert ostinato("cache", "stats", "--dir", "elsewhere", "--json").json["entries"] == 0


# -- the terminal


def on_a_terminal(*arguments, **environment):
    """What the command writes on a terminal, stdout and stderr together."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "runner", "run", *FAKE, *arguments]
    # What a build machine sets (CI, NO_COLOR) is what some of these tests set themselves: a person's terminal has neither.
    plain = {name: value for name, value in os.environ.items() if name not in {"CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env={**plain, "TERM": "xterm-256color", **environment}
    ) as process:
        os.close(follower)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the command is
            while part := os.read(leader, 4096):
                seen += part
        os.close(leader)
    assert process.returncode == 0, seen
    return seen.decode()


HIDE_CURSOR = "\x1b[?25l"


def test_a_terminal_sees_a_live_bar():
    long_enough = ["data.limit=24", "model.latency_s=0.5", "limits.max_concurrency=4"]  # for a picture, on a busy machine too
    seen = on_a_terminal(*long_enough)
    assert HIDE_CURSOR in seen
    assert re.search(r"\d+/24", seen)
    assert "rows/s" in seen


@pytest.mark.parametrize(("arguments", "environment"), [([], {"CI": "1"}), (["--display", "plain"], {}), ([], {"TERM": "dumb"})])
def test_ci_plain_display_and_dumb_terminals_get_no_live_bar(arguments, environment):
    seen = on_a_terminal(*arguments, **environment)
    assert HIDE_CURSOR not in seen
    assert "capitals: complete" in seen


def test_no_color_leaves_out_colours():
    seen = on_a_terminal("--display", "rich", "data.limit=5", NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|38;|9[0-7])[\d;]*m", seen)


def test_plain_display_prints_lines_of_progress(ostinato, monkeypatch):
    monkeypatch.setattr("runner.cli.display.PLAIN_EVERY_S", 0.05)
    done = ostinato(
        "run", *FAKE, "data.limit=20", "model.latency_s=0.1", "limits.max_concurrency=4", "--display", "plain", "--json"
    )
    assert re.search(r"^\d+/20 rows, [\d.]+ rows/s, 0 errors, \d/4 in flight$", done.err, re.MULTILINE)
    assert done.json["ok"] == 20


def test_the_users_own_configs_are_found(ostinato):
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("kind: fake\nreply: Paris\n")
    assert compose(["model=mine"]).config().model == FakeModel(reply="Paris")
    assert ostinato("run", "model=mine", FAKE[1], "--json", "data.limit=1").json["scores"]["contains"]["mean"] == 1.0


def test_validate_needs_no_weights(ostinato, in_tmp):
    done = ostinato("validate", f"model.name={in_tmp / 'absent.gguf'}")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    "words",
    [
        ("org/m", "--backend", "vllm", "--", "--dtype", "half"),
        ("--backend", "vllm", "org/m", "--", "--dtype", "half"),
        ("--backend", "vllm", "--port", "0", "org/m", "--json", "--", "--dtype", "half"),
    ],
)
def test_launch_takes_its_model_anywhere_before_further_arguments(ostinato, monkeypatch, words):
    seen = []

    def keep(model, settings):
        seen.append((model, settings.backend, settings.args))
        raise LaunchError("not today")

    monkeypatch.setattr("runner.servers.kept.keep", keep)
    assert ostinato("launch", *words).code == 1
    assert seen == [("org/m", "vllm", ("--dtype", "half"))]
