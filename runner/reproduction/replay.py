"""Replay a capsule on any machine, without network, key or weights, and compare every output and score with its record."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.batch.engine import LOOKUP_BATCH
from runner.cache import Cache, Stored, request_key
from runner.config import schema
from runner.config.older import as_recorded
from runner.config.schema.request import CODE
from runner.errors import CacheError, OstinatoError, RecordError
from runner.experiment.files import named_files, rooted
from runner.experiment.parts import Parts
from runner.lm.lm import Pinned
from runner.records import RunFolder
from runner.reproduction import capsule
from runner.reproduction.agreement import SHOWN, changes, label
from runner.reproduction.checks import of_environment
from runner.types import Sample
from runner.wording.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.batch.asker import Asker
    from runner.config.schema import RunConfig
    from runner.types import Row

DATA, CACHE, FILES = "data.jsonl", "cache.jsonl", "files/"
PROGRAM = f"{FILES}program/"


RECORD = {"manifest.json", "samples.jsonl", DATA, CACHE}
"""Files from which a capsule is replayed."""

_ASKED = ("name", "model", "sampling", "prompt", "data", "adapter", "solver", "scoring")
"""Groups of the config that decide what is asked, and how answers are parsed and scored."""


class Data(msgspec.Struct, frozen=True):
    """The manifest's facts about the rows."""

    fingerprint: str


class Model(msgspec.Struct, frozen=True):
    """The manifest's facts about the model."""

    endpoint: str | None
    not_sent: dict[str, Any] = {}
    limit: str | None = None


class Seeds(msgspec.Struct, frozen=True):
    """The manifest's facts about seeds: `rule` as in `runner.stats.seeds`."""

    rule: int = 1


class Manifest(msgspec.Struct, frozen=True):
    """The part of a run's manifest that a replay uses."""

    config: dict[str, Any]
    data: Data
    model: Model
    environment: dict[str, Any] = {}
    seeds: Seeds = Seeds()
    models: dict[str, dict[str, Any]] = {}


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A capsule's description of itself, in addition to its files.

    Attributes:
        ostinato: the version that packed it.
        run: the run's folder, ``<experiment>/<stamp>``.
        rows: how many samples the run has.
        answers: how many samples can be replayed.
        from_record: how many of these have an answer that is no longer in the cache and was taken from the record.
        without_answer: samples (id, repeat) without an answer: they failed, or their request has two different answers.
        code: files that hold code, by the key that names them in the config.
    """

    ostinato: str
    run: str
    rows: int
    answers: int
    from_record: int = 0
    without_answer: list[tuple[str, int]] = []
    code: dict[str, str] = {}


class Replayed(msgspec.Struct, kw_only=True):
    """The outcome of replaying a capsule.

    Attributes:
        sha256: the digest of the capsule, in hex.
        facts: what the capsule says of itself.
        outputs: how many outputs are byte for byte as recorded.
        scores: how many scores are.
        different: how many samples differ.
        missing: how many samples have no answer, although the capsule says that they have one.
        shown: the first differences, as ``id (repeat n): output: "a" -> "b"``.
        not_scored: scorers that were not run, because they are code that the caller did not trust.
        environment: how this machine and its packages differ from those of the recorded run.
    """

    sha256: str
    facts: Facts
    outputs: int = 0
    scores: int = 0
    different: int = 0
    missing: int = 0
    shown: list[str] = []
    not_scored: list[str] = []
    environment: list[str] = []

    @property
    def identical(self) -> bool:
        """Return whether everything that was replayed is as recorded."""
        return not self.different and not self.missing

    @property
    def exit_code(self) -> int:
        """Return the command's exit code: 0 if all is as recorded, 100 if not, 3 if scores were not computed again."""
        if not self.identical:
            return 100
        return 3 if self.not_scored else 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return {**told.pop("facts"), **told, "identical": self.identical}


def replay(file: str | Path, *, trust_code: bool = False) -> Replayed:
    """Replay the run in a capsule from the answers in it, and compare. Leaves nothing behind.

    Args:
        file: the capsule.
        trust_code: run the scorers that are code inside the capsule. Without it their scores are not computed again.

    Returns:
        How many outputs and scores are byte for byte as recorded, and what differs.

    Raises:
        RecordError: the capsule is damaged, was changed, or is not valid. Nothing of it was used.
    """
    with capsule.opened(Path(file)) as opened:
        try:
            return _replayed(opened, trust_code=trust_code)
        except (msgspec.MsgspecError, OstinatoError) as error:
            told = " ".join(str(error).replace(f"{opened.folder}/", "").replace(str(opened.folder), "its record").split())
            raise RecordError(f"{file} is refused: what it holds cannot be played: {printable(told)}") from None


