"""Write a run of another tool as a record of ours: a run folder that says so, with its rows beside its samples."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.config.roles import config_hash
from runner.config.schema import RunConfig
from runner.config.schema.data import JsonlData
from runner.config.schema.model import LiteLLMModel
from runner.config.schema.request import Prompt, Sampling
from runner.config.schema.scoring import NoScoring
from runner.errors import DataError, RecordError
from runner.experiment.drift import manifest_of
from runner.experiment.experiment import Experiment, report_or_warn
from runner.experiment.files import rooted
from runner.experiment.parts import Parts
from runner.foreign import inspect, lm_eval, promptfoo
from runner.records import RunFolder, Summary
from runner.scoring.targets import Comparison
from runner.system.clock import now
from runner.wording.numbers import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.cost.pricing import Price
    from runner.foreign.run import ForeignRun
    from runner.types import Row, Sample

ROWS = "rows.jsonl"
"""The rows of a foreign run, in its folder: what each was asked, and its target."""

_HEAD = 4096
_BATCH = 256


class Imported(msgspec.Struct, frozen=True):
    """One run that was imported.

    Attributes:
        folder: the record.
        summary: its numbers.
        unread: what of the file has no place in a record, in sentences.
    """

    folder: Path
    summary: Summary
    unread: list[str]


class _Theirs(Comparison):
    """A scorer of another tool: its scores stand in the record, and it cannot be asked for more."""

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002
        """Raise RecordError."""
        raise RecordError(f"{self.name}: a scorer of another tool cannot be used again")


def import_run(
    file: str | Path,
    *,
    name: str | None = None,
    id: str | None = None,  # noqa: A002 - as data.id
    runs_dir: str | Path = "runs",
) -> list[Imported]:
    """Make records of the runs that a file of another tool holds. Nothing is asked, and the file stays as it is.

    Args:
        file: an ``.eval`` or ``.json`` log of inspect_ai; ``samples_*.jsonl`` of lm-eval; results of promptfoo.
        name: of the experiment; None: the task's name in the file.
        id: the column that holds the id of a row, dotted (``metadata.id``, ``doc.id``, ``vars.id``); None: the id in the file.
            Rows of two runs are compared if they have the same id.
        runs_dir: where runs are.

    Returns:
        One record; several of a file of promptfoo with several providers or prompts.

    Raises:
        DataError: the file cannot be read, or is of no format that is known.
        RecordError: the record cannot be written.
    """
    path = Path(file)
    digest = _digest(path)
    return [_written(run, path, f"{digest}-{number}", name, id, Path(runs_dir)) for number, run in enumerate(_open(path))]


def _open(path: Path) -> list[ForeignRun]:
    if path.suffix == ".eval":
        return inspect.read_eval(path)
    if lm_eval.is_samples(path):
        return lm_eval.read(path)
    head = _head(path)
    if promptfoo.is_results(head):
        return promptfoo.read(path)
    if inspect.is_log(head):
        return inspect.read_json(path)
    raise DataError(
        f"{path}: is of no format that is known: .eval and .json logs of inspect_ai, samples_*.jsonl of lm-eval, "
        "results of promptfoo (promptfoo eval -o results.json)"
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def _written(run: ForeignRun, path: Path, digest: str, name: str | None, id_: str | None, runs_dir: Path) -> Imported:
    from runner.config.compose import to_yaml

    config = _config(run, name)
    assert config.name is not None
    mark = hashlib.sha256(digest.encode()).hexdigest()
    begun = {"status": "running", "name": config.name, "foreign": _foreign(run, path, digest)}
    record = RunFolder.create(runs_dir, config.name, mark, config=to_yaml(config), overrides=to_yaml([]), manifest=begun)
    record.lock()
    try:
        seen = _stream(run, record, build.lm(config).channel().price, id_)
        summary = _finish(run, record, config if seen.target else _without_target(config), begun, seen.scores(run))
    except BaseException:
        record.close()
        shutil.rmtree(record.path, ignore_errors=True)  # half of a run is not a record, and the file is still there
        raise
    return Imported(record.path, summary, run.unread)


def _foreign(run: ForeignRun, path: Path, digest: str) -> dict[str, Any]:
    """Return what the manifest says of the tool that made the run."""
    facts = {name: value for name, value in run.facts.items() if value not in (None, [], {})}
    told = {"tool": run.tool, "version": run.version, "format": run.format, "task": run.task, "file": path.name}
    return {**told, "sha256": digest.partition("-")[0], "facts": facts, "unread": run.unread}


def _config(run: ForeignRun, name: str | None) -> RunConfig:
    """Return a config that says what is known of the run. It names the rows that are written beside it."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name or run.task).strip("-.")[:64] or run.tool
    known = {"temperature": None, "max_tokens": None, **run.params}
    try:
        sampling = msgspec.convert({**known, "repeats": run.repeats}, Sampling)
    except msgspec.ValidationError as error:
        run.unread.append(f"parameters that have no place in a config ({error}){listed(run.params)}")
        sampling = Sampling(temperature=None, max_tokens=None, repeats=run.repeats)
    return RunConfig(
        name=safe,
        model=LiteLLMModel(name=run.model.rstrip("/") or "unknown"),
        sampling=sampling,
        prompt=Prompt(user="{{ input }}"),
        data=JsonlData(path=ROWS, id="id", target="target", name=safe),
        scoring=NoScoring(),
    )


