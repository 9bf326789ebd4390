"""A capsule made in one folder tree and replayed from another, with another home and the network cut, through the command."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from runner.records import RunFolder
from tests.support.command import REPOSITORY, ostinato
from tests.support.server import Reply, Server


def cut_off():
    """The words that run a command in a network namespace of its own, which has no network; skips where that is not allowed."""
    words = ["unshare", "--net"] if shutil.which("unshare") else []
    for how in (words, [*words, "--user", "--map-root-user"]):
        if how and subprocess.run([*how, "true"], capture_output=True, check=False).returncode == 0:
            return how
    pytest.skip("this machine does not allow network namespaces (unshare --net)")


def away(monkeypatch, tmp_path, *words, **env):
    """Run `ostinato` without a network, in a folder and with a home where nothing is."""
    import os
    import sys

    there = tmp_path / "elsewhere" / "deep"
    there.mkdir(parents=True, exist_ok=True)
    reach = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    assert b"Network is unreachable" in subprocess.run([*cut_off(), *reach], capture_output=True, check=False).stderr
    done = subprocess.run(
        [*cut_off(), sys.executable, "-m", "runner", *words],
        cwd=there,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OSTINATO_HOME": str(tmp_path / "away"), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert list(there.iterdir()) == []
    assert not (tmp_path / "away").exists()
    return done


def test_a_capsule_replays_without_key_network_server_or_data(in_tmp, tmp_path, monkeypatch):
    rows = [{"id": f"r{n}", "question": f"What is {n}?", "answer": f"about {n}"} for n in range(300)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    count = iter(range(10_000))
    key = "q8Zr1LwT5vXk9PbMq8Zr1LwT5vXk"
    with Server(lambda call: Reply(f"about {call.question[8:-1]}, {next(count)} ☃"), api_key=key) as server:
        run = ostinato(
            "run", "--json", "model=server", "model.name=test", f"model.api_base={server.url}", "model.api_key_env=TEST_KEY",
            "execution.orchestrator=none", "prompt=default", "data=jsonl", "data.path=rows.jsonl", "data.id=id",
            "data.target=answer", "scoring=contains", "sampling.repeats=2", TEST_KEY=key,
        )  # fmt: skip
    assert run.code == 0, run.err
    packed = ostinato("pack", run.json["run"], "-o", "run.ostinato", TEST_KEY=key)
    assert packed.code == 0, packed.err
    raw = Path("run.ostinato").read_bytes()
    capsule = tmp_path / "posted" / "run.ostinato"
    capsule.parent.mkdir()
    shutil.move("run.ostinato", capsule)
    outputs = len(list(RunFolder.open(Path(run.json["run"])).samples()))
    shutil.rmtree(in_tmp)
    shutil.rmtree(tmp_path / "home")
    done = away(monkeypatch, tmp_path, "reproduce", str(capsule))
    assert done.returncode == 0, done.stderr
    assert "byte-identical: 600 outputs, 600 scores" in done.stdout
    assert outputs == 600
    assert key.encode() not in raw
    bad = bytearray(raw)
    bad[len(bad) // 2] ^= 1
    capsule.write_bytes(bad)
    done = away(monkeypatch, tmp_path, "reproduce", str(capsule), "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("it was damaged or changed; nothing of it was used\n")


@pytest.mark.model
def test_a_run_of_the_real_model_is_reproduced_and_its_capsule_replays_elsewhere(with_weights, in_tmp, tmp_path, monkeypatch):
    run = ostinato("run", "--json", "data.limit=4", "execution.orchestrator=none")
    assert run.code == 0, run.err
    again = ostinato("reproduce", run.json["run"], "--json", "--strict")
    assert again.code == 0, again.err + again.out
    assert again.json["agreement"]["same"] == 4
    assert again.json["summary"]["requests"] == 4
    assert ostinato("pack", run.json["run"], "-o", str(tmp_path / "run.ostinato")).code == 0
    done = away(monkeypatch, tmp_path, "reproduce", str(tmp_path / "run.ostinato"), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["outputs"], told["scores"], told["identical"]) == (4, 4, True)
