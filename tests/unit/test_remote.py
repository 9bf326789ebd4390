"""Remote data: fetched whole or not at all, found again offline, and never another version than a run began with."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import re
import shutil
import signal
import socket

import huggingface_hub
import pytest

from runner.config.schema.data import FileData
from runner.data import open_anywhere
from runner.data.remote import door, fetch
from runner.errors import ConfigError, DataError
from runner.secrets import concealed, redact
from runner.system.paths import home
from tests.support.clock import wait_until
from tests.support.command import Running, ostinato
from tests.support.elsewhere import Files, Hub, busy, compressed_part, cut, silent
from tests.support.loopback import Script, response
from tests.support.server import Server


def lines(count, mark="x"):
    return "".join(f'{{"id": {number}, "question": "{mark}{number}?"}}\n' for number in range(count)).encode()


ROWS = lines(40_000)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture
def server():
    with Files({"rows.jsonl": ROWS, "more.csv": b"id,question\n7,a\n"}) as files:
        yield files


def opened(address, **more):
    return open_anywhere("file", address, **more)


def bodies(server):
    """The requests whose answer had a body."""
    return [request for request in server.seen if "if-none-match" not in request.headers]


def test_a_file_is_fetched_once_and_found_offline(server):
    address = f"{server.address}/rows.jsonl"
    data = opened([address, f"{server.address}/more.csv"])
    assert (len(data), data.name, len(data.fetched)) == (40_001, "rows", 2)
    kept = data.fetched[0]
    assert (kept.url, kept.sha256, kept.bytes) == (address, hashlib.sha256(ROWS).hexdigest(), len(ROWS))
    assert all(request.headers["accept-encoding"] == "identity" for request in server.seen)
    assert opened(address).fingerprint == opened(address).fingerprint
    assert len(bodies(server)) == 2
    server.faults = [busy] * 4
    with pytest.warns(UserWarning, match="the copy that was fetched last is used"):
        old = opened(address)
    assert len(old) == 40_000
    assert old.remarks == [f"{address} cannot be reached: 503 Service Unavailable; the copy that was fetched last is used"]


def test_a_file_system_without_hard_links_keeps_files_too(server, monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    address = f"{server.address}/rows.jsonl"
    assert len(opened(address)) == 40_000
    assert len(opened(address)) == 40_000
    assert len(bodies(server)) == 1
    kept = list((home() / "data" / "files").rglob("rows.jsonl"))
    assert [file.stat().st_mode & 0o777 for file in kept] == [0o400]


def test_a_new_version_is_fetched_and_a_pinned_one_needs_no_network(server, tmp_path):
    address = f"{server.address}/rows.jsonl"
    first = opened(address).fetched[0]
    server.content["rows.jsonl"] = lines(3)
    assert len(opened(address)) == 3
    before = len(server.seen)
    assert len(opened(f"{address}#sha256={first.sha256}")) == 40_000
    assert len(server.seen) == before
    for path in (tmp_path / "home" / "data" / "files" / first.sha256).iterdir():  # spoiled, and so not used
        path.chmod(0o600)
        path.write_bytes(ROWS[:-1])
    with pytest.raises(DataError, match=r"is not what it was: its SHA-256 was [0-9a-f]{12}"):
        opened(f"{address}#sha256={first.sha256}")


@pytest.mark.parametrize("faults", [[cut(500_000), cut(9_000)], [silent], [busy, cut(1)]], ids=["cut", "silent", "busy"])
def test_an_interrupted_file_is_resumed(server, monkeypatch, faults):
    monkeypatch.setattr(door, "TIMEOUT_S", 0.3)
    server.faults = faults
    assert len(opened(f"{server.address}/rows.jsonl")) == 40_000
    assert server.seen[-1].headers["range"].startswith("bytes=")


def test_what_cannot_be_resumed_is_said_and_not_used(server, tmp_path):
    server.faults = [cut(700_000), *[busy] * 4]
    with pytest.raises(DataError, match=r"rows.jsonl cannot be reached: 503 Service Unavailable"):
        opened(f"{server.address}/rows.jsonl")
    server.faults = [cut(700_000)] * 9
    server.content["rows.jsonl"] = ROWS + b"\n"
    with pytest.raises(
        DataError, match=r"the connection was lost after [\d,]+ of [\d,]+ bytes, several times .*nothing of it is used"
    ):
        opened(f"{server.address}/rows.jsonl")
    assert not [path for path in (tmp_path / "home" / "data").rglob("*") if path.is_file()]


def test_a_file_that_changes_while_it_is_read_is_an_error(server):
    def replaced(honest):
        server.content["rows.jsonl"] = lines(40_000, "y")
        return cut(500_000)(honest)

    server.faults = [replaced]
    with pytest.raises(DataError, match="has changed while it was read; nothing of it is used: run again"):
        opened(f"{server.address}/rows.jsonl")


def test_a_compressed_reply_does_not_pass_for_a_range(server):
    server.faults = [cut(500_000), compressed_part]
    with pytest.raises(DataError, match=r"compresses a part of it \(gzip\) although it was asked not to"):
        opened(f"{server.address}/rows.jsonl")


def test_a_whole_reply_that_is_compressed_is_unpacked(server):
    server.content["rows.jsonl"] = gzip.compress(ROWS)
    server.faults = [lambda honest: Script((honest.replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1),))]
    assert opened(f"{server.address}/rows.jsonl").fetched[0].sha256 == hashlib.sha256(ROWS).hexdigest()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent.jsonl", r"absent.jsonl: there is no such file \(404 Not Found\)"),
        ("rows.jsonl?x=1", r"access is refused \(403 Forbidden\); .* data.token_env names"),
        ("rows.jsonl#part", "what follows # must be sha256="),
        ("bad.jsonl", r"http://127.0.0.1:\d+/bad.jsonl, line 1, column 1: not JSON"),
    ],
)
def test_errors_name_the_address(server, path, message):
    server.content["bad.jsonl"] = b"so it is\n"
    server.query = ""
    with pytest.raises(DataError, match=message):
        opened(f"{server.address}/{path}")


def test_a_token_is_sent_by_the_name_of_its_variable(server, monkeypatch):
    server.token = "letmein-letmein"
    address = f"{server.address}/rows.jsonl"
    with pytest.raises(DataError, match=r"access is refused \(401"):
        opened(address)
    with pytest.raises(ConfigError, match=r"data.token_env: the environment variable MINE is not set"):
        opened(address, token_env="MINE")
    monkeypatch.setenv("MINE", server.token)
    assert len(opened(address, token_env="MINE")) == 40_000
    with pytest.raises(ConfigError, match="a token is sent over https only"):
        opened("http://example.org/rows.jsonl", token_env="MINE")


def test_a_token_stays_with_its_host(server, monkeypatch):
    monkeypatch.setenv("MINE", "letmein-letmein")
    with Files({}) as other:
        other.answer = lambda _: Script((response(b"", 302, Location=f"{server.address}/rows.jsonl"),))
        assert len(opened(f"{other.address}/any.jsonl", token_env="MINE")) == 40_000
        assert other.seen[0].headers["authorization"] == "Bearer letmein-letmein"
    assert "authorization" not in server.seen[0].headers


SIGNED = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20261130&X-Amz-Signature=0123456789abcdef0123"


def test_signed_queries_are_never_held_nor_said(server):
    server.query = SIGNED
    address = f"{server.address}/rows.jsonl?{SIGNED}"
    config = FileData(path=address)
    assert config.path == f"{server.address}/rows.jsonl?***"
    data = opened(config.path)
    assert len(data) == 40_000
    assert data.fetched[0].url == config.path
    server.query = "other"
    with pytest.raises(DataError, match="access is refused") as told:
        opened(concealed(address.replace("0123456789", "9876543210")))
    assert "Signature" not in str(told.value)
    assert redact(f"see {address}, or https://host/a?sig=abc") == f"see {server.address}/rows.jsonl?***, or https://host/a?***"
    assert concealed("https://host/a?part=1&token=abc") != concealed("https://host/a?part=2&token=abc")
    for plain in ("https://host/a?part=1", "https://host/a?author=me&monkey=2&assign=3"):
        assert (concealed(plain), redact(plain)) == (plain, plain)
    for name in ("X-Amz-Security-Token", "X-Goog-Signature", "sig", "access_token", "key", "api-key"):
        assert redact(f"see https://host/a?part=1&{name}=hidden.") == "see https://host/a?***"
    with pytest.raises(DataError, match="a secret that was not recorded"):
        opened("https://host/never-seen.jsonl?***")


PARTS = {"data/train-00000-of-00002.jsonl": lines(2), "data/train-00001-of-00002.jsonl": lines(5)[len(lines(2)) :]}
FILES = {
    **PARTS,
    "data/test-00000-of-00001.jsonl": lines(1),
    "README.md": b"#",
    "main/dev.csv": b"id\n1\n",
    "socratic/dev.csv": b"id\n2\n",
}


@pytest.fixture
def hub(monkeypatch):
    with Hub(FILES) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        yield found


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("train", sorted(PARTS)),
        ("test", ["data/test-00000-of-00001.jsonl"]),
        ("data/train-*", sorted(PARTS)),
        ("socratic/validation", ["socratic/dev.csv"]),
        ("main", ["main/dev.csv"]),
        ("main/dev.csv", ["main/dev.csv"]),
    ],
)
def test_a_split_of_the_hub_stands_for_its_files(hub, rest, names):
    for spelling in ("hf://org/rows", "hf://datasets/org/rows@main"):
        data = opened(f"{spelling}/{rest}")
        assert data.name == "rows"
        assert [kept.url for kept in data.fetched] == [f"hf://org/rows@{hub.branch}/{name}" for name in names]


def test_a_split_that_the_readme_declares_is_taken_from_there(hub):
    files = [{"split": "train", "path": "socratic/*"}]
    hub.card = {
        "configs": [{"config_name": "main", "data_files": files, "default": True}, {"config_name": "more", "data_files": []}]
    }
    assert [kept.name for kept in opened("hf://org/rows/train").fetched] == ["dev.csv"]
    assert [kept.name for kept in opened("hf://org/rows/main/train").fetched] == ["dev.csv"]


def test_a_branch_that_moves_does_not_move_what_is_pinned(hub):
    first = opened("hf://org/rows/test").fetched[0]
    hub.push({**FILES, "data/test-00000-of-00001.jsonl": lines(9)})
    assert len(opened("hf://org/rows/test")) == 9
    assert len(opened(first.url)) == 1
    hub.faults = [busy] * 4
    assert len(opened("hf://org/rows/test")) == 9  # its files are here, at their commit


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://org/none/train", r"hf://org/none@main: there is no such file \(404"),
        ("hf://org/rows@old/train", r"hf://org/rows@old: there is no such file \(404"),
        ("hf://org/rows/trian", r"'trian'; its data files are data/test-00000"),
        ("hf://org/rows/dev", r"the split is in several folders; name one: main/dev, socratic/dev"),
        ("hf://org/rows", "name a split, a file or a folder"),
        ("hf://rows", "write hf://org/name/split"),
    ],
)
def test_errors_of_the_hub_say_what_there_is(hub, address, message):
    with pytest.raises(DataError, match=message):
        opened(address)


def test_the_hub_is_told_who_asks_and_is_not_asked_when_offline(hub, monkeypatch):
    hub.token = "hf-letmein-letmein"
    with pytest.raises(DataError, match=r"access is refused \(401"):
        opened("hf://org/rows/test")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert len(opened("hf://org/rows/test")) == 1
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    told = "the Hub cannot be reached: HF_HUB_OFFLINE is set; the copy that was fetched last is used"
    with pytest.warns(UserWarning, match=re.escape(told)):
        assert opened("hf://org/rows/test").remarks == [told]


def test_what_the_hub_announces_is_checked(hub, monkeypatch):
    hub.push({"train.parquet": b"PAR1 and so on"})
    hub.content[f"datasets/org/rows/resolve/{hub.branch}/train.parquet"] = b"PAR1 another"
    with pytest.raises(DataError, match="another SHA-256 than the server announced"):
        opened("hf://org/rows/train")


def test_nobody_at_an_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/rows.jsonl"
        with pytest.raises(DataError, match=r"cannot be reached: .*refused"):
            opened(address)


def test_a_run_keeps_what_it_began_with(server, in_tmp):
    server.query, server.content["rows.jsonl"] = SIGNED, lines(5)
    data = ["data=file", f"data.path={server.address}/rows.jsonl?{SIGNED}", "data.id=id"]
    with Server() as model:
        served = ["model=server", "model.name=test", f"model.api_base={model.url}", "execution.orchestrator=none", "scoring=none"]
        first = ostinato("run", *served, *data, "prompt=default", "budget.requests=2", "limits.max_concurrency=1")
        assert (first.code, "0123456789abcdef" in first.out + first.err) == (3, False), first.err
        kept = next(iter(ostinato("ls", "--json").json["runs"]))["run"]
        server.content["rows.jsonl"] = lines(5, "new")  # resume takes the rows that were fetched, and asks nobody
        seen = len(server.seen)
        assert ostinato("resume", kept, "budget.requests=9").code == 0
        assert len(server.seen) == seen
        assert ostinato("pack", kept, "-o", "a.ostinato").code == 0
        shutil.rmtree(in_tmp.parent / "home" / "data")
        gone = ostinato("score", kept)
        assert (gone.code, "is not what it was" in gone.err) == (1, True), gone.err
    replayed = ostinato("reproduce", "a.ostinato")
    assert replayed.code == 0, replayed.err
    assert recorded(in_tmp, "0123456789abcdef") == []
    facts = json.loads((in_tmp / kept / "manifest.json").read_text())["data"]["fetched"]
    assert [(one["url"], one["bytes"]) for one in facts] == [(f"{server.address}/rows.jsonl?***", len(lines(5)))]


@pytest.mark.slow
def test_a_command_that_is_killed_while_it_fetches_leaves_nothing_that_is_used(server):
    server.faults = [silent]
    asked = ["validate", "model=fake", "data=file", f"data.path={server.address}/rows.jsonl", "prompt=default", "scoring=none"]
    with Running(*asked) as running:
        wait_until(lambda: server.seen, "a request")
        running.signal(signal.SIGKILL)
    assert ostinato(*asked).code == 0
    assert "range" not in server.seen[-1].headers


def recorded(folder, secret):
    """The files below a folder that hold a secret."""
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
