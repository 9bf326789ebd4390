"""Read files of S3 and of what speaks its protocol. The only module of boto3, which litellm brings.

Each read asks for the ETag that the first one saw (``If-Match``). AWS's own settings are used: the environment (also
``AWS_ENDPOINT_URL_S3``), profiles, roles; without credentials the request is sent unsigned, as public buckets take it.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runner.data.remote import door
from runner.data.remote.door import BLOCK, LostError, Reply, refused
from runner.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CODES = {
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket", "NoSuchVersion"), 404),
    **dict.fromkeys(("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "400"), 403),
    "PreconditionFailed": 412,
}
"""Error codes of S3 (API of 2006-03-01) that say more than the status: keys that have expired are a 400. A reply to HEAD has no
body, and so its code is the status: a HEAD that is well formed, as these are, gets 400 for its keys only."""

_KEYS = "AWS's settings say whose (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, a role)"


class S3:
    """Files at ``s3://bucket/key`` addresses; ``*``, ``?`` and ``[...]`` in a key stand for all keys that match."""

    def __init__(self) -> None:
        self._client, self._signed = _client()

    def addresses(self, address: str) -> list[str]:
        """Return the addresses of all objects that match. An object with versions is named with its version."""
        bucket, key, version = _parts(address)
        if version is not None or not key or key.endswith("/"):
            if version is None:
                raise DataError(f"{address} is a folder: name an object, or all in it, as in {address.rstrip('/')}/*.parquet")
            return [address]
        keys = self._matching(address, bucket, key) if glob.has_magic(key) else [key]
        return [self._versioned(bucket, one) for one in keys]

    def fixed(self, address: str) -> bool:
        """Return whether an address names a version."""
        return "?versionId=" in address

    def open(self, address: str, *, start: int = 0, version: str | None = None, unless: str | None = None) -> Reply | None:
        """Begin to read an object. See `Door`."""
        bucket, key, version_id = _parts(address)
        asked = {"Bucket": bucket, "Key": key, "VersionId": version_id, "IfMatch": version, "IfNoneMatch": unless}
        asked["Range"] = f"bytes={start}-" if start else None
        found = self._asked(address, self._client.get_object, **{name: value for name, value in asked.items() if value})
        if found is None:
            return None
        size = found["ContentLength"] + start
        body = found["Body"]
        return Reply(version=found["ETag"], size=size, start=start, blocks=_blocks(body), close=body.close)

    def _versioned(self, bucket: str, key: str) -> str:
        address = f"s3://{bucket}/{key}"
        found = self._asked(address, self._client.head_object, Bucket=bucket, Key=key) or {}
        version = found.get("VersionId")
        return f"{address}?versionId={version}" if version and version != "null" else address

    def _matching(self, address: str, bucket: str, pattern: str) -> list[str]:
        prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        keys: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._asked(address, self._client.list_objects_v2, Bucket=bucket, Prefix=prefix, **more) or {}
            keys += [entry["Key"] for entry in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        depth = pattern.count("/")
        found = sorted(key for key in keys if key.count("/") == depth and fnmatch.fnmatchcase(key, pattern))
        if not found:
            raise DataError(f"{address}: no object matches")
        return found

    def _asked(self, address: str, call: Callable[..., Any], **arguments: Any) -> dict[str, Any] | None:
        """Call S3; return None if the object is as it was (304)."""
        from botocore import exceptions

        try:
            found: dict[str, Any] = call(**arguments)
        except exceptions.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            said = error.response.get("Error", {})
            if status == 304:  # noqa: PLR2004
                return None
            code = said.get("Code", "")
            meant, reason = _CODES.get(code, status), said.get("Message") or code
            if meant in (401, 403):
                raise DataError(f"{address}: access is refused ({status} {reason}); {self._advice()}") from None
            raise refused(address, meant, reason) from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise LostError(str(error)) from None
        except exceptions.BotoCoreError as error:
            raise DataError(f"{address} cannot be asked for: {error}") from None
        return found

    def _advice(self) -> str:
        """Say what to do where access is refused."""
        if self._signed:
            return f"is it spelled right, and may these keys read it, and are they still valid? {_KEYS}"
        return f"no keys were found, so the request was not signed. {_KEYS}"


def _client() -> tuple[Any, bool]:
    """Return a client, and whether there are keys to sign requests with. Raises ConfigError."""
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigError("s3:// needs a package that is not installed: pip install 'ostinato[remote]'") from None
    settings = {"connect_timeout": door.TIMEOUT_S, "read_timeout": door.TIMEOUT_S, "retries": {"total_max_attempts": 1}}
    try:
        session = boto3.session.Session()
        signed = session.get_credentials() is not None
        if not signed:
            settings["signature_version"] = UNSIGNED
        return session.client("s3", region_name=session.region_name or "us-east-1", config=Config(**settings)), signed
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is not an address
        raise ConfigError(f"s3://: AWS's settings cannot be used: {error}") from None


def _parts(address: str) -> tuple[str, str, str | None]:
    """Return bucket, key and version of ``s3://bucket/key?versionId=version``."""
    plain, _, query = address.partition("?versionId=")
    parts = urlsplit(plain)
    if not parts.netloc:
        raise DataError(f"{address}: name a bucket and an object, s3://bucket/key")
    key = plain.removeprefix(f"s3://{parts.netloc}").lstrip("/")
    return parts.netloc, key, query or None


def _blocks(body: Any) -> Iterator[bytes]:
    from botocore.exceptions import BotoCoreError

    try:
        while block := body.read(BLOCK):
            yield block
    except (BotoCoreError, OSError) as error:
        raise LostError(str(error)) from None
    finally:
        body.close()
