"""Data on S3, against moto's server and an endpoint on the wire: patterns, versions, what is refused, what is lost on the way."""

from __future__ import annotations

import boto3
import pytest
from moto.server import ThreadedMotoServer

from runner.data import open_anywhere
from runner.data.remote import door, fetch, s3
from runner.errors import ConfigError, DataError
from tests.support.elsewhere import Bucket as Wire
from tests.support.loopback import Script

pytestmark = pytest.mark.slow  # moto takes seconds to begin


@pytest.fixture(scope="module")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(server, monkeypatch, request):
    for name, value in {"AWS_ENDPOINT_URL_S3": server, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0,))
    client = boto3.client("s3", region_name="us-east-1")
    name = f"bucket-{abs(hash(request.node.name)) % 10**8}"
    client.create_bucket(Bucket=name)
    yield Bucket(client, name)
    client.close()


class Bucket:
    def __init__(self, client, name):
        self.client, self.name = client, name

    def put(self, key, body):
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return f"s3://{self.name}/{key}"

    def versioned(self):
        self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})


def row(number):
    return f'{{"id": {number}}}\n'.encode()


def opened(address):
    return open_anywhere("file", address)


def test_an_object_a_pattern_and_a_version(bucket, monkeypatch):
    bucket.versioned()
    address = bucket.put("in/a.jsonl", row(1))
    bucket.put("in/b c.jsonl", row(2))
    bucket.put("in/deep/c.jsonl", row(3))
    both = opened(f"s3://{bucket.name}/in/*.jsonl")
    assert [fields["id"] for fields in both.records()] == [1, 2]
    assert [kept.name for kept in both.fetched] == ["a.jsonl", "b_c.jsonl"]
    old = both.fetched[0].url
    assert old.startswith(f"{address}?versionId=")
    bucket.put("in/a.jsonl", row(4))
    assert [fields["id"] for fields in opened([address, old]).records()] == [4, 1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="the copy that was fetched last is used"):
        remembered = opened(address)
    assert ([fields["id"] for fields in remembered.records()], len(remembered.remarks)) == ([4], 1)


def test_an_object_that_is_lost_or_replaced_while_it_is_read(bucket, monkeypatch):
    body = b"".join(row(number) for number in range(50_000))
    address = bucket.put("rows.jsonl", body)
    whole = s3._blocks

    def breaks(then):
        def blocks(reply):
            monkeypatch.setattr(s3, "_blocks", whole)
            yield next(whole(reply))
            then()
            raise s3.LostError("cable")

        monkeypatch.setattr(s3, "_blocks", blocks)

    breaks(lambda: None)
    assert len(opened(address)) == 50_000
    bucket.put("rows.jsonl", body + row(50_000))
    breaks(lambda: bucket.put("rows.jsonl", body))
    with pytest.raises(DataError, match="has changed while it was read"):
        opened(address)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("absent.jsonl", r"absent.jsonl: there is no such file \(404"),
        ("in/", r"is a folder: name an object, or all in it, as in s3://.*/in/\*.parquet"),
        ("in/*.csv", "no object matches"),
    ],
)
def test_errors_name_the_address(bucket, key, message):
    with pytest.raises(DataError, match=message):
        opened(f"s3://{bucket.name}/{key}")


def test_nobody_at_the_endpoint(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"s3://nobody/rows.jsonl cannot be reached: Could not connect to the endpoint URL"):
        opened("s3://nobody/rows.jsonl")


@pytest.fixture
def wire(monkeypatch, tmp_path):
    """An endpoint with one object of 40,000 rows."""
    body = b"".join(row(number).ljust(40) for number in range(40_000))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setattr(fetch, "PAUSES_S", (0.0, 0.0))
    with Wire({"bucket/rows.jsonl": body}) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", wire.address)
        yield wire


OBJECT = "s3://bucket/rows.jsonl"


@pytest.mark.parametrize("denied", [(403, "AccessDenied"), (401, "Unauthorized"), (400, "ExpiredToken")])
def test_refused_access_says_what_to_do(wire, monkeypatch, denied):
    wire.denied = denied
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine-mine-mine")
    asked = rf"access is refused \({denied[0]} .*\); is it spelled right, and may these keys read it"
    with pytest.raises(DataError, match=asked) as told:
        opened(OBJECT if denied[0] == 400 else "s3://bucket/*.jsonl")
    assert "mine" not in str(told.value)
    assert wire.seen[-1].headers["authorization"].startswith("AWS4")


def test_without_keys_requests_are_not_signed_and_half_of_a_key_is_an_error(wire, monkeypatch):
    wire.denied = (403, "AccessDenied")
    with pytest.raises(DataError, match=r"no keys were found, so the request was not signed\. AWS's settings say whose"):
        opened(OBJECT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMINE")
    with pytest.raises(ConfigError, match="AWS's settings cannot be used: Partial credentials found"):
        opened(OBJECT)


def honest(whole):
    return Script((whole,))


def ends(then, at=500_000):
    return lambda whole: Script((whole[:-at],), then)


def no_body(whole):
    return Script((whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n",), "close")


@pytest.mark.parametrize("then", ["close", "hang"])
def test_an_object_that_is_cut_on_the_wire_is_resumed(wire, monkeypatch, then):
    if then == "hang":
        monkeypatch.setattr(door, "TIMEOUT_S", 0.5)
    wire.faults = [honest, ends(then), ends(then, 1)]
    data = opened(OBJECT)
    assert [fields["id"] for fields in data.records()] == list(range(40_000))
    first, *others = wire.seen[1:]
    assert ("range" in first.headers, len(others)) == (False, 2)
    assert all(request.headers["range"].startswith("bytes=") for request in others)
    assert {request.headers["if-match"] for request in others} == {data.fetched[0].version}


def test_nothing_half_read_of_the_wire_is_used(wire, tmp_path):
    def replaced(whole):
        wire.content["bucket/rows.jsonl"] = row(1)
        return ends("close")(whole)

    wire.faults = [honest, replaced]
    with pytest.raises(DataError, match=f"{OBJECT} has changed while it was read; nothing of it is used"):
        opened(OBJECT)
    wire.content["bucket/rows.jsonl"] = row(2).ljust(2_000_000)
    wire.faults = [honest, ends("close"), *[no_body] * 9]
    with pytest.raises(DataError, match=r"the connection was lost after .* several times .*nothing of it is used"):
        opened(OBJECT)
    assert not [path for path in (tmp_path / "home" / "data").rglob("*") if path.is_file()]
