"""Pack a run into a capsule: its record, rows, files and answers, without anything of this machine.

Packing replays the run once from the answers that go in, and refuses to pack what would differ from the record.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.attachments import names_in
from runner.attachments.store import FOLDER, INDEX, index_lines
from runner.cache import Cache, Entry, request_key
from runner.config import schema
from runner.config.schema.request import RECORDED
from runner.errors import RecordError
from runner.experiment.drift import changes_of, plain, refuse_changed_data, refuse_changed_files
from runner.experiment.files import (
    SOLVER_FILES,
    holds_secret_code,
    is_program,
    named_files,
    program_of,
    renamed,
    rooted,
    runs_compared_with,
)
from runner.experiment.recorded import recorded_overrides
from runner.records import FORMAT, find_run
from runner.reproduction import capsule
from runner.reproduction.answers import Answers
from runner.reproduction.replay import CACHE, DATA, FILES, PROGRAM, Facts, Manifest, stage
from runner.reproduction.traces import Places, refuse_places, refuse_secrets, remember_keys, short
from runner.system.paths import expanded
from runner.tools.record import DEFINITIONS, RESULTS

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.config.schema.model import Model
    from runner.data import Dataset
    from runner.records import RunFolder
    from runner.types import Request, Sample

_encode = msgspec.json.Encoder().encode


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """A new capsule: its file, its SHA-256 in hex, its size in bytes, and what it says of itself."""

    file: Path
    sha256: str
    bytes: int
    facts: Facts

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        facts: dict[str, Any] = msgspec.to_builtins(self.facts)
        return {"capsule": str(self.file), "sha256": self.sha256, "bytes": self.bytes, **facts}


def pack(run: str | Path, file: str | Path | None = None, *, runs_dir: str | Path = "runs") -> Packed:
    """Pack a run into one file that `replay` can replay anywhere. The same run makes the same bytes.

    Args:
        run: a run folder, or a run's name as `load` takes it (``latest``, an experiment, ``<experiment>/<stamp>``, a prefix).
        file: where the capsule goes; None: ``<experiment>-<stamp>.ostinato`` in the working directory.
        runs_dir: where runs are.

    Returns:
        The capsule's file, its SHA-256, its size in bytes, and what it holds.

    Raises:
        RecordError: there is no such run; its data or files have changed since; a replay would differ from the record; or
            something in it is a secret, or a path of this machine that cannot be left out.
        ConfigError, DataError: the config or the data can no longer be used.
    """
    record = find_run(str(run), Path(runs_dir))
    record.refuse_foreign("packed")
    file = Path(file) if file else Path(f"{record.path.parent.name}-{record.path.name}.ostinato")
    if file.exists() and not capsule.is_capsule(file):
        raise RecordError(f"{file} already exists and is not a capsule; give another name")
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
    """Writes the files of one run's capsule to `folder`. `names` are these files.

    Raises:
        ConfigError, DataError, RecordError: as `pack`.
    """

    def __init__(self, record: RunFolder, folder: Path) -> None:
        from runner.config.compose import read_run

        self.record = record
        self.folder = folder
        self.manifest = record.manifest()
        self.config = read_run(record.config_file)
        changes_of(record, self.config)  # refuses an edited config.yaml
        self.in_place = rooted(self.config, self.manifest)
        refuse_changed_files(record, self.in_place)
        self.dataset = build.dataset(self.in_place)
        adapter = build.adapter(self.in_place)
        refuse_changed_data(record, self.dataset, adapter)
        conversation = build.conversation(self.in_place, adapter)
        self._tools = conversation.tools if conversation is not None else None
        if self._tools is not None:
            self._tools.keep(record.path)
        self.lm = build.lm(self.in_place)
        self.named = {name: build.lm(own) for name, own in build.named(self.in_place).items()}
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
        self._copy_attachments()
        self._copy_results()
        here = {str(self.record.path): self.name, self.manifest.get("cwd", ""): "."}
        self.places = Places({**here, **self.moved})
        manifest = self._portable_manifest(config)
        self.asker, self.rows = stage(config, msgspec.convert(manifest, Manifest), self.folder)
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
        """Copy the files that the config names. Returns the config that names the copies."""
        named: dict[str, str] = {}
        for number, (key, path) in enumerate(named_files(self.in_place), 1):
            if key.startswith("prompt.tool"):
                continue  # what the tools returned goes in, in place of their code
            if is_program(key):
                named[key] = self.moved[path] = self._copy_program(key, path)
                continue
            if key == "solver.program":
                named[key] = self.moved[path] = f"{PROGRAM}saved.json"
                self.names.append(named[key])
                self._put(named[key], expanded(path).read_bytes())
                continue
            code = key.endswith(".function")
            content = expanded(path).read_bytes()
            if code and holds_secret_code(content):
                raise RecordError(f"{path} holds what looks like a secret; have the scorer read it from the environment")
            kind = "calibration.txt" if key == "scoring.calibration" else "scorer.py" if code else "prompt.txt"
            name = f"{FILES}{number}-{kind}"
            if code:
                self.code[key] = name
            named[key] = self.moved[path] = name
            self.names.append(name)
            self._put(name, content)
        for key, run in runs_compared_with(self.in_place).items():
            answers = build.other_answers(run, key, Path(self.manifest.get("cwd", ".")) / self.in_place.runs_dir)
            named[key] = name = f"{FILES}{len(named) + 1}-answers.txt"
            self.moved[run] = name
            self.names.append(name)
            self._put(name, b"".join(_encode(one) + b"\n" for one in answers))
        self.moved |= {path: named[key] for key, path in named_files(self.config) if key in named}
        return renamed(self.config, named)

    def _copy_program(self, key: str, path: str) -> str:
        """Copy a program and the files that it imports. Returns the name of the first."""
        files = program_of(key, path)
        for name, content in files.items():
            if holds_secret_code(content):
                raise RecordError(f"{name} beside {path} holds what looks like a secret; have it read from the environment")
            self.code[f"{SOLVER_FILES}{name}"] = f"{PROGRAM}{name}"
            self.names.append(f"{PROGRAM}{name}")
            self._put(f"{PROGRAM}{name}", content)
        return f"{PROGRAM}{next(iter(files))}"

    def _copy_attachments(self) -> None:
        """Copy what the samples of the record attach, and the index of its sources."""
        kept = self.record.path / FOLDER
        if not kept.is_dir():
            return
        used = {name for sample in self.record.samples() for _, name in names_in(sample.messages)}
        for name in sorted(used):
            self.names.append(f"{FILES}{name}")
            self._put(f"{FILES}{name}", (kept / name).read_bytes())
        lines = [line for line in index_lines(kept) if line["file"] in used]
        if lines:
            self.names.append(f"{FILES}{INDEX}")
            self._put(f"{FILES}{INDEX}", b"".join(_encode(line) + b"\n" for line in lines))

    def _copy_results(self) -> None:
        """Copy what tools returned, and which of them were offered."""
        for name in (RESULTS, DEFINITIONS):
            if (kept := self.record.path / name).is_file():
                self.names.append(name)
                self._put(name, kept.read_bytes())

    def _portable(self, config: RunConfig) -> RunConfig:
        """Return `config` without anything that only this machine has."""
        data = config.data
        for known in (data, self.in_place.data):
            if path := getattr(known, "path", None):
                self.moved[path] = DATA
        rows = schema.data.JsonlData(path=DATA, name=self.dataset.name, id=data.id, target=data.target, columns=data.columns)
        replace = msgspec.structs.replace
        prompt = replace(config.prompt, files=None)
        if (tools := self._tools) is not None and tools.runs_code:
            offered = tools.record.definitions()
            prompt = replace(prompt, tools=offered or prompt.tools, tool_results=RECORDED, tool_server=None)
        config = replace(config, data=rows, prompt=prompt, cache=replace(config.cache, dir=None), runs_dir="runs")
        plain_config = schema.RunConfig()
        config = replace(config, **{name: getattr(plain_config, name) for name in ("schedule", "sweep", "gate", "alias")})
        if isinstance(config.model, schema.model.LocalModel):
            self.endpoint = short(self.endpoint)
        if any(isinstance(one.model, schema.model.LocalModel) for one in (config, *build.named(config).values())):
            config = replace(config, launch=replace(config.launch, args=[short(text) for text in config.launch.args]))
        return build.each_model(config, _without_folder)

    def _portable_manifest(self, config: RunConfig) -> dict[str, Any]:
        kept = {key: value for key, value in self.manifest.items() if key not in ("format", "config", "data", "texts", "model")}
        moved: dict[str, Any] = self.places.moved(kept)
        model = {**self._served(self.manifest["model"]), "requested": build.lm(config).model, "endpoint": self.endpoint}
        if "cache" in moved:
            moved["cache"]["folder"] = None
        same = {key: self.manifest.get(key, {}) for key in ("data", "texts")}
        if known := self.manifest.get("models", {}):
            lms = {name: build.lm(own) for name, own in build.named(config).items()}
            same["models"] = {
                name: {
                    **self._served(facts),
                    "requested": lms[name].model,
                    "endpoint": short(facts["endpoint"]) if facts["endpoint"] else None,
                }
                for name, facts in known.items()
            }
        return {"format": FORMAT, **moved, "cwd": ".", **same, "model": model, "config": plain(config)}

    def _served(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the facts of a model. The name that served it may be a path: llama.cpp's server names its file (2026.10)."""
        return {**facts, "served": self.places.moved(facts["served"])} if "served" in facts else facts

    def _write_summary(self) -> None:
        if summary := self.record.summary():  # a run that was killed has none
            told = {**summary.to_dict(), "run": self.name, "model": self.asker.lm.model}
            self._put("summary.json", _pretty(self.places.moved({"format": FORMAT, **told})))
            self.names.append("summary.json")

    def _says_nothing(self, override: str) -> bool:
        """Return whether an override names no file and no path. The config says all that it says."""
        return (
            short(override) == override
            and not any(path in override for path in self.moved)
            and not self.places.named_in(override)
        )

    # --- samples and answers

    def _write_samples(self) -> Facts:
        """Write the lines of the record, and each answer once, in the order in which a replay needs them."""
        found = Answers(self.record.path, self.asker, self.rows, self._from_cache, self._named_from_cache)
        without: list[tuple[str, int]] = []
        answers = from_record = 0
        with (self.folder / "samples.jsonl").open("wb") as lines, (self.folder / CACHE).open("wb") as entries:
            for sample, counts in self.record.history():
                if counts and (answer := found.find(sample)) is not None:
                    answers, from_record = answers + 1, from_record + (not answer.cached)
                    _rekey(sample, answer.sample)
                    for stored in found.use(answer):
                        response = msgspec.structs.replace(stored.response, model=self.places.moved(stored.response.model))
                        entries.write(_encode(msgspec.structs.replace(stored, response=response)) + b"\n")
                elif counts:
                    without.append((sample.id, sample.repeat))
                sample.model_requested = self.asker.lm.model
                sample.model_served = self.places.moved(sample.model_served)
                if sample.error:
                    moved = self.places.moved(sample.error.message)
                    sample.error = msgspec.structs.replace(sample.error, message=moved)
                lines.write(_encode(sample) + b"\n")
        if not answers:
            raise RecordError(f"{self.record.path}: there is nothing to pack: no sample of this run has an answer")
        return Facts(
            ostinato=version("ostinato"),
            run=self.name,
            rows=len(self.dataset) * self.config.sampling.repeats,
            answers=answers,
            from_record=from_record,
            without_answer=without,
            code=self.code,
        )

    def _from_cache(self, request: Request, _sample: Sample) -> Entry | None:
        """Return the answer in the cache of this machine, where the model's name may be a path."""
        if self.cache is None:
            return None
        endpoint = self.manifest["model"]["endpoint"]
        if request.model == self.asker.lm.model:  # a solver may ask others
            request = msgspec.structs.replace(request, model=self.lm.model, endpoint=endpoint)
        return self.cache.get(request_key(request))

    def _named_from_cache(self, name: str, request: Request) -> Entry | None:
        """Do the same for a named model."""
        if self.cache is None:
            return None
        endpoint = self.manifest.get("models", {}).get(name, {}).get("endpoint")
        return self.cache.get(request_key(msgspec.structs.replace(request, model=self.named[name].model, endpoint=endpoint)))

    def _put(self, name: str, content: bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _rekey(sample: Sample, played: Sample) -> None:
    """Give a sample the keys that its requests have in the capsule."""
    sample.request_key = played.request_key
    if sample.steps is not None and played.steps is not None:
        keys = {_encode(step.added): step.request_key for step in played.steps}
        sample.steps = [msgspec.structs.replace(step, request_key=keys.get(_encode(step.added), "")) for step in sample.steps]


def _without_folder(model: Model) -> Model:
    """Return a model without the folder of its weights."""
    if isinstance(model, schema.model.LocalModel):
        return msgspec.structs.replace(model, name=short(model.name))
    return model


def _cache(manifest: dict[str, Any], config: RunConfig) -> Cache | None:
    """Return the cache that the run used, if it exists. It is only read."""
    folder = Path(manifest.get("cache", {}).get("folder") or build.cache(config.cache).folder)
    return Cache(folder, mode="read") if (folder / "cache.db").is_file() else None


def _write_rows(file: Path, dataset: Dataset) -> None:
    with file.open("wb") as stream:
        for fields in dataset.records():
            stream.write(_encode(fields) + b"\n")


def _pretty(value: dict[str, Any]) -> bytes:
    return msgspec.json.format(_encode(value), indent=2) + b"\n"
