"""A capsule that is damaged, changed or hostile is refused with a reason in one line, before anything of it is used."""

import json
import pickle
import stat
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from runner.cli import main
from runner.errors import RecordError
from runner.records.files import FORMAT
from runner.reproduction import capsule
from runner.reproduction.replay import replay
from tests.support.capsules import contents, made, packed, sealed, unsealed, zipped

pytestmark = pytest.mark.usefixtures("in_tmp")


_made: list[bytes] = []
"""A good capsule: made once, and written anew for each test."""


@pytest.fixture
def good(tmp_path):
    if not _made:
        _made.append(packed(tmp_path).read_bytes())
    file = tmp_path / "good.ostinato"
    file.write_bytes(_made[0])
    return file


def everything(folder):
    """What lies in a folder, without the cache, whose database tidies up when it likes."""
    return sorted(path for path in folder.rglob("*") if "home" not in path.parts)


@pytest.fixture
def refused(tmp_path, capsys):
    """Whether such bytes are refused, by library and command; returns the reason. Nothing is left behind or written beside."""

    def check(raw):
        file = tmp_path / "bad.ostinato"
        file.write_bytes(raw)
        before = everything(tmp_path)
        with pytest.raises(RecordError) as caught:
            replay(file, trust_code=True)
        capsys.readouterr()
        assert main(["reproduce", str(file)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert err == f"error: {caught.value}\n"
        assert everything(tmp_path) == before
        prefix = f"{file} is refused: "
        assert str(caught.value).startswith(prefix)
        return str(caught.value).removeprefix(prefix)

    return check


def test_an_intact_capsule_is_opened(good, tmp_path):
    assert replay(good, trust_code=True).exit_code == 0
    file = tmp_path / "again.ostinato"
    file.write_bytes(made(contents(good)))  # what the tests below start from
    assert replay(file, trust_code=True).exit_code == 0
    file.write_bytes(sealed(unsealed(good.read_bytes())))
    assert file.read_bytes() == good.read_bytes()


def test_a_change_of_any_byte_is_refused(good, refused, tmp_path):
    raw = good.read_bytes()
    file = tmp_path / "bad.ostinato"
    for at in [*range(0, len(raw), 37), *range(len(raw) - 200, len(raw))]:
        file.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(RecordError, match="is refused: "):
            replay(file, trust_code=True)
    assert "its content does not match its digest" in refused(raw[:100] + b"x" + raw[101:])
    assert "its content does not match its digest" in refused(b"x" + raw)


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 64, 100, 1000, -1, -64, -110])
def test_a_capsule_that_was_cut_off_is_refused(cut, good, refused):
    assert "it was cut off, or is another kind of file" in refused(good.read_bytes()[:cut])


def test_other_kinds_of_files_are_refused(good, refused, tmp_path, capsys):
    members = contents(good)
    assert "another kind of file" in refused(zipped(list(members.items())))
    assert "another kind of file" in refused(b"{}")
    assert "another kind of file" in refused(pickle.dumps({"a": 1}))
    assert "it is not a zip" in refused(sealed(b"x" * 1000 + b"\0\0"))
    assert main(["reproduce", "nothing.ostinato"]) == 1
    folder = tmp_path / "folder.ostinato"
    folder.mkdir()
    assert main(["reproduce", str(folder)]) == 1
    assert "Is a directory" in capsys.readouterr().err


def test_another_version_of_the_format_is_refused(good, refused):
    raw = unsealed(good.read_bytes())
    assert refused(sealed(raw, 2)) == "its format is 2, and this version of ostinato reads 1; nothing of it was used"
    members = contents(good)
    members["capsule.json"] = json.dumps({**json.loads(members["capsule.json"]), "format": 2}).encode()
    assert "says format 2" in refused(made(members))
    members = contents(good)
    for number, shown in ((FORMAT + 1, str(FORMAT + 1)), ("\x1b[2J", "\\x1b[2J")):
        members["manifest.json"] = json.dumps({**json.loads(members["manifest.json"]), "format": number}).encode()
        assert f"its format {shown} is not one that this version of ostinato reads" in refused(made(members))


