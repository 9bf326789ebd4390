"""Keep Prefect quiet in this process: its environment variables, its log lines, its signal handler. All are undone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Set what Prefect reads only from environment variables: no telemetry, no proxy for loopback, our logging kept as it is."""
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    ours = {"DO_NOT_TRACK": "1", "no_proxy": f"{direct},127.0.0.1" if direct else "127.0.0.1"}
    if "prefect" not in sys.modules:
        ours["PREFECT_LOGGING_SETTINGS_PATH"] = str(Path(__file__).with_name("logging.yml"))
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def log_to(file: Path) -> Iterator[None]:
    """Write Prefect's lines to `file` and those of runs to the server too, never to the terminal."""
    from prefect.logging.handlers import APILogHandler

    to_file = logging.FileHandler(file, encoding="utf-8", delay=True)
    to_file.setFormatter(_Redacted("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers: dict[str, list[logging.Handler]] = {name: [to_file] for name in ("prefect", "prefect._internal")}
    loggers |= {name: [to_file, APILogHandler()] for name in ("prefect.flow_runs", "prefect.task_runs")}
    loggers |= {name: [logging.NullHandler()] for name in ("EventsWorker", "APILogWorker")}  # they report what is still unsent
    before = [(log, log.handlers, log.propagate, log.level) for log in map(logging.getLogger, loggers)]
    complains, logging.raiseExceptions = logging.raiseExceptions, False  # else Prefect tells stderr what it cannot send
    for log, _, _, level in before:
        log.handlers, log.propagate = loggers[log.name], False
        if log.name == "prefect" and level == logging.NOTSET:
            log.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.raiseExceptions = complains
        for log, handlers, propagate, level in before:
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)
        to_file.close()


@contextlib.contextmanager
def signals_left_alone() -> Iterator[None]:
    """Keep Prefect's engine from handling SIGTERM while a flow runs: its handler raises in the middle of the event loop."""
    from prefect import flow_engine

    namespace = vars(flow_engine)
    theirs, namespace["capture_sigterm"] = namespace.get("capture_sigterm"), contextlib.nullcontext
    try:
        yield
    finally:
        namespace["capture_sigterm"] = theirs


class _Redacted(logging.Formatter):
    """Format lines, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
