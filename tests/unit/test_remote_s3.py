"""Data on S3, against moto's server: patterns, versions, and what is refused."""

from __future__ import annotations

import boto3
import pytest
from moto.server import ThreadedMotoServer

from runner.data import open_anywhere
from runner.data.remote import fetch, s3
from runner.errors import DataError

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