def _replayed(opened: capsule.Capsule, *, trust_code: bool) -> Replayed:
    folder = opened.folder
    report = Replayed(sha256=opened.sha256, facts=msgspec.convert(opened.contents.facts, Facts))
    if missing := sorted(RECORD - opened.contents.files.keys()):
        raise RecordError(f"it lacks {missing[0]}")
    record = RunFolder.open(folder)
    manifest = msgspec.convert(record.manifest(), Manifest)
    config = _config(manifest.config, set(opened.contents.files))
    for _ in _lines(
        folder / "samples.jsonl", Sample
    ):  # make sure that each can be decoded: `record.samples` skips those that cannot
        pass
    if not trust_code:
        if not isinstance(config.solver, schema.solver.PlainSolver):
            raise RecordError("its answers are made by a program inside it; --trust-code runs it")
        if isinstance(config.adapter, schema.request.PluginAdapter):
            raise RecordError("its answers are read by an adapter of a package; --trust-code runs it")
        config, report.not_scored = without_code(config)
    known = {
        name: value for name, value in manifest.environment.items() if name != "git"
    }  # another repository is not a difference
    elsewhere = (check for check in of_environment({"environment": known}) if check.drifted)
    report.environment = [line for check in elsewhere for line in check.lines()]
    if hasattr(config.model, "transport"):  # nothing is sent, so no package is asked how
        config = msgspec.structs.replace(config, model=msgspec.structs.replace(config.model, transport="auto"))
    asker, rows = stage(config, manifest, folder)
    store = Cache(folder / "cache", mode="write")
    try:
        _fill(store, _lines(folder / CACHE, Stored))
        store.mode = "replay"
        for lm in (asker.lm, *asker.named.values()):
            lm.store = store
        skipped = set(report.facts.without_answer)
        due = (sample for sample in record.samples() if (sample.id, sample.repeat) not in skipped)
        _compare(asker, rows, due, report)
    finally:
        store.close()
    played = report.outputs + report.different + report.missing
    if played != report.facts.answers:
        raise RecordError(f"it claims answers for {report.facts.answers:,} samples, but holds {played:,}")
    return report


def stage(config: RunConfig, manifest: Manifest, folder: Path) -> tuple[Asker, dict[str, Row]]:
    """Return the asker of the run in an unpacked capsule, and its rows by id.

    Raises:
        ConfigError, DataError: the config or the data cannot be used.
        RecordError: the data is not that of the run.
    """
    config = rooted(config, {"cwd": str(folder)})
    if isinstance(config.solver, schema.solver.CommandSolver) and Path(config.solver.argv[0]).is_relative_to(folder):
        Path(config.solver.argv[0]).chmod(0o700)  # a capsule keeps no permissions
    parts = Parts.of(config)
    if parts.dataset.fingerprint != manifest.data.fingerprint:
        raise RecordError("the rows are not those of the run")
    parts.keep(folder, sealed=True)
    parts.lm.pinned = Pinned(manifest.model.endpoint)
    parts.lm.as_recorded(msgspec.structs.asdict(manifest.model))
    if parts.named is not None:
        parts.named.pin(manifest.models)
        parts.named.as_recorded(manifest.models)
    asker = parts.asker()
    asker.seed_rule = manifest.seeds.rule
    return asker, {row.id: row for row in parts.dataset}


def without_code(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Return `config` without the scorers that are code, and their names."""
    scoring: schema.scoring.Scoring = config.scoring
    if isinstance(scoring, schema.scoring.PythonScoring):
        return msgspec.structs.replace(config, scoring=schema.scoring.NoScoring()), [scoring.function.rpartition(":")[2]]
    if isinstance(scoring, schema.scoring.PluginScoring):
        return msgspec.structs.replace(config, scoring=schema.scoring.NoScoring()), [scoring.name]
    if not isinstance(scoring, schema.scoring.SeveralScoring):
        return config, []
    kinds = schema.scoring.PythonScoring | schema.scoring.PluginScoring
    code = [name for name, scorer in scoring.scorers.items() if isinstance(scorer, kinds)]
    kept = {name: scorer for name, scorer in scoring.scorers.items() if name not in code}
    rest = msgspec.structs.replace(scoring, scorers=kept) if kept else schema.scoring.NoScoring()
    return msgspec.structs.replace(config, scoring=rest), code


def _compare(asker: Asker, rows: dict[str, Row], samples: Iterator[Sample], report: Replayed) -> None:
    while batch := list(islice(samples, LOOKUP_BATCH)):
        if strange := next((sample for sample in batch if sample.id not in rows), None):
            raise RecordError(f"the record has a row {strange.id!r} that is not in the data")
        played = asker.from_cache([(rows[sample.id], sample.repeat) for sample in batch])
        for was, now in zip(batch, played, strict=True):
            told = ["no answer"] if now is None else changes(was, now, not_scored=report.not_scored)
            if now is None:
                report.missing += 1
            elif told:
                report.different += 1
            else:
                report.outputs += 1
                report.scores += len(now.scores)
            if told and len(report.shown) < SHOWN:
                report.shown.append(f"{label(was)}: {'; '.join(told)}")


def _config(recorded: dict[str, Any], members: set[str]) -> RunConfig:
    """Return the groups of the run's config that decide its answers. Every file in it must be one of the capsule's."""
    config = msgspec.convert(as_recorded({name: recorded[name] for name in _ASKED if name in recorded}), schema.RunConfig)
    named = [path for _, path in named_files(config)]
    if not isinstance(config.data, schema.data.JsonlData) or config.data.path != DATA:
        raise RecordError(f"its data is not {DATA}")
    prompt = config.prompt
    if prompt.tool_server is not None or any(
        isinstance(one, str) and CODE.fullmatch(one) for one in (prompt.tools, prompt.tool_results)
    ):
        raise RecordError("its config runs tools; a capsule has what they returned")
    if strange := [path for path in named if not path.startswith(FILES) or path not in members]:
        raise RecordError(f"its config names the file {strange[0]!r}, which is not in it")
    return msgspec.structs.replace(config, cache=schema.running.Cache(mode="off"))


def _lines(file: Path, kind: type[Any]) -> Iterator[Any]:
    decode = msgspec.json.Decoder(kind).decode
    with file.open("rb") as stream:
        yield from map(decode, stream)


def _fill(store: Cache, entries: Iterator[Stored]) -> None:
    while batch := list(islice(entries, LOOKUP_BATCH)):
        asked = [(entry.request, entry) for entry in batch if entry.request is not None]
        if len(asked) < len(batch):
            raise CacheError("an answer in it does not say what was asked")
        # keys are computed again: a capsule outlives changes of how they are made
        store.put_many([(request_key(request), entry.response, request, entry.cost_usd) for request, entry in asked])
