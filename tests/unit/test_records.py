"""Records: everything reported as written reads back, even after a killed process, a full disk or a deleted folder."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from runner.errors import RecordError
from runner.records import FORMAT, RunFolder, Summary, find_run, list_runs
from runner.records import files as files_module
from runner.records.environment import environment
from runner.types import Choice, Held, Judgement, RowError, Sample, Score, Spent, Step, Usage

HASH = "0123456789abcdef"


def make(runs_dir, name="exp", digest=HASH, **manifest):
    return RunFolder.create(runs_dir, name, digest, config="name: exp\n", overrides="- a=b\n", manifest=manifest)


def sample(number, **fields):
    return Sample(id=f"row-{number}", **fields)


def ids(record):
    return [one.id for one in record.samples()]


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


# -- samples


def test_records_read_back(runs):
    record = make(runs)
    full = Sample(
        id="é", repeat=2, status="invalid", messages=[{"role": "user", "content": "a\nb\x85"}], output='{"a":1}', parsed={"a": 1},
        target=["x", None], scores={"f1": 0.5}, error=RowError("invalid", "no", 400, "req"), usage=Usage(1, 2, 3), cost_usd=None,
        saved_usd=0.1, cache="hit", latency_s=0.25, attempts=3, model_requested="a/b", model_served="b", finish_reason="stop",
        request_key="k", started_at="2026-01-01T00:00:00+00:00", reasoning="", tool_calls=[{"id": "1"}], logprobs={"a": []},
        answers=[Choice("a", "stop"), Choice(None, "tool_calls", tool_calls=[{"id": "1"}], reasoning="so")],
        cost_from="openrouter", held=Held(1, 30, 0.25), unread=["f1"], repaired=True, first_token_s=0.1, cluster="c",
        unmet=["contains >= 1"], named={"judge": Spent(1, Usage(1, 2, 3), 0.1)}, steps=[Step(request_key="k")],
        judgements={"judge": Judgement("right", "it is", 0.1, "k", "m")},
    )  # fmt: skip
    record.append([full])
    record.append([sample(1), sample(2)])
    assert list(RunFolder.open(record.path).samples()) == [full, sample(1), sample(2)]
    line = json.loads((record.path / "samples.jsonl").read_text("utf-8").split("\n")[0])
    assert line["cost_usd"] is None
    assert set(line) == set(Sample.__struct_fields__)


def test_the_last_line_of_a_sample_counts(runs):
    record = make(runs)
    record.append([sample(1, output="old"), sample(2), sample(1, repeat=1, output="other"), sample(1, output="new")])
    assert [(one.id, one.repeat, one.output) for one in record.samples()] == [
        ("row-2", 0, None), ("row-1", 1, "other"), ("row-1", 0, "new"),
    ]  # fmt: skip


@pytest.mark.parametrize("torn", [b'{"id": "row-9"', b'{"id": "row-9", "repeat": 0', b"\x00\x00\x00", b'{"id": "row-9"}'])
def test_a_torn_last_line_is_cut_off_before_more_is_written(runs, torn):
    record = make(runs)
    record.append([sample(1)])
    record.close()
    with (record.path / "samples.jsonl").open("ab") as file:
        file.write(torn)
    again = RunFolder.open(record.path)
    assert ids(again) == ["row-1"]
    again.append([sample(2)])
    assert ids(again) == ["row-1", "row-2"]
    assert (record.path / "samples.jsonl").read_bytes().count(b"\n") == 2


def test_broken_lines_in_the_middle_are_work_still_owed(runs):
    record = make(runs)
    record.append([sample(1)])
    record.close()
    with (record.path / "samples.jsonl").open("ab") as file:
        file.write(b'not json\n{"repeat": 3}\n[]\n\n{"id": "row-8", "status": "odd"}\n')
    record.append([sample(2)])
    assert ids(record) == ["row-1", "row-2"]


@pytest.mark.parametrize("lines", [(1, 2, 3), (1, 2, 3, 2), (1, 2), (1, 1)])
def test_the_last_line_of_a_sample_counts_whatever_the_summary_says(runs, lines):
    """A run that has ended with as many samples as lines is not searched for replaced ones."""
    record = make(runs)
    record.append(sample(number, output=str(place)) for place, number in enumerate(lines))
    record.write_summary(Summary(run="r", name="exp", model="m", status="incomplete", rows=4, owed=1))
    last = {f"row-{number}": str(place) for place, number in enumerate(lines)}
    assert {one.id: one.output for one in record.samples()} == last
    assert [one.id for part in record.written() for one in part] == [one.id for one in record.marks()] == ids(record)
    assert len(ids(record)) == len(last)


def test_lines_of_many_blocks_are_read_and_broken_ones_left_out(runs, monkeypatch):
    record = make(runs)
    record.append(sample(number, output="x" * number) for number in range(50))
    monkeypatch.setattr("runner.records.folder._BLOCK", 1000)
    assert ids(record) == [f"row-{number}" for number in range(50)]
    file = record.path / "samples.jsonl"
    broken = file.read_bytes().splitlines(keepends=True)
    broken[20], broken[30] = b"{}\n", b"\n"
    file.write_bytes(b"".join(broken) + b'{"id": "torn"')
    kept = [number for number in range(50) if number not in (20, 30)]
    assert ids(record) == [f"row-{number}" for number in kept]
    assert [number for numbers, _ in record.briefs() for number in numbers] == kept
    assert [one.id for one in record.samples_at({3, 49})] == ["row-3", "row-49"]
    assert record.count_lines() == 50


def test_rewrite_replaces_all_samples_at_once(runs):
    record = make(runs)
    record.append([sample(1), sample(1, output="x"), sample(2)])
    record.rewrite([sample(1, output="y"), sample(2)])
    record.append([sample(3)])
    assert [one.output for one in record.samples()] == ["y", None, None]
    assert sorted(file.name for file in record.path.iterdir()) == [
        "config.yaml",
        "manifest.json",
        "overrides.yaml",
        "samples.jsonl",
    ]


WRITER = """
import sys
from pathlib import Path
from runner.records import RunFolder
from runner.types import Sample
record = RunFolder.open(Path(sys.argv[1]))
for number in range(10**9):
    record.append([Sample(id=f"row-{number}", output="x" * 3000)])
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_reported(runs):
    record = make(runs)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(record.path)], stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout:
            if int(line) >= 300:
                break
        writer.send_signal(signal.SIGKILL)
        reported = 300 + sum(1 for line in writer.stdout if line.endswith("\n"))
    found = ids(RunFolder.open(record.path))
    assert found[: reported + 1] == [f"row-{number}" for number in range(reported + 1)]
    assert len(found) <= reported + 2  # one more may have been written and not yet reported


