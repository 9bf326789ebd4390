"""Run the proxy in one sitting: a record, a listener, signals, and an end in good order."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.config.roles import config_hash
from runner.config.schema.data import JsonlData
from runner.config.schema.model import LocalModel
from runner.config.schema.request import Prompt
from runner.config.schema.scoring import NoScoring
from runner.errors import ConfigError
from runner.experiment.drift import manifest_of
from runner.experiment.experiment import Experiment, report_or_warn
from runner.experiment.files import rooted
from runner.experiment.parts import Parts
from runner.experiment.served import pin
from runner.models import served
from runner.network.serving import Listener
from runner.proxy.gateway import ROWS, Gateway
from runner.records import RunFolder, Summary
from runner.secrets import redact, remember
from runner.session.loop import collecting_less, in_new_loop
from runner.system.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.config.schema import RunConfig
    from runner.lm.lm import LM

NAME = "proxy"
"""The name of the experiment, unless the config has one."""


class Address(msgspec.Struct, frozen=True):
    """Where the proxy listens: `url` ends in ``/v1``; `key` is what clients send; `run` is the record."""

    url: str
    key: str
    run: Path


class Served(msgspec.Struct, frozen=True):
    """The record of what a proxy has served; both are None if it was asked nothing."""

    folder: Path | None
    summary: Summary | None


def serve(
    config: RunConfig,
    overrides: Sequence[str] = (),
    *,
    port: int = 0,
    key: str | None = None,
    ready: Callable[[Address], None],
) -> Served:
    """Serve programs until SIGINT or SIGTERM, then finish what is in flight and write the record. A second signal stops at once.

    Args:
        config: the model, and its cache, limits, budget and sampling. Sampling applies where a request says nothing.
        overrides: those to record.
        port: on 127.0.0.1; 0: a free one.
        key: what clients have to send; None: a random one.
        ready: called when it listens.

    Raises:
        ConfigError: the model's key is not set, or the port is taken.
        LaunchError: a local model cannot be started.
        RecordError: the record cannot be written.
    """
    config = _recorded(config)
    lm = build.lm(config)
    remember(key := key or f"ostinato-{secrets.token_urlsafe(24)}")
    record = _begin(config, lm, overrides)
    began = time.perf_counter()
    try:
        with collecting_less(), _launched(config, lm):
            gateway = Gateway(lm, record, key)
            try:
                in_new_loop(_until_stopped(gateway, lm, port, lambda url: ready(Address(url, key, record.path))))
            finally:
                gateway.close()
        if not gateway.asked:
            shutil.rmtree(record.path, ignore_errors=True)
            return Served(None, None)
        return Served(record.path, _finish(config, record, time.perf_counter() - began))
    finally:
        record.close()
        if lm.store:
            lm.store.close()


def _recorded(config: RunConfig) -> RunConfig:
    """Return the config as it is recorded: its rows are the requests."""
    replace = msgspec.structs.replace
    name = config.name or NAME
    return replace(
        config,
        model=build.pinned(config.model),
        name=name,
        prompt=Prompt(user="{{ input }}"),
        data=JsonlData(path=ROWS, id="id", name=name),
        scoring=NoScoring(),
        sampling=replace(config.sampling, repeats=1),
        finetune=None,
    )


def _begin(config: RunConfig, lm: LM, overrides: Sequence[str]) -> RunFolder:
    from runner.config.compose import to_yaml

    assert config.name is not None
    begun = {
        "status": "running",
        "name": config.name,
        "config_hash": config_hash(config),
        "started_at": now(),
        "foreign": {"tool": "a program, through the proxy"},
        "model": {"requested": lm.model, "endpoint": lm.request(prompt="").endpoint, **lm.recorded_form},
    }
    asked = to_yaml([redact(override) for override in overrides])
    record = RunFolder.create(
        Path(config.runs_dir), config.name, config_hash(config), config=to_yaml(config), overrides=asked, manifest=begun
    )
    record.lock()
    return record


@contextlib.contextmanager
def _launched(config: RunConfig, lm: LM) -> Iterator[None]:
    """Have the model ready within the block: started if it is local, its key read, its limiter shared, its weights named."""
    local = isinstance(config.model, LocalModel)
    try:
        if local:
            if config.model.backend == "llamacpp":  # type: ignore[union-attr]
                served.pull(config.model.name)
            lm.launch()
        if config.cache.mode != "replay":
            lm.kwargs.update(build.access(config))
        pin(config, lm)
        lm.limiter = build.limiter(config, lm)
        with lm.limiter.using():
            yield
    finally:
        if local:
            lm.kill()


async def _until_stopped(gateway: Gateway, lm: LM, port: int, ready: Callable[[str], None]) -> None:
    listener, stop, loop = Listener(gateway.handle), asyncio.Event(), asyncio.get_running_loop()
    try:
        await listener.start(port)
    except OSError as error:
        raise ConfigError(f"--port {port}: cannot listen on 127.0.0.1:{port}: {error.strerror}") from None

    def hear() -> None:
        if gateway.stopping:
            listener.close()
        gateway.stopping = True
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, hear)
    try:
        ready(f"http://127.0.0.1:{listener.port}/v1")
        await stop.wait()
        await listener.drain()
    finally:
        listener.close()
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        await lm.aclose()


def _finish(config: RunConfig, record: RunFolder, wall_s: float) -> Summary:
    """Count the samples as those of a run are counted, and write manifest, summary and page."""
    in_place = rooted(config, {"cwd": str(record.path)})
    parts = Parts.of(in_place)
    manifest: dict[str, Any] = record.manifest()
    manifest.pop("format")
    record.write_manifest({**manifest, "cwd": str(record.path), **manifest_of(config, in_place, parts.dataset)})
    experiment = Experiment(in_place, record, (), parts)
    experiment.restore(Summary(run="", name="", model="", status="complete", wall_s=wall_s))
    for sample in record.samples():
        experiment.count(sample)
    summary = experiment.summarise()
    report_or_warn(record.path)
    experiment.close()
    return summary
