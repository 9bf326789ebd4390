"""An experiment's stages (plan, launch, play, kill, summarise) and the run folder they write. Knows nothing of who calls them."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from runner import build
from runner.batch.engine import Stop, play, play_cached
from runner.batch.player import Player, Slot
from runner.batch.tally import Tally
from runner.config.load import dump
from runner.config.schema import CsvData, JsonData, JsonlData, LocalModel, PythonScoring, RunConfig, TsvData
from runner.errors import BudgetExceeded, CacheError, ConfigError, EndpointClosedError, OstinatoError, RecordError
from runner.providers import weights
from runner.records import RunFolder, Summary, environment
from runner.secrets import redact
from runner.types import Sample, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.adapters import Adapter
    from runner.data import Dataset
    from runner.lm import LM
    from runner.records.manifest import RunStatus
    from runner.scoring import Scorer

ADJUSTABLE = ("budget", "limits", "launch", "execution")
"""Groups that may change when a run goes on: they do not change what is asked."""

live: dict[str, Experiment] = {}
"""The experiments that this process is playing, by folder."""


class Parts(NamedTuple):
    """What a config is made into."""

    dataset: Dataset
    scorers: dict[str, Scorer]
    lm: LM
    adapter: Adapter

    @classmethod
    def of(cls, config: RunConfig) -> Parts:
        """Build them. Raises ConfigError and DataError."""
        return cls(build.dataset(config), build.scorers(config), build.lm(config), build.adapter(config))


class Experiment:
    """A run folder being played: plan, launch, play, kill, summarise. Made by `create` and `attach`.

    Attributes:
        folder: the run folder, absolute.
        name: the experiment's name.
        overrides: what was given on the command line; free of secrets.
        tally: the running totals.
        stop: set to stop asking.
        on_fetch: told bytes done and in all while weights are fetched.
    """

    def __init__(self, config: RunConfig, record: RunFolder, overrides: Sequence[str], parts: Parts | None = None) -> None:
        self.config = config
        self.record = record
        self.overrides = [redact(override) for override in overrides]
        self.folder = record.path
        self.name = record.path.parent.name
        self.dataset, self.scorers, self.lm, adapter = parts or Parts.of(config)
        self.player = Player(self.lm, adapter, self.scorers, seed=self._seed())
        self.tally = Tally(len(self.dataset) * config.sampling.repeats)
        self.stop = Stop()
        self.problem: OstinatoError | None = None
        self.on_fetch: Callable[[int, int | None], None] | None = None
        self._owed: list[Slot] = []
        self._launched = False
        self._since = time.perf_counter()
        self._wall_before = 0.0

    @classmethod
    def create(cls, config: RunConfig, overrides: Sequence[str] = ()) -> Experiment:
        """Check everything, make the run folder, and record what the cache can answer. Nothing is started or sent.

        Raises:
            ConfigError, DataError: found before a folder is made.
            RecordError: the folder cannot be written.
        """
        from runner.config.compose import to_yaml

        # everything that can be wrong with every row is found before a folder is made
        parts = Parts.of(config)
        parts.adapter.format(next(iter(parts.dataset)))
        endpoint = parts.lm.request(prompt="").endpoint
        name = build.name(config, parts.dataset)
        config = msgspec.structs.replace(config, name=name)
        digest = config_hash(config)
        record = RunFolder.create(
            Path(config.runs_dir),
            name,
            digest,
            config=to_yaml(config),
            overrides=to_yaml([redact(override) for override in overrides]),
            manifest={
                "status": "running",
                "name": name,
                "config_hash": digest,
                "started_at": _now(),
                "cwd": str(Path.cwd()),
                "data": _facts(parts.dataset),
                "files": _files(config),
                "model": {"requested": parts.lm.model, "endpoint": endpoint},
            },
        )
        record.lock()
        experiment = cls(config, record, overrides, parts)
        try:
            experiment._plan(experiment._slots())
        except OstinatoError as error:  # a cache that cannot be used, a full disk: the record says so
            experiment.finish(error)
            raise
        return experiment

    @classmethod
    def reopen(cls, folder: Path, overrides: Sequence[str] = ()) -> Experiment:
        """The experiment of a run folder, with what it still owes.

        Args:
            folder: the run folder.
            overrides: changes that leave the answers as they are: of the groups `ADJUSTABLE`, such as a larger budget.

        Raises:
            RecordError: the folder is no record, or its data has changed since.
            ConfigError, DataError: the config or the data cannot be used any more.
        """
        record = RunFolder.open(folder)
        record.lock()
        try:
            return cls._reopened(record, overrides)
        except BaseException:
            record.close()
            raise

    @classmethod
    def _reopened(cls, record: RunFolder, overrides: Sequence[str]) -> Experiment:
        from runner.config.compose import compose, read, to_yaml

        manifest = record.manifest()
        config = read(record.config_file)
        if overrides:
            if other := [override for override in overrides if override.lstrip("+~").partition(".")[0] not in ADJUSTABLE]:
                raise ConfigError(
                    f"'{redact(other[0])}': a run goes on as it began; only {', '.join(ADJUSTABLE)} may change, "
                    "for example budget.usd=5; for anything else begin a new one with `ostinato run`"
                )
            config = compose(list(overrides), config_name=record.config_file.stem, config_dir=str(record.path)).config()
            record.write_config(to_yaml(config))
            record.log(f"resumed with {' '.join(overrides)}")
        experiment = cls(rooted(config, manifest), record, recorded_overrides(record))
        refuse_drift(record, experiment.dataset, experiment.config)
        if summary := record.summary():
            experiment.restore(summary)
        done = set()
        for sample in record.samples():
            experiment.tally.add(sample)
            done.add((sample.id, sample.repeat))
        if experiment.lm.budget:  # the budget is the whole run's, over all sittings
            tally = experiment.tally
            experiment.lm.budget.spent |= {
                "tokens": tally.usage.total_tokens,
                "requests": tally.requests,
                "usd": tally.cost_usd or 0.0,
            }
        experiment._plan(slot for slot in experiment._slots() if (slot[0].id, slot[1]) not in done)
        return experiment

    @property
    def owed(self) -> int:
        """Samples still to ask the model for."""
        return len(self._owed)

    @property
    def needs_launch(self) -> bool:
        """Whether a model server of our own has to be started before anything can be asked."""
        return isinstance(self.config.model, LocalModel)

    async def launch(self) -> dict[str, Any]:
        """Make the model answer; nothing happens when it does already. Raises LaunchError."""
        began = time.perf_counter()
        model = self.config.model
        if isinstance(model, LocalModel) and model.backend == "llamacpp":
            await asyncio.to_thread(weights.pull, model.name, progress=self.on_fetch)
        await asyncio.to_thread(self.lm.launch)
        self._launched = True
        return {"model": self.lm.model, "api_base": self.lm.kwargs.get("api_base"), "wall_s": time.perf_counter() - began}

    async def play(self) -> dict[str, Any]:
        """Ask what is owed; every finished sample is in the record before the next is begun by its worker.

        Returns:
            Counts: ``{"ok", "errors", "owed"}``.

        Raises:
            EndpointClosedError, BudgetExceeded: no row can be asked any more; the rest stays owed.
            asyncio.CancelledError: `stop` was requested; what was in flight is finished and recorded.
            RecordError: the record cannot be written.
        """
        self.tally.started()
        try:
            await play(self.player, self._owed, self._keep, concurrency=self.config.limits.max_concurrency, stop=self.stop)
        except ExceptionGroup as group:
            raise _first(group) from None
        finally:
            self.tally.stopped()
        if self.stop.reason is not None:
            raise self.stop.reason
        if self.stop.requested:
            raise asyncio.CancelledError("stopped on request")
        return {"ok": self.tally.status["ok"], "errors": self.tally.status["error"], "owed": self.tally.owed}

    def interrupt(self) -> None:
        """Send nothing more; what is in flight is finished and recorded, what waits (for a retry, for the limiter) stays owed."""
        self.stop.request()
        if self.lm.limiter:
            self.lm.limiter.close(EndpointClosedError("the run was asked to stop", model=self.lm.model))

    async def kill(self) -> None:
        """Stop what `launch` started. Does nothing the second time."""
        if self._launched:
            self._launched = False
            await asyncio.to_thread(self.lm.kill)

    def summarise(self) -> Summary:
        """Write the summary and the manifest as things stand now, and return the summary."""
        tally, scores = self.tally, self.tally.scores()
        answered = tally.done - tally.status["error"]
        status: RunStatus = "incomplete" if tally.owed or tally.status["error"] else "complete"
        if self.stop.requested and self.stop.reason is None and tally.owed:
            status = "interrupted"
        elif tally.rows and not answered and not isinstance(self.problem, BudgetExceeded):
            status = "failed"
        problem = str(self.problem) if self.problem else tally.commonest_error if status == "failed" else None
        summary = Summary(
            run=str(self.folder),
            name=self.name,
            model=self.lm.model,
            status=status,
            rows=tally.rows,
            ok=tally.status["ok"],
            errors=tally.status["error"],
            refused=tally.status["refused"],
            truncated=tally.status["truncated"],
            invalid=tally.status["invalid"],
            owed=tally.owed,
            cache_hits=tally.cache_hits,
            requests=tally.requests,
            scores={name: scores.get(name, Score(None, None, 0)) for name in self.scorers},
            usage=tally.usage,
            usage_cached=tally.usage_cached,
            cost_usd=tally.cost_usd,
            saved_usd=tally.saved_usd,
            wall_s=round(self._wall_before + time.perf_counter() - self._since, 3),
            model_s=round(tally.model_s, 3),
            tokens_per_s=round(tally.usage.completion_tokens / tally.model_s, 1) if tally.model_s and tally.requests else None,
            errors_by_code=dict(tally.errors),
            problem=redact(problem) if problem else None,
        )
        self.record.write_summary(summary)
        self.record.write_manifest(self._manifest(summary))
        return summary

    def restore(self, before: Summary) -> None:
        """Take over the times of an earlier sitting of this run."""
        self._wall_before, self._since = before.wall_s, time.perf_counter()
        self.tally.model_s = before.model_s

    def finish(self, failed: OstinatoError | None = None) -> Summary:
        """Summarise, log what went wrong, and let go of the files; `failed` is what ended the run.

        Raises:
            RecordError: the summary cannot be written, and nothing else has gone wrong.
        """
        self.problem = failed or self.problem
        try:
            if self.problem:
                self.record.log(str(self.problem))
            summary = self.summarise()
            self.record.write_report(summary)
        except RecordError:
            if failed is None:
                raise
            return Summary(run=str(self.folder), name=self.name, model=self.lm.model, status="failed")
        else:
            return summary
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the files."""
        self.record.close()
        if self.lm.store:
            self.lm.store.close()

    def _plan(self, slots: Iterator[Slot]) -> None:
        """Record what the cache can answer, and note what is owed. Raises CacheError when replay would owe anything."""
        self._owed = list(play_cached(self.player, slots, self._keep))
        if self._owed and self.config.cache.mode == "replay":
            row, repeat = self._owed[0]
            missing = f"row '{row.id}'" + (f" (repeat {repeat})" if repeat else "")
            raise CacheError(
                f"replay: the cache has no answer for {len(self._owed):,} samples, {missing} first; nothing was sent"
            )

    def _slots(self) -> Iterator[Slot]:
        repeats = self.config.sampling.repeats
        return ((row, repeat) for row in self.dataset for repeat in range(repeats))

    def _keep(self, samples: list[Sample]) -> None:
        if samples:
            self.record.append(samples)
            for sample in samples:
                self.tally.add(sample)

    def _seed(self) -> int | None:
        seed = self.lm.kwargs.get("seed")
        return seed if isinstance(seed, int) else None

    def _manifest(self, summary: Summary) -> dict[str, Any]:
        store = self.lm.store
        previous = self.record.manifest()
        previous.pop("format")
        return {
            **previous,
            "status": summary.status,
            "ended_at": _now(),
            "model": {**previous["model"], **self._served()},
            "scorers": {name: _scorer_facts(scorer) for name, scorer in self.scorers.items()},
            "seeds": {"sampling": self._seed(), "data": self.config.data.seed if self.config.data.shuffle else None},
            "cache": {"mode": self.config.cache.mode, "hits": summary.cache_hits, "folder": str(store.folder) if store else None},
            "tokens": msgspec.to_builtins(summary.usage),
            "cost_usd": summary.cost_usd,
            "wall_s": summary.wall_s,
            "environment": previous.get("environment") or environment(),
        }

    def _served(self) -> dict[str, list[str]]:
        return {"served": sorted(self.tally.models), "fingerprints": sorted(self.tally.fingerprints)}