# -- a disk that is full, a folder that cannot be written


def full_disk(monkeypatch, after):
    """Let the file system take `after` more bytes of samples, and then none."""
    real, left = os.write, [after]

    def write(handle, data):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(handle, data[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr(files_module.os, "write", write)


def test_a_full_disk_keeps_what_was_written(runs, monkeypatch):
    record = make(runs)
    record.append([sample(1)])
    with monkeypatch.context() as patch:
        full_disk(patch, after=20)
        with pytest.raises(
            RecordError, match=r"the disk is full: .*samples\.jsonl could not be written; what was finished before"
        ):
            record.append([sample(2)])
    record.append([sample(3)])  # there is room again: half a line of row-2 must not spoil it
    assert ids(record) == ["row-1", "row-3"]


def test_a_full_disk_leaves_the_old_file_whole(runs, monkeypatch):
    record = make(runs, status="running")
    monkeypatch.setattr(files_module.os, "fsync", lambda _handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(RecordError, match="the disk is full"):
        record.write_manifest({"status": "complete"})
    assert record.manifest()["status"] == "running"
    assert not list(record.path.glob(".*"))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"cannot make a run folder in .*/file/exp: Not a directory; set runs_dir=\.\.\."):
        make(tmp_path / "file")


def test_a_deleted_folder_is_an_error(runs):
    record = make(runs)
    (record.path / "samples.jsonl").mkdir()
    with pytest.raises(RecordError, match=r"samples\.jsonl cannot be written: Is a directory"):
        record.append([sample(1)])
    with pytest.raises(RecordError, match=r"samples\.jsonl: Is a directory"):
        ids(record)


# -- the other files


def test_the_files_of_a_run(runs):
    record = make(runs, status="running")
    assert record.config_file.read_text() == "name: exp\n"
    assert record.manifest() == {"format": FORMAT, "status": "running"}
    assert record.summary() is None
    summary = Summary(run=str(record.path), name="exp", model="a/b", status="complete", scores={"exact": Score(0.5, None, 1)})
    record.write_summary(summary)
    assert RunFolder.open(record.path).summary() == summary
    assert json.loads((record.path / "summary.json").read_text())["format"] == FORMAT
    record.log("asked with sk-proj-aaaabbbbccccddddeeee")
    record.log("again")
    assert [line.split(" ", 1)[1] for line in (record.path / "run.log").read_text().splitlines()] == ["asked with ***", "again"]


def test_files_that_are_broken_are_named(runs):
    record = make(runs)
    (record.path / "summary.json").write_text("{")
    with pytest.raises(RecordError, match=r"summary\.json is broken"):
        record.summary()
    (record.path / "summary.json").write_text('{"run": 3}')
    with pytest.raises(RecordError, match=r"summary\.json: "):
        record.summary()
    (record.path / "manifest.json").write_text("[]")
    with pytest.raises(RecordError, match=r"manifest\.json is broken: it holds no object"):
        RunFolder.open(record.path)
    with pytest.raises(RecordError, match=r"is not a run folder: manifest\.json: No such file or directory"):
        RunFolder.open(runs)


@pytest.mark.parametrize("found", [FORMAT + 1, None, "1"])
def test_a_newer_format_is_refused(runs, found):
    record = make(runs)
    (record.path / "manifest.json").write_text(json.dumps({"format": found}))
    with pytest.raises(RecordError, match=f"its format {found} is not one that this version of ostinato reads"):
        RunFolder.open(record.path)


def test_the_environment_names_the_git_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = environment()
    assert found["git"] is None
    assert found["packages"]["msgspec"] == msgspec.__version__
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert environment()["git"]["dirty"] is False
    Path("new").write_text("")
    assert environment()["git"]["dirty"] is True
    assert len(environment()["git"]["commit"]) == 40


# -- finding runs


def test_runs_of_the_same_second_have_separate_folders(runs, monkeypatch):
    monkeypatch.setattr(files_module, "datetime", Frozen)
    made = [make(runs).path.name for _ in range(12)]
    other = make(runs, digest="ffff0000").path.name
    last = make(runs).path.name
    assert made[:3] == ["20260102-030405-012345", "20260102-030405-012345-2", "20260102-030405-012345-3"]
    assert [run.path.name for run in list_runs(runs)] == [*made, other, last]
    assert find_run("latest", runs).path.name == last == "20260102-030405-012345-13"
    assert find_run("exp", runs).path.name == last
    assert find_run("20260102-030405-012345", runs).path.name == made[0]
    assert (runs / "exp" / "latest").resolve().name == last


class Frozen(files_module.datetime):
    @classmethod
    def now(cls, tz=None):
        time.sleep(0.002)  # files made in a row have times of their own
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=files_module.UTC)

    def astimezone(self, tz=None):
        return self


class StillClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2026, 11, 24, 10, 11, 12, tzinfo=tz or UTC)


