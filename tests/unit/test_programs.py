"""``solver: {kind: python}``: a user's function answers rows, is recorded, resumed, packed and replayed, and fails well."""

import json
import signal
import sys
from pathlib import Path

import pytest

import runner
from runner.cli import main
from runner.errors import ConfigError, RecordError
from runner.records import RunFolder
from runner.reproduction.pack import pack
from runner.reproduction.replay import replay
from runner.solvers.modules import sources
from tests.support.clock import wait_until
from tests.support.command import Running
from tests.support.server import Hang, Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

FAKE = ["model=fake", "execution.orchestrator=none", "prompt=default", "scoring=none"]
ROWS = ["data=inline", "data.rows=[{id: a, q: one}, {id: b, q: two}, {id: c, q: three}]", "data.id=id"]
TWO_STEPS = """
from helpers import shout
from tools.words import LAST
import tools.more

async def answer(row, lm, ending=""):
    messages = [{"role": "user", "content": shout(row["q"])}]
    (first,) = await lm.acall(messages=messages)
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": LAST}]
    (second,) = await lm.acall(messages=messages)
    return f"{first} | {second}{ending}"
"""


def write(**files):
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def two_steps():
    write(flow=TWO_STEPS, helpers="def shout(text):\n    return text.upper()\n", tools__words='LAST = "again"\n')
    write(tools__more="from . import words\nassert words.LAST\n", unused="raise SystemExit\n")


def run(*more, base=FAKE, function="flow.py:answer"):
    return runner.run(overrides=[*base, *ROWS, "solver=python", f"solver.function={function}", *more])


def program(body, *more, **options):
    """Run ``answer`` of a file with this body, and return its samples by id."""
    write(flow=body)
    return {sample.id: sample for sample in RunFolder.open(run(*more, **options).folder).samples()}


def served(server, *more):
    return [
        "model=server",
        f"model.api_base={server.url}",
        "execution.orchestrator=none",
        "prompt=default",
        "scoring=none",
        *more,
    ]


def echo(call):
    return Reply(f"echo {call.question}")


@pytest.mark.slow
def test_a_program_of_several_files_is_played_recorded_and_shown(capsys):
    two_steps()
    with Server(echo) as server:
        done = run("solver.params={ending: '!'}", base=served(server))
        assert done.summary.requests == 6
    record = RunFolder.open(done.folder)
    first = next(sample for sample in record.samples() if sample.id == "a")
    assert first.output == "echo ONE | echo again!"
    assert [step.added[0]["content"] for step in first.steps] == ["ONE", "again"]
    assert first.attempts == 2
    manifest = record.manifest()
    assert set(manifest["files"]) == {f"solver/{name}.py" for name in ("flow", "helpers", "tools/words", "tools/more")}
    assert not list(Path.cwd().rglob("__pycache__"))
    assert main(["show", str(done.folder), "--rows", "1"]) == 0
    shown = capsys.readouterr().out
    assert "step 1, after step 0:\n    user: again\n    assistant: echo again" in shown
    assert main(["export", str(done.folder), "--to", "jsonl", "-o", "out.jsonl"]) == 0
    assert len(json.loads(Path("out.jsonl").read_text().splitlines()[0])["steps"]) == 2
    assert "again" in (done.folder / "report.html").read_text()


def test_a_plain_function_runs_in_a_thread_and_returns_data():
    body = "def answer(row, lm):\n    (said,) = lm(row['q'])\n    return {'said': said, 'n': len(row)}\n"
    samples = program(body, "model.reply=fine")
    assert samples["a"].parsed == {"said": "fine", "n": 2}
    assert samples["a"].output == '{"said":"fine","n":2}'
    assert samples["a"].usage.total_tokens > 0


def test_named_models_are_asked_by_name():
    body = "async def answer(row, lm, small):\n    return (await small.acall((await lm.acall(row['q']))[0]))[0]\n"
    samples = program(body, "solver.models={small: {kind: fake, name: tiny, reply: tiny says}}")
    assert samples["a"].output == "tiny says"
    assert [step.model for step in samples["a"].steps] == [None, "fake/tiny"]
    assert samples["a"].named["solver.small"].requests == 1
    assert samples["a"].attempts == 1