def attach(folder: str) -> Experiment:
    """The experiment of this folder: the one that is live in this process, else re-opened from its record."""
    return live.get(folder) or Experiment.reopen(Path(folder))


def config_hash(config: RunConfig) -> str:
    """SHA-256 of what the experiment is: the whole config but for where it is recorded and who orchestrates it."""
    plain = {key: value for key, value in dump(config).items() if key not in ("runs_dir", "execution")}
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def rooted(config: RunConfig, manifest: dict[str, Any]) -> RunConfig:
    """`config` with its files where they were when the run began, wherever the command runs now."""
    cwd = Path(manifest.get("cwd", "."))
    replace = msgspec.structs.replace
    if isinstance(config.data, JsonlData | JsonData | CsvData | TsvData):
        config = replace(config, data=replace(config.data, path=str(cwd / config.data.path)))
    prompt, scoring = config.prompt, config.scoring
    names = {name: str(cwd / path) for name in ("system_file", "user_file") if (path := getattr(prompt, name))}
    if names:
        config = replace(config, prompt=replace(prompt, **names))
    if isinstance(scoring, PythonScoring):
        config = replace(config, scoring=replace(scoring, function=str(cwd / scoring.function)))
    return config


def refuse_drift(record: RunFolder, data: Dataset, config: RunConfig) -> None:
    """Raise RecordError when the data, or a file that the config names, is not what it was when the run began."""
    manifest = record.manifest()
    if manifest.get("data", {}).get("fingerprint") != data.fingerprint:
        raise RecordError(f"{record.path}: the data has changed since this run began; start a new one with `ostinato run`")
    for name, digest in _files(config).items():
        if manifest.get("files", {}).get(name, digest) != digest:
            raise RecordError(f"{record.path}: {name} has changed since this run began; start a new one with `ostinato run`")