def _without_target(config: RunConfig) -> RunConfig:
    return msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, target=None))


class _Seen:
    """Keep what was seen while a run was read: whether a row has a target, and the names of scores."""

    def __init__(self) -> None:
        self.rows: set[str] = set()
        self.target = False
        self.names: dict[str, None] = {}

    def scores(self, run: ForeignRun) -> list[str]:
        """Return the names of the scores that samples have, in the order of the run's own; all of its own if none has any."""
        known = [name for name in run.scores if name in self.names or not self.names]
        return list(dict.fromkeys([*known, *self.names]))


def _stream(run: ForeignRun, record: RunFolder, price: Price | None, id_: str | None) -> _Seen:
    """Write rows and samples as they are read. Each row is written once."""
    seen = _Seen()
    batch: list[Sample] = []
    encode = msgspec.json.Encoder().encode
    try:
        with (record.path / ROWS).open("wb") as rows:
            for row, sample in _named(run, id_):
                seen.names.update(dict.fromkeys(sample.scores))
                if row.id not in seen.rows:
                    seen.rows.add(row.id)
                    seen.target = seen.target or row.target is not None
                    rows.write(encode({"id": row.id, **row.fields, "target": row.target}) + b"\n")
                if sample.cost_usd is None and sample.usage is not None and price is not None:
                    sample.cost_usd = price.cost(sample.usage)
                batch.append(sample)
                if len(batch) == _BATCH:
                    record.append(batch)
                    batch.clear()
    except OSError as error:
        raise RecordError(f"{record.path / ROWS} cannot be written: {error.strerror}") from None
    if batch:
        record.append(batch)
    if not seen.rows:
        raise DataError(f"the {run.format} of {run.tool} has no samples")
    return seen


def _named(run: ForeignRun, id_: str | None) -> Iterator[tuple[Row, Sample]]:
    """Yield rows and samples, under the ids that the column `id_` gives them."""
    if id_ is None:
        yield from run.stream()
        return
    rows: dict[str, str] = {}
    for row, sample in run.stream():
        found: Any = row.fields
        for part in id_.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, str | int) or isinstance(found, bool):
            raise DataError(f"--id {id_}: row {row.id!r} has no text and no number there; it has {', '.join(row.fields)}")
        if rows.setdefault(str(found), row.id) != row.id:
            raise DataError(f"--id {id_}: rows {rows[str(found)]!r} and {row.id!r} are both {str(found)!r}")
        sample.id = str(found)
        yield msgspec.structs.replace(row, id=sample.id), sample


def _finish(run: ForeignRun, record: RunFolder, config: RunConfig, begun: dict[str, Any], scores: list[str]) -> Summary:
    """Count the samples as those of a run of ours are counted, and write manifest, summary and page."""
    from runner.config.compose import to_yaml

    in_place = rooted(config, {"cwd": str(record.path)})
    parts = Parts.of(in_place)._replace(scorers={name: _Theirs(name) for name in scores})
    record.write_config(to_yaml(config))
    record.write_manifest(
        {
            **begun,
            "config_hash": config_hash(config),
            "started_at": run.started_at or now(),
            "cwd": str(record.path),
            **manifest_of(config, in_place, parts.dataset),
            "model": {"requested": run.model, "endpoint": None},
            "environment": {"packages": {run.tool: run.version or "unknown"}},
            "remarks": run.unread,
        }
    )
    experiment = Experiment(in_place, record, (), parts)
    experiment.restore(Summary(run="", name="", model="", status="complete", wall_s=run.wall_s))
    for sample in record.samples():
        experiment.count(sample)
    experiment.summarise()
    ended = {"ended_at": run.ended_at or run.started_at or now()}
    manifest = record.manifest()
    manifest.pop("format")
    record.write_manifest({**manifest, **ended})
    report_or_warn(record.path)
    experiment.close()
    summary = record.summary()
    assert summary is not None
    return summary
