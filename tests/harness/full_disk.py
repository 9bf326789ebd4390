"""Runs on a disk that is full: a small file system of our own, in a mount namespace that ends with the process.

    python -m tests.harness.full_disk record|cache|both|start|score     # one scene; exit code 0: all held

Needs Linux that lets this user make a namespace with a tmpfs in it (`possible` says so); nothing outside it is mounted or filled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from runner.cache import Cache
from runner.records import RunFolder
from tests.harness.chaos import ChaosServer, Dice, answer_to
from tests.support.command import REPOSITORY, Done, ostinato

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "--"]
ROWS = 120
SIZE = 16 << 20
LONG = "x" * 2000
"""What makes every line of a record long."""


def possible() -> bool:
    """Whether this machine lets us mount a file system of our own."""
    with tempfile.TemporaryDirectory() as place:
        try:
            done = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False)
        except OSError:
            return False
    return done.returncode == 0


def scene(name: str, folder: Path) -> str:
    """Play a scene in a namespace of its own; returns what it said when something did not hold, else ''."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OSTINATO_HOME": str(folder / "home")}
    command = [*NAMESPACE, sys.executable, "-m", "tests.harness.full_disk", name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}" if done.returncode else ""


class Disk:
    """A small file system, in the working directory, with a ballast file that can be dropped."""

    def __init__(self) -> None:
        self.path = Path("disk")
        self.path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self.path)], check=True)

    def leave(self, count: int) -> None:
        """Fill it, so that only `count` bytes are left."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            while (free := self.free) > count:
                ballast.write(b"\0" * min(free - count, 1 << 16))

    @property
    def free(self) -> int:
        """Bytes left."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def make_space(self) -> None:
        """Drop the ballast."""
        (self.path / "ballast").unlink()


class Play:
    """The command, its server, and what both have seen."""

    def __init__(self, server: ChaosServer, *words: str) -> None:
        self.server = server
        rows = [
            {"id": text, "question": text, "answer": "the answer"}
            for text in map("question {} {}".format, range(ROWS), [LONG] * ROWS)
        ]
        Path("rows.jsonl").write_text("".join(json.dumps({**row, "id": row["id"].removesuffix(LONG)}) + "\n" for row in rows))
        words = ("model=server", f"model.api_base={server.url}", "prompt=default", *words)
        words += ("data=jsonl", "data.path=rows.jsonl", "data.id=id", "data.target=answer", "scoring=contains")
        self.words = (*words, "execution.orchestrator=none", "limits.max_concurrency=4")

    def run(self) -> Done:
        """`ostinato run`."""
        return ostinato("run", *self.words, "--json")

    def resume(self) -> Done:
        """`ostinato resume` of the only run."""
        return ostinato("resume", str(self.folder.path), "--json")

    @property
    def folder(self) -> RunFolder:
        """The only run."""
        (path,) = [*Path("disk").glob("runs/rows/2*"), *Path("runs").glob("rows/2*")]
        return RunFolder.open(path)

    def recorded(self) -> list[str]:
        """The questions whose answers are recorded, each of which is right."""
        samples = list(self.folder.samples())
        for sample in samples:
            assert sample.status == "ok", sample.error
            assert sample.output == answer_to(f"{sample.id}{LONG}")
        return [f"{sample.id}{LONG}" for sample in samples]


def says_full(done: Done) -> None:
    """The command has failed, and says that the disk is full and what to do."""
    assert done.code == 1, done
    assert "the disk is full" in done.err, done.err
    assert "space" in done.err, done.err


def completes(play: Play, done: Done) -> None:
    """Every row is there, and none that was recorded was asked again."""
    assert done.code == 0, done
    assert (done.json["status"], done.json["ok"], done.json["owed"]) == ("complete", ROWS, 0)
    assert len(play.recorded()) == len(set(play.recorded())) == ROWS


def record(server: ChaosServer) -> None:
    """The run folder is on the disk, and there is no cache."""
    disk, play = Disk(), Play(server, "runs_dir=disk/runs", "cache.mode=off")
    disk.leave(200_000)
    says_full(play.run())
    before = play.recorded()
    assert 0 < len(before) < ROWS
    assert ostinato("ls", "--json", "--runs-dir", "disk/runs").json["runs"]
    says_full(play.resume())  # still full: nothing is lost by trying
    assert play.recorded()[: len(before)] == before
    before = play.recorded()
    disk.make_space()
    completes(play, play.resume())
    assert all(server.requests[question] == 1 for question in before), "a recorded row was asked again"


def cache(server: ChaosServer) -> None:
    """The cache is on the disk: a warning, and a run that completes; with space, the next one fills the cache."""
    disk, play = Disk(), Play(server, "cache.dir=disk/cache")
    disk.leave(160_000)
    done = play.run()
    completes(play, done)
    assert "warning: the cache in" in done.err, done.err
    assert "full" in done.err, done.err
    assert done.err.count("warning") == 1, done.err
    assert Cache(Path("disk/cache").absolute()).check() == []
    disk.make_space()
    asked = sum(server.requests.values())
    again = ostinato("run", *play.words, "--json")
    assert (again.code, again.json["ok"]) == (0, ROWS), again
    assert not again.err, again.err
    assert again.json["cache_hits"] == ROWS - (sum(server.requests.values()) - asked)
    last = ostinato("run", *play.words, "--json")
    assert last.json["cache_hits"] == ROWS
    assert Cache(Path("disk/cache").absolute()).check() == []


def start(server: ChaosServer) -> None:
    """There is no space at all, for a run folder or for a new cache."""
    disk, play = Disk(), Play(server, "runs_dir=disk/runs", "cache.mode=off")
    disk.leave(0)
    says_full(play.run())
    assert not server.requests, "a run that cannot be recorded asks nothing"
    disk.make_space()
    done = play.run()
    assert (done.code, done.json["ok"]) == (0, ROWS), done
    disk.leave(0)
    play = Play(server, "cache.dir=disk/cache", "runs_dir=elsewhere")
    done = play.run()
    assert (done.code, done.json["ok"]) == (0, ROWS), done
    assert "warning: the cache in" in done.err, done.err


def both(server: ChaosServer) -> None:
    """Record and cache share the disk."""
    disk, play = Disk(), Play(server, "runs_dir=disk/runs", "cache.dir=disk/cache")
    disk.leave(400_000)
    says_full(play.run())
    before = play.recorded()
    disk.make_space()
    completes(play, play.resume())
    assert all(server.requests[question] == 1 for question in before), "a recorded row was asked again"
    assert Cache(Path("disk/cache").absolute()).check() == []


def score(server: ChaosServer) -> None:
    """A finished run is scored again: the answers stay, whether there is space for the new scores or not."""
    disk, play = Disk(), Play(server, "runs_dir=disk/runs", "cache.mode=off")
    completes(play, play.run())
    before = (play.folder.path / "samples.jsonl").read_bytes()
    disk.leave(0)
    says_full(ostinato("score", str(play.folder.path), "scoring=exact", "--json"))
    assert (play.folder.path / "samples.jsonl").read_bytes() == before
    disk.make_space()
    done = ostinato("score", str(play.folder.path), "scoring=exact", "--json")
    assert (done.code, done.json["scores"]["exact"]["n"]) == (0, ROWS), done


SCENES = {act.__name__: act for act in (record, cache, start, both, score)}


def main() -> None:
    """Play one scene in the working directory."""
    with ChaosServer(Dice(1, 0, calm=0)) as server:
        SCENES[sys.argv[1]](server)


if __name__ == "__main__":
    main()
