"""What a schedule carries: files under their own names, those from elsewhere beside them, and nothing that must not travel."""

import contextlib
import json
import os
from pathlib import Path

import pytest

import runner
from runner.config.compose import compose
from runner.config.roles import config_hash
from runner.errors import ConfigError, DataError, ScheduleError
from runner.schedules import content, places
from runner.schedules.job import Job

pytestmark = pytest.mark.usefixtures("in_tmp")

FAKE = ["model=fake", "cache.mode=off", "execution.orchestrator=none", "schedule.interval_s=60", "name=mine"]
ROWS = [{"id": f"r{n}", "question": f"{n} and 1?", "answer": str(n + 1)} for n in range(3)]
DATA = ["data=jsonl", "data.id=id", "data.target=answer", "prompt=default"]
PROGRAM = "from words import said\n\ndef solve(row, lm):\n    return said(lm(row.fields['question']))\n"
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


def rows(path, more=()):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps({**row, **dict(more)}) + "\n" for row in ROWS))


def packed(*overrides):
    config = compose([*FAKE, *overrides]).config()
    return config, content.pack(config)


def unpacked(found):
    folder = content.unpack(found.packed, found.sha256)
    names = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    return folder, {name for name in names if name not in ("_carried/config.yaml", "_carried/digests.json")}


def test_files_keep_their_names_and_the_config_its_hash():
    rows("data/a.jsonl")
    rows("data/b.jsonl")
    Path("prompts").mkdir()
    Path("prompts/system.txt").write_text("Be brief.")
    Path("solve.py").write_text(PROGRAM)
    Path("words.py").write_text("def said(answer):\n    return answer.strip()\n")
    Path("unused.py").write_text("raise SystemExit\n")
    config, found = packed(
        *DATA,
        "data.path='data/[a].jsonl'",
        "prompt.system_file=prompts/system.txt",
        "solver=python",
        "solver.function=solve.py:solve",
    )
    folder, names = unpacked(found)
    assert names == {"data/a.jsonl", "prompts/system.txt", "solve.py", "words.py"}
    assert (folder / "data/a.jsonl").read_bytes() == Path("data/a.jsonl").read_bytes()
    assert config_hash(found.config) == config_hash(config)
    assert content.pack(config).sha256 == found.sha256


