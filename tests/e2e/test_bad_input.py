"""Errors are one line that says what to do, exit codes match, and finished rows are never lost."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from runner.experiment.run import resume
from runner.records import find_run
from tests.support.command import Running, ostinato
from tests.support.server import Reply, Server, Status

pytestmark = pytest.mark.usefixtures("in_tmp")

QUIET = ["execution.orchestrator=none"]
FAKE = ["model=fake", *QUIET]
KNOWN = "sk-proj-aaaabbbbccccddddeeee"
SECRET = "hunter2hunter2x9Qz"


def questions(count):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": "ok"} for n in range(count)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "prompt=default", "scoring=exact"]


def served(url, *more):
    return ["model=server", "model.name=test", f"model.api_base={url}", *QUIET, *questions(12), *more]


def recorded():
    """The samples of the only run."""
    (file,) = Path("runs").glob("*/2*/samples.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


# -- found before anything is made


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sampling.temprature=0"], 2, "sampling.temprature: unknown key; did you mean 'temperature'?"),
        (["model=fakee"], 2, "model=fakee: no such option; model has "),
        (["sampling.max_tokens=many"], 2, "sampling.max_tokens: expected int | null, got str 'many'"),
        (["model=server", f"+model.api_key={KNOWN}"], 2, "model.api_key: a literal key is refused; put it in an environment"),
        (["-cn", "nowhere"], 2, "-cn nowhere: no such config in "),
        (["-cn", "experiment/capitals_json"], 2, "-cn experiment/capitals_json: is only a part of a config; "),
        ([*FAKE, "data.target=captial"], 1, "has no column 'captial', which data.target names; did you mean 'capital'?"),
        ([*FAKE, "data=csv", "data.path=rows.csv"], 1, "rows.csv: no such file"),
    ],
)  # fmt: skip
def test_mistakes_in_config_or_data_are_one_line_and_make_no_run(arguments, code, message):
    done = ostinato("run", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert KNOWN not in done.err
    assert not Path("runs").exists()


def test_a_column_that_no_row_has_is_found_before_the_run():
    for verb in ("validate", "run"):
        done = ostinato(verb, *FAKE, "prompt.user={{ cuntry }}")
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            "error: data.rows, item 1: row 'france' has no column 'cuntry', which prompt.user uses; did you mean 'country'? "
            "the columns are 'id', 'country', 'capital'\n"
        )
    assert not Path("runs").exists()


@pytest.mark.parametrize("cache", ["rw", "off"])
@pytest.mark.parametrize("template", ["{{ question }} {{ hint }}", "{{ question }} {{ hint|upper }}"])
@pytest.mark.parametrize(
    ("second", "told"),
    [
        ('{"question": "c"}', "has no column 'hint', which prompt.user uses"),
        ('{"question": "c", "hint": null}', "uses column 'hint', which is null in this row"),
    ],
    ids=["missing", "null"],
)
def test_a_row_without_a_prompt_is_found_before_another_one_is_paid_for(second, told, template, cache):
    Path("rows.jsonl").write_text(f'{{"question": "a", "hint": "b"}}\n{second}\n')
    words = ["data=jsonl", "data.path=rows.jsonl", "prompt=default", f"prompt.user='{template}'", "scoring=none"]
    with Server() as server:
        model = ["model=server", "model.name=test", f"model.api_base={server.url}/v1", f"cache.mode={cache}"]
        done = ostinato("run", *model, *QUIET, *words)
        assert (done.code, server.count) == (1, 0)
    assert done.err.startswith("error: rows.jsonl, line 2: row ")
    assert told in done.err
    assert not Path("runs").exists()


def test_rows_without_a_prompt_can_be_left_out():
    Path("rows.jsonl").write_text('{"question": "a", "hint": "b"}\n{"question": "c", "hint": null}\n')
    words = ["data=jsonl", "data.path=rows.jsonl", "prompt=default", "prompt.user='{{ question }} {{ hint }}'", "scoring=none"]
    told = ostinato("run", *FAKE, *words).err
    assert "data.where='hint != null'" in told
    done = ostinato("run", *FAKE, *words, "data.where='hint != null'", "--json")
    assert (done.code, done.json["status"], done.json["rows"]) == (0, "complete", 1)


def test_unknown_options_and_verbs_are_usage_errors():
    done = ostinato("run", "--bogus")
    assert (done.code, done.out) == (2, "")
    assert "unrecognized arguments: --bogus" in done.err
    done = ostinato("rnu")
    assert (done.code, done.out) == (2, "")
    assert "there is no verb 'rnu'; did you mean 'run'?" in done.err


def test_an_unset_key_variable_is_named():
    done = ostinato("run", "model=openai", *QUIET)
    assert (done.code, done.out) == (2, "")
    assert "the environment variable OPENAI_API_KEY is not set; export OPENAI_API_KEY=... and" in done.err


# -- the server


def test_an_unreachable_server_stops_the_run_and_leaves_rows_owed():
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
    done = ostinato("run", *served(url), "--json")
    assert done.code == 1
    assert (done.json["status"], done.json["owed"], done.json["errors"]) == ("failed", 12, 0)
    assert "error: nothing answers there; check that the server runs, and model.api_base" in done.err
    assert url in done.err
    assert f"12 rows are still owed; resume with: ostinato resume {Path(done.json['run']).relative_to(Path.cwd())}" in done.err


def test_a_refused_key_stops_the_run_and_is_never_written(monkeypatch):
    with Server(api_key="the right one") as server:
        arguments = served(server.url, "model.api_key_env=MY_KEY", "limits.max_concurrency=2")
        done = ostinato("run", *arguments, "--display", "none", MY_KEY=SECRET)
        assert server.count <= 2
        assert (done.code, done.out) == (1, "")
        assert "error: the key was refused; check the environment variable that `model.api_key_env` names" in done.err
        server.api_key = SECRET
        monkeypatch.setenv("MY_KEY", SECRET)
        assert resume(find_run("latest", Path("runs")).path).summary.ok == 12
    assert all(SECRET.encode() not in file.read_bytes() for file in Path("runs").rglob("*") if file.is_file())


def test_an_unknown_model_stops_the_run_and_finished_rows_stay():
    with Server() as server:
        server.script(Reply(), Reply(), Reply(), Status(404, "The model `test` does not exist"))
        done = ostinato("run", *served(server.url, "limits.max_concurrency=1"))
        assert (done.code, server.count) == (3, 4)
        assert "error: no such model or address; check model.name and model.api_base (" in done.err
        assert "9 rows are still owed; resume with: ostinato resume runs/rows/" in done.err
        assert [sample["status"] for sample in recorded()] == ["ok"] * 3
        summary = resume(find_run("latest", Path("runs")).path).summary
        assert (summary.status, summary.ok, summary.requests, server.count) == ("complete", 12, 13, 13)


# -- the disk


@pytest.fixture
def small_disk(in_tmp):
    """A file system of 160 KB."""
    disk = in_tmp / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_keeps_finished_rows_and_the_run_resumes(small_disk):
    filler = small_disk / "filler"
    arguments = [*FAKE, "runs_dir=disk/runs", "data.limit=60", "prompt.system=" + "x" * 500]
    filler.write_bytes(b"x" * 120_000)
    done = ostinato("run", *arguments)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: the disk is full: ")
    assert "samples.jsonl could not be written; what was finished before is kept" in done.err
    (file,) = small_disk.glob("runs/*/2*/samples.jsonl")
    finished = file.read_bytes().count(b"\n")
    assert 0 < finished < 60
    filler.unlink()
    done = ostinato("resume", "--runs-dir", "disk/runs", "--json")
    assert (done.code, done.json["ok"], done.json["owed"]) == (0, 60, 0)
    assert file.read_bytes().count(b"\n") == 60


def test_unwritable_folders_are_named_with_the_setting_to_change():
    Path("file").write_text("")
    done = ostinato("run", *FAKE, "runs_dir=file/runs")
    assert (done.code, done.out) == (1, "")
    assert "error: cannot make a run folder in " in done.err
    assert "Not a directory; set runs_dir=..." in done.err
    done = ostinato("run", *FAKE, OSTINATO_HOME=str(Path("file").absolute()))
    assert (done.code, done.out) == (1, "")
    assert "error: the cache folder " in done.err
    assert "set cache.dir or OSTINATO_HOME" in done.err
    assert ostinato("ls", "--json").json["runs"][0]["status"] == "failed"


@pytest.mark.parametrize("damage", [b"not a database at all" * 500, b"", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_corrupt_cache_is_a_warning(damage):
    assert ostinato("run", *FAKE, "cache.dir=cache", "data.limit=5", "--display", "none").code == 0
    Path("cache/cache.db").write_bytes(damage)
    for name in ("cache.db-wal", "cache.db-shm"):
        Path("cache", name).unlink(missing_ok=True)
    done = ostinato("run", *FAKE, "cache.dir=cache", "data.limit=5", "--json")
    assert (done.code, done.json["ok"], done.json["cache_hits"]) == (0, 5, 0)
    if damage:  # an empty file is an empty database
        assert "cannot be used" in done.err
        assert "run `ostinato cache clear` to start" in done.err


# -- missing runs


def test_verbs_without_a_run_say_how_to_make_one():
    for verb in (["show"], ["resume"], ["score", "latest"]):
        done = ostinato(*verb)
        assert (done.code, done.out) == (1, "")
        assert done.err == "error: there are no runs in runs; `ostinato run` makes one\n"


def test_resume_refuses_data_that_has_changed():
    arguments = [*FAKE, *questions(5)]
    assert ostinato("run", *arguments, "budget.requests=2", "--display", "none").code == 3
    questions(6)
    done = ostinato("resume")
    assert (done.code, done.out) == (1, "")
    assert "the data has changed since this run began; start a new one with `ostinato run`" in done.err
    assert len(recorded()) == 2


# -- closed pipes


def test_a_closed_pipe_is_not_an_error():
    assert ostinato("run", *FAKE, "data.limit=5", "--display", "none").code == 0
    for arguments in (["ls"], ["show", "--rows", "5"], ["config", "show", "data/capitals"], ["run", *FAKE, "data.limit=5"]):
        reader, writer = os.pipe()
        os.close(reader)
        with Running(*arguments, stdout=writer) as running:
            os.close(writer)
            done = running.wait()
        assert (done.code, done.err) == (0, ""), arguments


def test_a_closed_pipe_does_not_hide_a_failure():
    reader, writer = os.pipe()
    os.close(reader)
    with Running("run", *FAKE, "data.limit=5", "model.fail_rate=1", "model.fail_with=bad_request", stdout=writer) as running:
        os.close(writer)
        assert running.wait().code == 1


def test_a_run_continues_when_nobody_reads_its_progress():
    reader, writer = os.pipe()
    os.close(reader)
    with Running("run", *FAKE, "data.limit=5", stderr=writer) as running:
        os.close(writer)
        done = running.wait()
    assert done.code == 0
    assert len(recorded()) == 5
