"""Declare `cache`, `limits`, `budget`, `launch` and `execution`: how a run is carried out."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from runner.config.schema.base import Config, Count, Dollars, Positive, Seconds


class Cache(Config, frozen=True, kw_only=True):
    """Configure the response cache."""

    mode: Literal["off", "read", "write", "rw", "refresh", "replay"] = "rw"
    dir: str | None = None
    ttl: Seconds | None = None
    size: Annotated[float, Meta(gt=0, le=1e6)] = 10.0
    served: Literal["warn", "refuse", "refresh"] = "warn"


class Limits(Config, frozen=True, kw_only=True):
    """Limit the rate of requests to the endpoint, and how long an answer is waited for and a request is tried."""

    max_concurrency: Positive = 16
    rpm: Positive | None = None
    tpm: Positive | None = None
    timeout_s: Seconds = 120.0
    stream: Literal["auto", "always", "never"] = "auto"
    silence_s: Seconds = 300.0
    max_attempts: Positive = 8
    deadline_s: Seconds | None = None
    retry_empty: Count = 0


class Budget(Config, frozen=True, kw_only=True):
    """Bound what a run may use; None: no bound."""

    usd: Dollars | None = None
    tokens: Count | None = None
    requests: Count | None = None
    unknown_price: Literal["refuse", "allow"] = "refuse"


class Launch(Config, frozen=True, kw_only=True):
    """Configure the server of a local model."""

    context: Positive = 2048
    parallel: Positive | None = None
    threads: Positive | None = None
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    timeout_s: Seconds = 120.0
    args: list[str] = []


class Workers(Config, frozen=True, kw_only=True):
    """Choose the workers that answer and score rows; None: this process does."""

    kind: Literal["dask"] | None = None
    address: str | None = None
    n: Positive = 2
    resources: dict[str, Annotated[float, Meta(ge=0)]] = {}


class Execution(Config, frozen=True, kw_only=True):
    """Choose what orchestrates the run, and where rows are answered."""

    orchestrator: Literal["prefect", "none"] = "prefect"
    workers: Workers = Workers()