def test_files_from_elsewhere_are_carried_beside_the_others(in_tmp, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    rows(elsewhere / "rows.jsonl", {"picture": "images/one.png"})
    (elsewhere / "images").mkdir()
    (elsewhere / "images" / "one.png").write_bytes(PNG)
    (elsewhere / "system.txt").write_text("Be brief.")
    (in_tmp / "inside.txt").write_text("Question: {{ question }}")
    _, found = packed(
        *DATA,
        f"data.path={elsewhere}/rows.jsonl",
        f"prompt.system_file={elsewhere}/system.txt",
        f"prompt.user_file={in_tmp}/inside.txt",
        "prompt.user=null",
    )
    _, names = unpacked(found)
    assert names == {"_carried/0/rows.jsonl", "_carried/0/system.txt", "inside.txt"}
    assert found.config.data.path == "_carried/0/rows.jsonl"
    told = json.dumps(runner.schedules.content.msgspec.to_builtins(found.config))
    assert str(elsewhere) not in told
    assert str(in_tmp) not in told


def test_attached_files_are_carried(in_tmp, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for folder in (in_tmp / "data", elsewhere):
        rows(folder / "rows.jsonl", {"picture": "images/one.png"})
        (folder / "images").mkdir()
        (folder / "images" / "one.png").write_bytes(PNG)
    message = "prompt.messages=[{role: user, content: [{image: '{{ picture }}'}, {text: '{{ question }}'}]}]"
    given = [*DATA[:-1], "prompt=default", message, "prompt.user=null"]
    _, found = packed(*given, "data.path=data/rows.jsonl")
    assert unpacked(found)[1] == {"data/rows.jsonl", "data/images/one.png"}
    _, found = packed(*given, f"data.path={elsewhere}/rows.jsonl")
    assert unpacked(found)[1] == {"_carried/0/rows.jsonl", "_carried/0/images/one.png"}
    rows("data/rows.jsonl", {"picture": str(elsewhere / "images" / "one.png")})
    with pytest.raises(DataError, match="a path of this machine: a schedule cannot carry it"):
        packed(*given, "data.path=data/rows.jsonl")


def test_programs_can_be_run_and_what_code_opens_is_named():
    Path("solve.sh").write_text("#!/bin/sh\ncat words/list.txt\n")
    Path("solve.sh").chmod(0o755)
    for name in ("words/list.txt", "words/more/list.txt", "words/.hidden"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    _, found = packed("solver=command", "solver.argv=[./solve.sh]", "schedule.files=[words]")
    folder, names = unpacked(found)
    assert names == {"solve.sh", "words/list.txt", "words/more/list.txt"}
    assert os.access(folder / "solve.sh", os.X_OK)
    assert not os.access(folder / "words/list.txt", os.X_OK)
    for wrong, told in (("gone", "No such file"), ("../words", "outside the working directory")):
        with pytest.raises(ConfigError, match=told):
            packed(f"schedule.files=['{wrong}']")


def test_secrets_do_not_travel(monkeypatch):
    monkeypatch.setenv("THEIR_TOKEN", "kx7Pq2mB9vTz4LwR8sNd")
    Path("system.txt").write_text("Be brief.\nUse sk-abcdefghijklmnop1234qrst.\n")
    with pytest.raises(ConfigError, match=r"line 2 of system\.txt holds what is, or looks like, a secret"):
        packed("prompt.system_file=system.txt")


def test_a_changed_or_damaged_content_is_not_played():
    Path("system.txt").write_text("Be brief.")
    _, found = packed("prompt.system_file=system.txt")
    assert not content.is_here(found.sha256)
    folder, _ = unpacked(found)
    assert content.is_here(found.sha256)
    (folder / "system.txt").write_text("Be long.")
    assert not content.is_here(found.sha256)
    assert content.unpack(found.packed, found.sha256) == folder
    assert (folder / "system.txt").read_text() == "Be brief."
    with pytest.raises(ScheduleError, match="is not what was applied"):
        content.unpack(found.packed[:-1], found.sha256)
    assert not [left for left in folder.parent.iterdir() if left.name.startswith(".")]
    (killed := folder.parent / ".unpacking-killed").mkdir()
    os.utime(killed, (0, 0))
    assert content.unpack(found.packed, found.sha256) == folder
    assert not killed.exists()


def test_a_folder_has_one_id_that_says_nothing_elsewhere(in_tmp, monkeypatch):
    other = in_tmp / "other"
    other.mkdir()
    known = places.id_of(in_tmp)
    assert places.id_of(in_tmp) == known != places.id_of(other)
    assert places.folder_of(known) == in_tmp
    other.rename(in_tmp / "gone")
    assert places.folder_of(places.id_of(other)) is None
    monkeypatch.setenv("OSTINATO_HOME", str(in_tmp / "another-home"))
    assert places.folder_of(known) is None
    assert places.folder_of("../../../etc/passwd") is None


def test_a_job_plays_elsewhere_as_here(in_tmp, monkeypatch, tmp_path_factory):
    rows("rows.jsonl")
    job, found = Job.prepare([*FAKE, *DATA, "data.path=rows.jsonl"])
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path_factory.mktemp("home")))
    content.unpack(found.packed, found.sha256)
    assert job.place == Path(os.environ["OSTINATO_HOME"], "schedules", "played", "mine")
    with contextlib.chdir(job.files):
        config = job.config()
    assert config.runs_dir == str(job.place / "runs")
    assert config_hash(config) == job.config_hash
    assert str(in_tmp) not in json.dumps(job.parameters())