def test_runs_are_found_by_folder_name_prefix_or_latest(runs, monkeypatch, tmp_path):
    with pytest.raises(RecordError, match=r"there are no runs in .*runs; `ostinato run` makes one"):
        find_run("latest", runs)
    monkeypatch.setattr(files_module, "datetime", StillClock)
    one, two, other = make(runs), make(runs, digest="ffff0000"), make(runs, "other")
    monkeypatch.chdir(tmp_path)
    forms = {
        "latest": other, "exp": two, "exp/latest": two, "other": other, str(one.path): one, f"runs/exp/{one.path.name}": one,
        one.path.name: None, f"exp/{one.path.name}": one, f"exp/{two.path.name}": two, two.path.name[:-2]: two,
        "runs/exp/latest": two,
    }  # fmt: skip
    for text, expected in forms.items():
        if expected is not None:
            assert find_run(text, runs).path == expected.path, text
    with pytest.raises(RecordError, match=r"no run matches 'nope' in .*; for example: exp/"):
        find_run("nope", runs)
    with pytest.raises(RecordError, match="several runs match '20'"):
        find_run("20", runs)
    with pytest.raises(RecordError, match=f"several runs match '{one.path.name}'"):
        find_run(one.path.name, runs)  # exp and other were made from the same config in the same second


