"""Whole-file writes and locks: `runner.system.files`."""

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runner.reproduction import capsule
from runner.system import files


def names(folder):
    return {path.name for path in folder.iterdir()}


def interrupted_write(file):
    with files.replacing(file) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "a.json"
    files.write(file, "old")
    files.write(file, b"new")
    assert (file.read_bytes(), names(tmp_path)) == (b"new", {"a.json"})


def test_a_write_that_fails_leaves_the_old_content_and_no_draft(tmp_path):
    file = tmp_path / "a.json"
    files.write(file, "old")
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(file)
    assert (file.read_text(), names(tmp_path)) == ("old", {"a.json"})


def test_the_next_write_deletes_what_a_killed_process_has_left(tmp_path):
    script = "import pathlib, sys; from runner.system import files\n"
    script += "with files.replacing(pathlib.Path(sys.argv[1])) as file: file.write(b'half'); print('begun', flush=True); input()"
    file = tmp_path / "a.json"
    writer = subprocess.Popen([sys.executable, "-c", script, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout.readline() == "begun\n"
        draft = f".a.json.{writer.pid}.tmp"
        files.write(file, "new")
        assert names(tmp_path) == {"a.json", draft}  # its process is there
        writer.kill()
        writer.wait()
    others = {".b.json.1.tmp", ".a.json.notes.tmp", "a.json.1.tmp"}
    for name in others:
        (tmp_path / name).write_text("")
    with (tmp_path / draft).open() as held:
        assert files.lock(held.fileno())
        files.write(file, "newer")
        assert names(tmp_path) == {"a.json", draft, *others}  # somebody on another machine may write it
    files.write(file, "newest")
    assert (file.read_text(), names(tmp_path)) == ("newest", {"a.json", *others})


@pytest.mark.parametrize("kind", ["file", "capsule"])
def test_a_draft_is_locked_until_it_has_replaced_its_file(kind, monkeypatch, tmp_path):
    """A process of another machine does not know that the writer is alive: the lock alone tells it."""
    (tmp_path / "config.yaml").write_text("a: 1\n")
    file, replace, free = tmp_path / "file", Path.replace, []

    def replaced(draft, target):
        with draft.open("rb") as stream:
            free.append(files.lock(stream.fileno()))
        return replace(draft, target)

    monkeypatch.setattr(Path, "replace", replaced)
    if kind == "file":
        files.write(file, "new")
    else:
        capsule.write(tmp_path, ["config.yaml"], file, {})
        assert zipfile.ZipFile(file).namelist() == ["capsule.json", "config.yaml"]
    assert free == [False]
    assert names(tmp_path) == {"config.yaml", "file"}


def test_private_files_are_readable_by_their_owner_alone(tmp_path):
    files.write_private(tmp_path / "key.json", b"{}")
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600


def test_other_files_have_the_mode_that_the_umask_allows(tmp_path):
    before = os.umask(0o027)
    try:
        files.write(tmp_path / "a.json", b"{}")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    with files.locked(tmp_path / ".lock") as ours:
        assert ours
        with files.locked(tmp_path / ".lock", wait=False) as theirs:
            assert not theirs
    with files.locked(tmp_path / ".lock", wait=False) as free:
        assert free


def test_a_killed_process_releases_its_lock(tmp_path):
    script = "import os, pathlib, sys; from runner.system import files\n"
    script += "with files.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with files.locked(tmp_path / ".lock", wait=False) as ours:
            assert not ours
        holder.kill()
        holder.wait()
        with files.locked(tmp_path / ".lock", wait=False) as ours:
            assert ours