BAD = {
    "raises": ("async def answer(row, lm):\n    raise KeyError(row['q'])", "failed (flow.py, line 2): KeyError: "),
    "raises in a thread": ("def answer(row, lm):\n    [][0]", "failed (flow.py, line 2): IndexError: list index out of range"),
    "leaves": ("import sys\nasync def answer(row, lm):\n    sys.exit(7)", "failed (flow.py, line 3): SystemExit: 7"),
    "leaves its thread": ("import sys\ndef answer(row, lm):\n    sys.exit(7)", "failed (flow.py, line 3): SystemExit: 7"),
    "returns nothing": ("async def answer(row, lm): pass", "returned nothing; it must return a text"),
    "returns anything": ("async def answer(row, lm): return {'a': {1, 2}.__iter__()}", "returned what is not JSON data"),
    "asks too often": (
        "async def answer(row, lm):\n    while True: await lm.acall(str(row))",
        "asked more than 3 times for one row",
    ),
    "blocks": ("async def answer(row, lm): return lm('hi')[0]", "write `await lm.acall(...)`"),
    "hangs": ("import asyncio\nasync def answer(row, lm): await asyncio.sleep(600)", "longer than limits.deadline_s=0.2 seconds"),
    "hangs in a thread": ("import threading\ndef answer(row, lm): threading.Event().wait()", "longer than limits.deadline_s=0.2"),
    "tells a secret": ("async def answer(row, lm): raise ValueError('sk-proj-abcdefghijklmnop1234')", "ValueError: ***"),
    "forks": ("import os\ndef answer(row, lm):\n    if pid := os.fork(): os.waitpid(pid, 0)\n    return 1", "returned a int"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_bad_program_is_an_error_of_its_rows(case):
    body, told = BAD[case]
    more = ["solver.max_requests=3", "limits.deadline_s=0.2"] if "hangs" in case else ["solver.max_requests=3"]
    samples = program(body, *more)
    assert [(sample.status, sample.error.code) for sample in samples.values()] == [("error", "solver")] * 3
    assert told in samples["a"].error.message
    assert "sk-proj" not in "".join(path.read_text() for path in Path("runs").rglob("*.json*"))


def test_secrets_that_a_program_sends_returns_or_prints_are_not_written(monkeypatch, capfd):
    monkeypatch.setenv("MY_API_KEY", "q8Zr1LwT5vXk9PbMq8Zr1LwT5vXk")
    body = """
import os
KEY = os.environ["MY_API_KEY"]
async def answer(row, lm):
    print("the key is", KEY)
    await lm.acall("say " + KEY)
    return {"key": KEY}
"""
    with Server(lambda call: Reply("no")) as server:
        program(body, base=served(server, "model.api_key_env=MY_API_KEY"))
    out, err = capfd.readouterr()
    assert (out, "the key is ***" in err) == ("", True)
    written = [path for path in Path("runs").rglob("*") if path.is_file() and b"q8Zr1LwT5vXk" in path.read_bytes()]
    assert written == []


@pytest.mark.parametrize(
    ("files", "more", "told"),
    [
        ({}, [], "flow.py cannot be read: No such file"),
        ({"flow": "def anwser(row, lm): pass"}, [], "has no 'answer'; did you mean 'anwser'?"),
        ({"flow": "def answer(row): pass"}, [], "cannot be called as answer(row, lm): too many positional arguments"),
        ({"flow": "def answer(row, lm): pass"}, ["solver.params={n: 1}"], "as answer(row, lm, n=...): got an unexpected keyword"),
        ({"flow": "import helpers", "helpers": "1 / 0"}, [], "cannot be run (helpers.py, line 1): ZeroDivisionError"),
        ({"flow": "def answer(:"}, [], "cannot be run: SyntaxError"),
        ({"flow": "def answer(row, lm): pass"}, ["solver.models={x: {kind: fake}}"], "has no parameter 'x', and none named"),
        ({"flow": ""}, ["solver.function=flow.py"], "'flow.py' is not of the form path/to/file.py:name"),
    ],
)
def test_a_program_that_cannot_be_used_is_refused_before_anything_is_made(files, more, told):
    write(**files)
    with pytest.raises(ConfigError) as caught:
        run(*more)
    assert told in str(caught.value)
    assert not Path("runs").exists()


def test_a_changed_program_is_refused_on_resume():
    two_steps()
    done = run("model.fail_rate=1", "model.fail_with=authentication")
    assert done.summary.owed == 3
    helpers = Path("helpers.py").read_text()
    changes = {"def shout(text):\n    return text\n": "solver/helpers.py has changed", None: "it is missing, or is not"}
    for change, told in changes.items():
        Path("helpers.py").unlink() if change is None else Path("helpers.py").write_text(change)
        with pytest.raises(RecordError, match=told):
            runner.resume(done.folder)
    Path("helpers.py").write_text(helpers)
    assert runner.resume(done.folder).summary.owed == 3


def test_an_error_of_the_endpoint_stops_the_run_and_its_rows_stay_owed():
    asks = "return (await lm.acall('hi'))[0]"
    write(flow=f"async def answer(row, lm):\n    try:\n        {asks}\n    except Exception:\n        return 'x'")
    with Server(lambda call: Status(401, "who are you")) as server:
        done = run(base=served(server))
    assert (done.summary.owed, done.summary.ok) == (3, 0)


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_its_steps_packed_and_replayed_elsewhere(tmp_path, monkeypatch):
    two_steps()

    def stuck(call):
        return Hang() if call.question == "again" and server.blocked else echo(call)

    with Server(stuck) as server:
        server.blocked = True
        base = served(server, *ROWS, "solver=python", "solver.function=flow.py:answer")
        with Running("run", *base) as command:
            wait_until(lambda: sum(call.question == "again" for call in server.calls) == 3, "the second steps")
            command.process.send_signal(signal.SIGKILL)
            command.process.wait()
        server.blocked = False
        asked = len(server.calls)
        (folder,) = Path("runs").glob("*/2*")
        assert not (folder / "samples.jsonl").exists()
        done = runner.resume(folder)
        assert [call.question for call in server.calls[asked:]] == ["again"] * 3  # the first steps come from the cache
    assert {sample.output for sample in RunFolder.open(folder).samples()} >= {"echo ONE | echo again"}
    assert done.summary.unrecorded.requests == 6  # two for each row, one of them without an answer
    capsule = pack(folder, "it.ostinato").file.resolve()
    folder = folder.resolve()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(RecordError, match="a program inside it; --trust-code runs it"):
        replay(capsule)
    played = replay(capsule, trust_code=True)
    assert (played.outputs, played.different, played.missing) == (3, 0, 0)
    assert main(["reproduce", str(folder), "--replay"]) == 0


def test_what_a_run_without_a_cache_has_recorded_can_be_packed():
    two_steps()
    with Server(echo) as server:
        done = run("cache.mode=off", base=served(server))
    packed = pack(done.folder, "it.ostinato")
    assert packed.facts.from_record == 3
    assert replay(packed.file, trust_code=True).outputs == 3


def test_files_beside_are_found_wherever_they_are_imported():
    files = {
        "flow.py": "def f():\n    import helpers, json\n    from pkg import part\n    import pkg.deep.er",
        "helpers.py": "import flow",
        "pkg/__init__.py": "",
        "pkg/part.py": "from . import other\nfrom .deep import er",
        "pkg/deep/er.py": "import numpy",
        "pkg/other.py": "from ..helpers import f",
    }
    for name, text in {**files, "json.py": "", "unused.py": ""}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    found = sources(Path("flow.py"))
    assert next(iter(found)) == "flow.py"
    assert {name: content.decode() for name, content in found.items()} == files


def test_two_programs_may_have_modules_of_one_name():
    for name in ("one", "two"):
        write(
            **{
                f"{name}__flow": "import helpers\nasync def answer(row, lm): return helpers.NAME",
                f"{name}__helpers": f"NAME = {name!r}",
            }
        )
    found = [
        next(iter(RunFolder.open(run(function=f"{name}/flow.py:answer").folder).samples())).output for name in ("one", "two")
    ]
    assert found == ["one", "two"]
    assert "helpers" not in sys.modules


@pytest.mark.slow
def test_the_cost_of_a_program_is_not_foretold(capsys):
    two_steps()
    assert main(["run", *FAKE, *ROWS, "solver=python", "solver.function=flow.py:answer", "budget.usd=1", "--dry-run"]) == 0
    assert "up to 300 by a program; what they cost is not known before" in capsys.readouterr().out
    swept = ["-m", *FAKE, *ROWS, "solver=python", "solver.function=flow.py:answer", "solver.params.ending=a,b"]
    assert main(["run", *swept, "--dry-run"]) == 0
    assert main(["run", *swept]) == 0
