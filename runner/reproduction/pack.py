"""What goes into a capsule: a run's record, the rows and files it used and the answers it got, with nothing of this machine.

Packing plays the run once, from the answers that go in, and refuses to pack what would not come out as recorded.
"""

from __future__ import annotations

import hashlib
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from runner import __version__, build
from runner.cache import ENTRY_VERSION, Cache, Entry, Stored, request_key
from runner.config import schema
from runner.errors import RecordError
from runner.experiment.drift import changes_of, plain, refuse_changed_data, refuse_changed_files
from runner.experiment.experiment import recorded_overrides
from runner.experiment.files import holds_secret_code, named_files, renamed, rooted
from runner.records import FORMAT, find_run
from runner.reproduction import capsule
from runner.reproduction.agreement import changes, has_answer
from runner.reproduction.replay import CACHE, DATA, FILES, Facts, Manifest, stage
from runner.reproduction.traces import Places, refuse_places, refuse_secrets, remember_keys, short
from runner.system.paths import expanded
from runner.types import Choice, Completion, Request, Response, Sample, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.batch.player import Player
    from runner.config.schema import RunConfig
    from runner.data import Dataset
    from runner.records import RunFolder
    from runner.types import Row

Look: TypeAlias = "Callable[[Request, Sample], Entry | None]"
"""Finds the answer to a request of this sample."""