def _files(config: RunConfig) -> dict[str, str]:
    """SHA-256 of the files that the config names beside the data, by key."""
    named = {"prompt.system_file": config.prompt.system_file, "prompt.user_file": config.prompt.user_file}
    if isinstance(config.scoring, PythonScoring):
        named["scoring.function"] = config.scoring.function.rpartition(":")[0]
    return {key: hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest() for key, path in named.items() if path}


def _facts(data: Any) -> dict[str, Any]:
    """What the manifest says about the data; the ids of very large data stand in the samples only."""
    facts: dict[str, Any] = {"name": data.name, "rows": len(data), "fingerprint": data.fingerprint}
    return facts | ({"ids": list(data.ids())} if len(data) <= 10_000 else {})  # noqa: PLR2004


def _scorer_facts(scorer: Any) -> dict[str, Any]:
    digest = getattr(scorer, "file_sha256", None)
    return {"kind": type(scorer).__name__, **({"file_sha256": digest} if digest else {})}


def recorded_overrides(record: RunFolder) -> list[str]:
    """What the run was asked with. Raises RecordError."""
    import yaml

    try:
        found = yaml.safe_load((record.path / "overrides.yaml").read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise RecordError(f"{record.path / 'overrides.yaml'} cannot be read: {error}") from None
    return [str(override) for override in found or []]


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The one error worth telling: ours before others."""
    flat = [error for error in group.exceptions if not isinstance(error, ExceptionGroup)]
    flat += [_first(error) for error in group.exceptions if isinstance(error, ExceptionGroup)]
    return next((error for error in flat if isinstance(error, OstinatoError)), flat[0])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
