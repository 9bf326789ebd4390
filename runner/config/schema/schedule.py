"""Declare `schedule`: when an experiment runs again, and whom to notify."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from runner.config.schema.base import _YEAR_S, Config, Count, Name, Text, UpToAYear


class Notify(Config, frozen=True, kw_only=True):
    """Name whom to notify when a scheduled run has failed."""

    command: list[Text] = []
    webhook_env: str | None = None

    def __post_init__(self) -> None:
        if self.webhook_env is not None and not self.webhook_env.isidentifier():
            raise ValueError("webhook_env is the name of an environment variable that holds the URL, not the URL itself")


class Canary(Config, frozen=True, kw_only=True):
    """Say what a canary is compared with."""

    reference: Text | None = None
    level: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95


class Schedule(Config, frozen=True, kw_only=True):
    """Say when an experiment runs again. It is not part of a run's identity."""

    name: Name | None = None
    what: Text = "run"
    cron: Text | None = None
    interval_s: UpToAYear | None = None
    rrule: Text | None = None
    timezone: Text = "UTC"
    overlap: Literal["skip", "queue"] = "skip"
    catch_up: Literal["none", "one", "all"] = "one"
    late_s: UpToAYear = 60.0
    retries: Count = 0
    retry_delay_s: Annotated[float, Meta(ge=0, le=_YEAR_S)] = 60.0
    notify: Notify = Notify()
    canary: Canary = Canary()
    files: list[Text] = []
    store: Text | None = None
    pool: Name | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("cron", "interval_s", "rrule") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given together; a schedule takes one of cron, interval_s and rrule")
        if self.catch_up == "all" and self.overlap == "skip":
            raise ValueError("catch_up=all runs missed runs one after the other, but overlap=skip skips them; give overlap=queue")