_encode = msgspec.json.Encoder().encode


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A capsule that was made: where, its SHA-256 in hex, its bytes, and what it says of itself."""

    file: Path
    sha256: str
    bytes: int
    facts: Facts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        facts: dict[str, Any] = msgspec.to_builtins(self.facts)
        return {"capsule": str(self.file), "sha256": self.sha256, "bytes": self.bytes, **facts}


def pack(run: str | Path, file: str | Path | None = None, *, runs_dir: str | Path = "runs") -> Packed:
    """Pack a run into one file, which `replay` plays again anywhere. The same run makes the same bytes.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        file: where the capsule goes; None: ``<experiment>-<stamp>.ostinato`` in the working directory.
        runs_dir: where runs are.

    Returns:
        The capsule's file, its SHA-256, its size in bytes, and what it holds.

    Raises:
        RecordError: there is no such run; its data or files have changed since; an answer would not come out as recorded; or
            something in it is a secret, or names a place on this machine that a capsule cannot do without.
        ConfigError, DataError: the config or the data cannot be used any more.
    """
    record = find_run(str(run), Path(runs_dir))
    file = Path(file) if file else Path(f"{record.path.parent.name}-{record.path.name}.ostinato")
    if file.exists() and not capsule.is_capsule(file):
        raise RecordError(f"{file} is there already and is no capsule; give another name")
    record.lock()
    try:
        with tempfile.TemporaryDirectory(prefix="ostinato-") as place:
            packing = _Packing(record, Path(place))
            facts = packing.fill()
            digest = capsule.write(Path(place), packing.names, file, msgspec.to_builtins(facts))
    finally:
        record.close()
    return Packed(file=file, sha256=digest, bytes=file.stat().st_size, facts=facts)


class _Packing:
    """One run on its way into `folder`, whose `names` are the capsule's files.

    Raises:
        ConfigError, DataError, RecordError: as `pack`.
    """

    def __init__(self, record: RunFolder, folder: Path) -> None:
        from runner.config.compose import read

        self.record = record
        self.folder = folder
        self.manifest = record.manifest()
        self.config = read(record.config_file)
        changes_of(record, self.config)  # an edited config.yaml is refused
        self.in_place = rooted(self.config, self.manifest)
        refuse_changed_files(record, self.in_place)
        self.dataset = build.dataset(self.in_place)
        refuse_changed_data(record, self.dataset, build.adapter(self.in_place))
        self.lm = build.lm(self.in_place)
        self.endpoint = self.manifest["model"]["endpoint"]
        self.cache = _cache(self.manifest, self.in_place)
        self.moved: dict[str, str] = {}
        self.code: dict[str, str] = {}
        self.name = f"{record.path.parent.name}/{record.path.name}"
        self.names = ["config.yaml", "overrides.yaml", "manifest.json", "samples.jsonl", DATA, CACHE]

    def fill(self) -> Facts:
        """Write every file of the capsule."""
        from runner.config.compose import to_yaml

        remember_keys(self.config)
        _write_rows(self.folder / DATA, self.dataset)
        config = self._portable(self._copy_files())
        here = {str(self.record.path): self.name, self.manifest.get("cwd", ""): "."}
        self.places = Places({**here, **self.moved})
        manifest = self._portable_manifest(config)
        self.player, self.rows = stage(config, msgspec.convert(manifest, Manifest), self.folder)
        facts = self._write_samples()
        self._put("config.yaml", to_yaml(config).encode())
        self._put(
            "overrides.yaml", to_yaml([text for text in recorded_overrides(self.record) if self._says_nothing(text)]).encode()
        )
        self._put("manifest.json", _pretty(manifest))
        self._write_summary()
        refuse_secrets(self.folder, self.names)
        refuse_places(self.folder, [name for name in self.names if name.endswith(".json")], self.places)
        return facts

    # --- config, files, manifest

    def _copy_files(self) -> RunConfig:
        """The config with its files as the capsule's."""
        named: dict[str, str] = {}
        for number, (key, path) in enumerate(named_files(self.in_place), 1):
            code = key.startswith("scoring")
            content = expanded(path).read_bytes()
            if code and holds_secret_code(content):
                raise RecordError(f"{path} holds what looks like a secret; have the scorer read it from the environment")
            name = f"{FILES}{number}-{'scorer.py' if code else 'prompt.txt'}"
            if code:
                self.code[key] = name
            named[key] = self.moved[path] = name
            self.names.append(name)
            self._put(name, content)
        self.moved |= {path: named[key] for key, path in named_files(self.config)}
        return renamed(self.config, named)

    def _portable(self, config: RunConfig) -> RunConfig:
        """`config` with nothing in it that only this machine has."""
        data = config.data
        for known in (data, self.in_place.data):
            if path := getattr(known, "path", None):
                self.moved[path] = DATA
        rows = schema.JsonlData(path=DATA, name=self.dataset.name, id=data.id, target=data.target, columns=data.columns)
        replace = msgspec.structs.replace
        config = replace(config, data=rows, cache=replace(config.cache, dir=None), runs_dir="runs")
        plain_config = schema.RunConfig()
        config = replace(config, **{name: getattr(plain_config, name) for name in ("schedule", "sweep", "gate", "alias")})
        model, launch = config.model, config.launch
        if isinstance(model, schema.LocalModel):
            self.endpoint = short(self.endpoint)
            config = replace(config, model=replace(model, name=short(model.name)))
            config = replace(config, launch=replace(launch, args=[short(text) for text in launch.args]))
        return config

    def _portable_manifest(self, config: RunConfig) -> dict[str, Any]:
        kept = {key: value for key, value in self.manifest.items() if key not in ("format", "config", "data", "texts", "model")}
        moved: dict[str, Any] = self.places.moved(kept)
        model = {**self.manifest["model"], "requested": build.lm(config).model, "endpoint": self.endpoint}
        if "cache" in moved:
            moved["cache"]["folder"] = None
        same = {key: self.manifest.get(key, {}) for key in ("data", "texts")}
        return {"format": FORMAT, **moved, "cwd": ".", **same, "model": model, "config": plain(config)}

    def _write_summary(self) -> None:
        if summary := self.record.summary():  # a run that was killed has none
            told = {**summary.to_dict(), "run": self.name, "model": self.player.lm.model}
            self._put("summary.json", _pretty(self.places.moved({"format": FORMAT, **told})))
            self.names.append("summary.json")

    def _says_nothing(self, override: str) -> bool:
        """Whether an override names no file and no place; the config says all that it says."""
        return (
            short(override) == override
            and not any(path in override for path in self.moved)
            and not self.places.named_in(override)
        )

    # --- samples and answers

    def _write_samples(self) -> Facts:
        """Write the record's lines, and each answer once, in the order in which they are needed."""
        written: dict[str, bytes] = {}
        without: list[tuple[str, int]] = []
        answers = from_record = 0
        with (self.folder / "samples.jsonl").open("wb") as lines, (self.folder / CACHE).open("wb") as entries:
            for sample, counts in self.record.history():
                if counts and (found := self._answered(sample, written)) is not None:
                    played, asked, known = found
                    answers, from_record = answers + 1, from_record + (not known)
                    sample.request_key = played.request_key
                    for key, stored in asked.items():
                        if key not in written:
                            written[key] = _said(stored)
                            entries.write(_encode(stored) + b"\n")
                elif counts:
                    without.append((sample.id, sample.repeat))
                sample.model_requested = self.player.lm.model
                if sample.error:
                    moved = self.places.moved(sample.error.message)
                    sample.error = msgspec.structs.replace(sample.error, message=moved)
                lines.write(_encode(sample) + b"\n")
        if not answers:
            raise RecordError(f"{self.record.path}: there is nothing to pack: no sample of this run has an answer")
        return Facts(
            ostinato=__version__,
            run=self.name,
            rows=len(self.dataset) * self.config.sampling.repeats,
            answers=answers,
            from_record=from_record,
            without_answer=without,
            code=self.code,
        )

    def _answered(self, sample: Sample, written: dict[str, bytes]) -> tuple[Sample, dict[str, Stored], bool] | None:
        """The sample played again, the answers that it took, and whether they are the cache's; None for one that has no answer.

        Raises:
            RecordError: it would not come out as recorded.
        """
        if not has_answer(sample):
            return None
        row = self.rows.get(sample.id)
        if row is None:
            raise RecordError(f"{self.record.path}: the record has a row {sample.id!r} that is not in the data")
        told = ["it has no answer"]
        for look in (self._from_cache, _from_sample):
            if (found := _played(self.player, row, sample, look)) is None:
                continue
            played, asked = found
            if told := changes(sample, played):
                continue
            if all(written.get(key, _said(stored)) == _said(stored) for key, stored in asked.items()):
                return played, asked, look != _from_sample
        if not told:
            return None  # the same request was answered otherwise for another row: a cache can hold one answer
        raise RecordError(
            f"{self.record.path}: row {sample.id!r} would not come out as recorded: {'; '.join(told)[:500]}; "
            "its scorer or its adapter may have changed since: `ostinato score` computes the scores again"
        )

    def _from_cache(self, request: Request, _sample: Sample) -> Entry | None:
        """What the cache of this machine knows. There, the model may go by a name that is a path."""
        if self.cache is None:
            return None
        endpoint = self.manifest["model"]["endpoint"]
        here = msgspec.structs.replace(request, model=self.lm.model, endpoint=endpoint)
        return self.cache.get(request_key(here))

    def _put(self, name: str, content: bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)