def test_latest_works_on_file_systems_without_links(runs, monkeypatch):
    monkeypatch.setattr(Path, "symlink_to", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    record = make(runs)
    assert find_run("latest", runs).path == record.path
    assert [file.name for file in (runs / "exp").iterdir()] == [record.path.name]


def test_folders_that_are_not_runs_are_skipped(runs):
    record = make(runs)
    (runs / "exp" / "notes").mkdir()
    (runs / "exp" / "notes" / "manifest.json").write_text("{}")
    (runs / "loose.txt").write_text("")
    assert [run.path for run in list_runs(runs)] == [record.path]
    assert list_runs(runs / "nowhere") == []


# -- what a summary says


def test_the_summary_is_a_table_for_people():
    summary = Summary(
        run="r", name="n", model="openai/x", status="incomplete", rows=10, ok=6, errors=2, invalid=1, owed=1, cache_hits=4,
        requests=9, scores={"exact": Score(0.5, 0.1, 8, (0.21, 0.79)), "f1": Score(None, None, 0), "one": Score(1.0, None, 1)},
        cost_usd=0.0123,
        saved_usd=2.5, usage=Usage(1000, 200, 1200), tokens_per_s=1234.5, wall_s=1.25, errors_by_code={"timeout": 1, "server": 1},
    )  # fmt: skip
    said = {line["measure"]: line["value"] for line in summary.table()}
    assert said == {
        "model": "openai/x", "rows": "10", "ok": "6", "errors": "2 (server 1, timeout 1)", "invalid": "1", "owed": "1",
        "score exact": "0.500 [0.210, 0.790] (n=8)", "score f1": "none (no sample could be scored)", "score one": "1.000 (n=1)",
        "scores stand on": "7 of 10 samples; left out: 2 failed, 1 owed; among them: 1 invalid",
        "cache hits": "4 (40%)", "requests": "9", "tokens": "1,000 in, 200 out", "tokens/s": "1,234",
        "cost": "$0.0123 ($2.50 saved by the cache)", "time": "1.2 s",
    }  # fmt: skip
    assert (
        msgspec.structs.replace(summary, cost_usd=None, saved_usd=None).table()[-2]["value"]
        == "unknown (no price for this model)"
    )
    assert summary.to_dict()["usage"]["reasoning_tokens"] == 0


def test_a_plain_sample_has_the_line_that_it_had_in_format_1(runs):
    record = make(runs)
    record.append([Sample(id="1", messages=[{"role": "user", "content": "hi"}], output="ok", scores={}, attempts=1)])
    assert (record.path / "samples.jsonl").read_bytes() == (
        b'{"id":"1","repeat":0,"status":"ok","messages":[{"role":"user","content":"hi"}],"prompt":null,"output":"ok","parsed":null,'
        b'"target":null,"scores":{},"error":null,"usage":null,"cost_usd":null,"saved_usd":null,"cache":"off","latency_s":null,'
        b'"attempts":1,"model_requested":null,"model_served":null,"system_fingerprint":null,"finish_reason":null,"request_key":null,'
        b'"started_at":null}\n'
    )
