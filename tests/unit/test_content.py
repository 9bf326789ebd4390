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
MESSAGE = "prompt.messages=[{role: user, content: [{image: '{{ picture }}'}, {text: '{{ question }}'}]}]"
ATTACHING = [*DATA, MESSAGE, "prompt.user=null"]
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
    _, found = packed(*ATTACHING, "data.path=data/rows.jsonl")
    assert unpacked(found)[1] == {"data/rows.jsonl", "data/images/one.png"}
    _, found = packed(*ATTACHING, f"data.path={elsewhere}/rows.jsonl")
    assert unpacked(found)[1] == {"_carried/0/rows.jsonl", "_carried/0/images/one.png"}
    rows("data/rows.jsonl", {"picture": str(elsewhere / "images" / "one.png")})
    with pytest.raises(DataError, match=r"row r0 attaches .*a path of this machine: a schedule cannot carry it"):
        packed(*ATTACHING, "data.path=data/rows.jsonl")


@pytest.mark.parametrize("above", ["..", "../..", "../../.."])
def test_attached_files_above_their_rows_replace_no_other(above, in_tmp, tmp_path_factory):
    """The pictures of rows from elsewhere and of this folder have one name, and each is found where the rows say."""
    folder = tmp_path_factory.mktemp("elsewhere") / "a" / "b" / "c"
    rows(folder / "rows.jsonl", {"picture": f"{above}/one.png"})
    (folder / above / "one.png").write_bytes(PNG)
    (in_tmp / "one.png").write_bytes(PNG + b"here")
    _, found = packed(*ATTACHING, f"data.path={folder}/rows.jsonl", "schedule.files=[one.png]")
    unpacked_to, names = unpacked(found)
    assert "one.png" in names
    assert all(name == "one.png" or name.startswith("_carried/0/") for name in names)
    assert ((unpacked_to / found.config.data.path).parent / above / "one.png").read_bytes() == PNG
    assert (unpacked_to / "one.png").read_bytes() == PNG + b"here"


def test_attached_files_beside_the_folder_of_the_rows_keep_their_names(in_tmp):
    rows("data/rows.jsonl", {"picture": "../images/one.png"})
    (in_tmp / "images").mkdir()
    (in_tmp / "images" / "one.png").write_bytes(PNG)
    _, found = packed(*ATTACHING, "data.path=data/rows.jsonl")
    assert unpacked(found)[1] == {"data/rows.jsonl", "images/one.png"}


def test_a_row_that_attaches_what_lies_above_the_working_directory_is_named(in_tmp, monkeypatch):
    (in_tmp / "one.png").write_bytes(PNG)
    (in_tmp / "inner").mkdir()
    monkeypatch.chdir(in_tmp / "inner")
    rows("rows.jsonl", {"picture": "near.png"})
    Path("near.png").write_bytes(PNG)
    last = {"id": "last", "question": "?", "answer": "1", "picture": "../one.png"}
    Path("rows.jsonl").write_text(Path("rows.jsonl").read_text() + json.dumps(last) + "\n")
    with pytest.raises(DataError, match=r"row last attaches \.\./one\.png, which lies outside the working directory"):
        packed(*ATTACHING, "data.path=rows.jsonl")


def test_two_files_of_one_name_are_refused(in_tmp):
    """What a link hides: its folder lies elsewhere, so ``..`` leads to another file than the name says."""
    (in_tmp / "far" / "inner").mkdir(parents=True)
    (in_tmp / "far" / "one.png").write_bytes(PNG)
    (in_tmp / "one.png").write_bytes(PNG + b"here")
    (in_tmp / "data").symlink_to(in_tmp / "far" / "inner")
    rows("data/rows.jsonl", {"picture": "../one.png"})
    with pytest.raises(ConfigError, match=r"one\.png would be carried as one\.png, as another file is"):
        packed(*ATTACHING, "data.path=data/rows.jsonl", "schedule.files=[one.png]")


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


@pytest.mark.parametrize("holder", ["solve.py", "words.py", "score.py", "solve.sh", "solve.pl", "extra.py"])
def test_secrets_in_code_do_not_travel(holder):
    """They have no known prefix: the name that they are assigned to tells."""
    texts = {
        "solve.py": PROGRAM,
        "words.py": "def said(answer):\n    return answer\n",
        "score.py": "def score(answer, target):\n    return 1.0\n",
        "solve.sh": "#!/bin/sh\n",
        "solve.pl": "print 1;\n",
        "extra.py": "",
    }
    given = {
        "solve.sh": ["solver=command", "solver.argv=[./solve.sh]"],
        "solve.pl": ["solver=command", "solver.argv=[perl, solve.pl]"],
        "score.py": ["scoring=python", "scoring.function=score.py:score"],
        "extra.py": ["schedule.files=[extra.py]"],
    }.get(holder, ["solver=python", "solver.function=solve.py:solve"])
    for name, text in texts.items():
        Path(name).write_text(text)
    Path("solve.sh").chmod(0o755)
    packed(*given)
    Path(holder).write_text(texts[holder] + 'API_TOKEN = "kx7Pq2mB9vTz4LwR8sNd"\n')
    with pytest.raises(ConfigError, match=rf"^{holder} holds what is, or looks like, a secret"):
        packed(*given)


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
    assert [left.read_text() for left in folder.parent.glob(".*/**/system.txt")] == ["Be long."]
    (killed := folder.parent / ".unpacking-killed").mkdir()
    os.utime(killed, (0, 0))
    assert content.unpack(found.packed, found.sha256) == folder
    assert not killed.exists()


def test_a_turn_that_changes_a_carried_file_keeps_its_working_directory():
    Path("system.txt").write_text("Be brief.")
    Path("other.txt").write_text("Be kind.")
    _, found = packed("prompt.system_file=system.txt", "schedule.files=[other.txt]")
    folder, _ = unpacked(found)
    os.utime(folder, (0, 0))  # unpacked long ago
    with contextlib.chdir(folder):
        Path("system.txt").write_text("Be long.")
        for _ in range(2):  # the first of the next turns moves it away, the second looks for what is stale
            content.unpack(found.packed, found.sha256)
        assert (Path("system.txt").read_text(), Path("other.txt").read_text()) == ("Be long.", "Be kind.")
    assert content.is_here(found.sha256)


def test_an_intact_content_is_left_where_it_is():
    """Another turn may have unpacked it just now, and run in it."""
    Path("system.txt").write_text("Be brief.")
    _, found = packed("prompt.system_file=system.txt")
    folder, _ = unpacked(found)
    known = folder.stat().st_ino
    assert content.unpack(found.packed, found.sha256).stat().st_ino == known


def test_a_draft_that_another_turn_removes_fails_no_turn(monkeypatch):
    Path("system.txt").write_text("Be brief.")
    _, found = packed("prompt.system_file=system.txt")
    (draft := content.place_of(found.sha256).parent / ".unpacking-other").mkdir(parents=True)
    found_names = Path.glob

    def glob(self, pattern):
        names = list(found_names(self, pattern))
        if draft in names:
            draft.rmdir()  # the other turn ends after the look, before the next step
        return iter(names)

    monkeypatch.setattr(Path, "glob", glob)
    assert content.unpack(found.packed, found.sha256) == content.place_of(found.sha256)
    assert not draft.exists()


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