def _played(player: Player, row: Row, sample: Sample, look: Look) -> tuple[Sample, dict[str, Stored]] | None:
    """The sample that comes of the answers that `look` knows, and these by their keys; None when it lacks one."""
    turns = player.turns(row, sample.repeat)
    asked: dict[str, Stored] = {}
    try:
        request = next(turns)
        while (entry := look(request, sample)) is not None:
            key = request_key(request)
            asked[key] = Stored(ENTRY_VERSION, entry.created, entry.response, entry.cost_usd, request)
            request = turns.send(Completion.hit(key, entry.response, entry.cost_usd))
    except StopIteration as end:
        return end.value, asked
    turns.close()
    return None


def _from_sample(request: Request, sample: Sample) -> Entry | None:
    """The answer as the record has it: the last one, or one that the model was asked about again."""
    created = datetime.fromisoformat(sample.started_at).timestamp() if sample.started_at else 0.0
    said = sample.messages or []
    turn = len(request.messages or [])
    if turn < len(said):
        answer = Choice(text=str(said[turn].get("content")), finish_reason="stop")
        return Entry(ENTRY_VERSION, created, Response(choices=[answer], model=sample.model_served))
    response = Response(
        choices=[Choice(text=sample.output, finish_reason=sample.finish_reason)],
        model=sample.model_served,
        usage=sample.usage or Usage(),
        system_fingerprint=sample.system_fingerprint,
    )
    return Entry(ENTRY_VERSION, created, response, sample.saved_usd if sample.cache == "hit" else sample.cost_usd)


def _said(stored: Stored) -> bytes:
    """A digest of what was answered: two answers to one request are the same when it is."""
    answers = [(choice.text, choice.finish_reason, choice.tool_calls) for choice in stored.response.choices]
    return hashlib.sha256(_encode(answers)).digest()


def _cache(manifest: dict[str, Any], config: RunConfig) -> Cache | None:
    """The cache that the run used, if it is there; it is only read."""
    folder = Path(manifest.get("cache", {}).get("folder") or build.cache(config.cache).folder)
    return Cache(folder, mode="read") if (folder / "cache.db").is_file() else None


def _write_rows(file: Path, dataset: Dataset) -> None:
    with file.open("wb") as stream:
        for fields in dataset.records():
            stream.write(_encode(fields) + b"\n")


def _pretty(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(_encode(value), indent=2) + b"\n"