NAMES = [
    "../evil.json", "/etc/evil.json", "files/../../evil.txt", "files/.evil.txt", "files/a/b.txt", "C:\\evil.json", "evil.pkl",
    "files/evil.pkl", "files/evil.so", "__pycache__/x.json", "Manifest.json", "files/", "files/x", "manifest.json\n", "a" * 300,
    "files/\u202etxt.py", "files/e\x1b[2J.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_file_of_a_capsule_has_are_refused(name, good, refused, tmp_path):
    said = refused(made({**contents(good), name: b"{}"}))
    assert "a name that a capsule may not contain" in said
    assert said.isprintable()
    assert not (tmp_path / "evil.json").exists()


def test_missing_extra_and_repeated_files_are_refused(good, refused):
    members = contents(good)
    extra = {**members, "more.json": b"{}"}
    rest = {name: content for name, content in members.items() if name != "capsule.json"}
    assert "it holds more.json, which capsule.json does not list" in refused(made(extra, listed=rest))
    assert 'it lacks "more.json", which capsule.json lists' in refused(made(members, listed={**rest, "more.json": b"{}"}))
    head = ("capsule.json", json.dumps({"format": 1, "files": {}, "facts": {}}).encode())
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped([head, ("data.jsonl", b"{}\n"), ("data.jsonl", b"[]\n")])
    assert "it holds data.jsonl twice" in refused(sealed(twice))
    assert "it holds no capsule.json" in refused(sealed(zipped([("data.jsonl", b"{}\n")])))
    assert "it holds no capsule.json" in refused(sealed(zipped([])))
    for name in ("manifest.json", "samples.jsonl", "data.jsonl", "cache.jsonl", "files/1-prompt.txt"):
        refused(made({other: content for other, content in members.items() if other != name}))


def test_a_file_whose_digest_differs_from_the_list_is_refused(good, refused):
    members = contents(good)
    rest = {name: content for name, content in members.items() if name != "capsule.json"}
    changed = {**members, "samples.jsonl": members["samples.jsonl"].replace(b"fake", b"fala")}
    assert "samples.jsonl in it does not match capsule.json: it was changed" in refused(made(changed, listed=rest))


@pytest.mark.parametrize(
    "prompt",
    [
        {"tool_server": {"command": ["touch", "ran"]}},
        {"tools": "files/2-scorer.py"},
        {"tools": "{{ t }}", "tool_results": "x.py:f"},
    ],
)
def test_a_capsule_that_would_run_tools_is_refused(prompt, good, refused):
    members = contents(good)
    manifest = json.loads(members["manifest.json"])
    manifest["config"]["prompt"] = prompt
    assert "its config runs tools" in refused(made({**members, "manifest.json": json.dumps(manifest).encode()}))
    assert not Path("ran").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(kind, good, refused):
    assert "data.jsonl in it is not a regular file" in refused(made(contents(good), data=kind | 0o777))


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_methods_are_refused(how, good, refused):
    assert "encrypted, or packed in a way that capsules do not use" in refused(made(contents(good), how=how))


def test_an_encrypted_file_is_refused(good, refused):
    raw = bytearray(unsealed(good.read_bytes()))
    at = raw.index(b"PK\x01\x02")
    raw[at + 8] |= 1
    assert "encrypted" in refused(sealed(bytes(raw)))


def test_a_bomb_is_noticed_while_it_is_unpacked(good, refused, monkeypatch):
    members = contents(good)
    bomb = made({**members, "data.jsonl": b"{}\n" * 50_000_000})
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    assert "unpacks to far more than a record does (while reading data.jsonl)" in refused(bomb)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()
    # sizes in its headers that are lies change nothing
    raw = bytearray(unsealed(bomb))
    at = raw.rindex(b"PK\x01\x02", 0, raw.index(b"data.jsonl", raw.index(b"PK\x01\x02")))
    raw[at + 24 : at + 28] = (3).to_bytes(4, "little")
    refused(sealed(bytes(raw)))
    monkeypatch.setattr(capsule, "MAX_BYTES", 1000)
    assert "more than a capsule may have" in refused(good.read_bytes())


def test_a_directory_of_too_many_files_is_refused(good, refused, monkeypatch):
    monkeypatch.setattr(capsule, "MAX_FILES", 64)
    members = [("capsule.json", b"{}"), *((f"files/f{n}.txt", b"") for n in range(100))]
    assert "its directory is larger than that of 64 files" in refused(sealed(zipped(members)))
    raw = bytearray(unsealed(good.read_bytes()))
    raw[-10:-6] = (2**31).to_bytes(4, "little")  # the size that it says its directory has
    assert "its directory is larger" in refused(sealed(bytes(raw)))


@pytest.mark.parametrize("depth", [65, 500, 100_000])
def test_json_that_is_nested_too_deeply_is_refused(depth, good, refused):
    members = contents(good)
    deep = b"[" * depth + b"]" * depth
    for name in ("manifest.json", "capsule.json"):
        nested = members[name].rstrip()[:-1] + b', "deep": ' + deep + b"}"
        if name == "capsule.json":
            assert "nested" in refused(sealed(zipped([(name, nested)])))
        else:
            assert "nested" in refused(made({**members, name: nested}))
    lines = members["samples.jsonl"].replace(b'"parsed":null', b'"parsed":' + deep, 1)
    lines = members["samples.jsonl"][:-2] + b',"parsed":' + deep + b"}\n"
    assert "samples.jsonl in it is" in refused(made({**members, "samples.jsonl": lines}))


def test_a_config_that_names_other_files_is_refused(good, refused, tmp_path):
    members = contents(good)
    manifest = json.loads(members["manifest.json"])
    (tmp_path / "mine.py").write_text("raise SystemExit('must not run')")

    def changed(group, **values):
        config = {**manifest["config"], group: {**manifest["config"][group], **values}}
        return made({**members, "manifest.json": json.dumps({**manifest, "config": config}).encode()})

    assert "names the file '/etc/passwd'" in refused(changed("prompt", user_file="/etc/passwd"))
    assert "names the file 'files/../config.yaml'" in refused(changed("prompt", user_file="files/../config.yaml"))
    assert "its data is not data.jsonl" in refused(changed("data", path="/etc/passwd"))
    assert "names the file" in refused(changed("scoring", scorers={"x": {"kind": "python", "function": f"{tmp_path}/mine.py:f"}}))
    assert "cannot be played" in refused(changed("model", kind="shell"))
    assert "cannot be played" in refused(changed("sampling", repeats="many"))
    assert "cannot be played" in refused(changed("prompt", user_file="files/missing.txt"))


def test_invalid_answers_and_samples_are_refused(good, refused):
    members = contents(good)
    for name, line in [
        ("cache.jsonl", b"{}"), ("cache.jsonl", b'{"v":1,"created":0,"response":{"choices":[]}}'), ("samples.jsonl", b"[]"),
        ("samples.jsonl", b'{"id": 1}'), ("samples.jsonl", b'{"id":"nobody"}'), ("data.jsonl", b"[]"),
        ("data.jsonl", b'{"id":"new"}'),
    ]:  # fmt: skip
        assert "what it holds cannot be played" in refused(made({**members, name: members[name] + line + b"\n"}))


def test_a_capsule_that_lacks_samples_is_refused(good, refused):
    members = contents(good)
    fewer = members["samples.jsonl"].split(b"\n", 1)[1]
    assert "it claims answers for 4 samples, but holds 3" in refused(made({**members, "samples.jsonl": fewer}))
    torn = members["samples.jsonl"].rstrip(b"\n")
    assert "it claims answers for 4 samples, but holds 3" in refused(made({**members, "samples.jsonl": torn}))


def test_answers_that_were_exchanged_are_found(good, tmp_path, capsys):
    """Who makes all digests right again cannot be told from the author; but outputs and answers still have to fit."""
    members = contents(good)
    line = json.loads(members["samples.jsonl"].splitlines()[0])
    told = members["samples.jsonl"].replace(json.dumps(line["output"]).encode(), b'"\\u001b[31mbetter"', 1)
    file = tmp_path / "better.ostinato"
    file.write_bytes(made({**members, "samples.jsonl": told}))
    assert main(["reproduce", str(file), "--trust-code"]) == 100
    out = capsys.readouterr().out
    assert "NOT as recorded; identical: 3 outputs, 6 scores" in out
    assert "1 samples; 0 could not be played" in out
    assert "\x1b" not in out
    found = replay(file, trust_code=True)
    assert (found.different, found.missing, len(found.shown)) == (1, 0, 1)
    file.write_bytes(made({**members, "cache.jsonl": members["cache.jsonl"].split(b"\n", 1)[1]}))
    found = replay(file)
    assert (found.exit_code, found.missing, found.outputs) == (100, 1, 3)


def test_broken_deflate_data_is_refused(good, refused):
    raw = bytearray(unsealed(good.read_bytes()))
    at = raw.index(b"samples.jsonl") + 13
    raw[at : at + 40] = zlib.compress(b"something else entirely")[:40].ljust(40, b"\xff")
    assert "cannot be read as a zip" in refused(sealed(bytes(raw)))


def test_a_run_that_is_too_large_is_not_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(capsule, "MAX_RATIO", 1)
    monkeypatch.setattr(capsule, "SMALL_BYTES", 10)
    with pytest.raises(RecordError, match="readers would refuse it: it unpacks to far more"):
        packed(tmp_path)
    assert not list(tmp_path.glob("*ostinato*"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, capsys):
    packed(tmp_path)
    folder = next(Path(tmp_path / "runs").glob("*/2*"))
    assert main(["pack", str(folder), "-o", "no/such/folder.ostinato"]) == 1
    assert capsys.readouterr().err == "error: cannot write no/such/folder.ostinato: No such file or directory\n"
