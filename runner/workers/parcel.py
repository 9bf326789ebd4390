"""Pack what a worker needs of a run: the config and the content of its files. Data, folders and keys stay where they are."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import msgspec

from runner.adapters import conversation_of
from runner.config.schema import RunConfig
from runner.config.schema.data import Data, InlineData
from runner.config.schema.running import Execution
from runner.config.schema.schedule import Schedule
from runner.config.schema.sweep import Sweep
from runner.cost.budget import Budget
from runner.errors import ConfigError
from runner.experiment.files import holds_secret_code, is_program, named_files, program_of, renamed, runs_compared_with
from runner.experiment.parts import Parts
from runner.lm.lm import Pinned
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.batch.asker import Asker
    from runner.data import Dataset
    from runner.experiment.experiment import Experiment
    from runner.lm.lm import LM


class Form(msgspec.Struct, frozen=True):
    """Hold how the requests of one model are made at the head, so that their keys are the same everywhere.

    Attributes:
        endpoint: the pinned endpoint, if `is_pinned`.
        recorded: the form of its requests (`LM.recorded_form`).
        budgeted: whether the head has a budget for it, which needs to know the most that a request may cost.
    """

    is_pinned: bool
    endpoint: str | None
    recorded: dict[str, Any]
    budgeted: bool

    @classmethod
    def of(cls, lm: LM) -> Form:
        """Return the form of a model's requests."""
        return cls(lm.pinned is not None, lm.pinned.endpoint if lm.pinned else None, lm.recorded_form, lm.budget is not None)

    def give(self, lm: LM) -> None:
        """Have a model make its requests in this form."""
        lm.as_recorded(self.recorded)
        lm.budget = Budget() if self.budgeted else None
        if self.is_pinned:
            lm.pinned = Pinned(self.endpoint)


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a worker needs of a run, apart from rows.

    Attributes:
        config: the config; paths are those of `files`.
        names: the path in `files` of each file that the config names, by key.
        files: contents, by path.
        programs: those of `files` that can be run.
        forms: how requests are made, by model; an empty name is the main one.
        seed_rule: how seeds of repeats are derived.
        looked: whether the plan has looked the first request of each slot up.
        tasks: slots that the worker answers at a time.
    """

    config: RunConfig
    names: dict[str, str]
    files: dict[str, bytes]
    programs: list[str]
    forms: dict[str, Form]
    seed_rule: int
    looked: bool
    tasks: int


def pack(experiment: Experiment, tasks: int) -> bytes:
    """Pack a run for its workers.

    Raises:
        ConfigError: something of it cannot travel; the message says what.
    """
    config = experiment.config
    if (why := next(_stuck(experiment), None)) is not None:
        raise ConfigError(f"execution.workers: {why}; play this run with execution.workers.kind=null")
    names, files = _contents(config)
    cache = msgspec.structs.replace(config.cache, dir=None)
    columns = InlineData(**{name: getattr(config.data, name) for name in Data.__struct_fields__})
    bare = {"data": columns, "cache": cache, "execution": Execution(), "sweep": Sweep(), "schedule": Schedule()}
    lms = {"": experiment.lm, **experiment.named.lms}
    parcel = Parcel(
        config=msgspec.structs.replace(renamed(config, names), runs_dir="runs", **bare),
        names=names,
        files=files,
        programs=[names[key] for key, path in named_files(config) if is_program(key) and os.access(expanded(path), os.X_OK)],
        forms={name: Form.of(lm) for name, lm in lms.items()},
        seed_rule=experiment.asker.seed_rule,
        looked=experiment.asker.missing_since is not None,
        tasks=tasks,
    )
    return msgspec.json.encode(parcel)


def unpack(packed: bytes, folder: Path) -> tuple[Parcel, Asker, Parts]:
    """Write the files into a folder, and build what answers rows.

    Raises:
        ConfigError, DataError: it cannot be built here.
    """
    parcel = msgspec.json.decode(packed, type=Parcel)
    for name, content in parcel.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if name in parcel.programs:
            file.chmod(0o700)
    config = renamed(parcel.config, {key: str(folder / name) for key, name in parcel.names.items()})
    parts = Parts.of(config, _no_rows())
    asker = parts.asker()
    asker.seed_rule = parcel.seed_rule
    lms = {"": parts.lm, **asker.named}
    for name, form in parcel.forms.items():
        form.give(lms[name])
    return msgspec.structs.replace(parcel, config=config), asker, parts


def _contents(config: RunConfig) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return the files that a config names: their new paths by key, and contents by path. Raises ConfigError."""
    names: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for number, (key, path) in enumerate(named_files(config)):
        try:
            found = program_of(key, path) if is_program(key) else {PurePath(path).name: expanded(path).read_bytes()}
        except OSError as error:
            raise ConfigError(f"{key}: {path}: {error.strerror}") from None
        is_code = is_program(key) or key.endswith(".function")
        if is_code and (secret := next((name for name, content in found.items() if holds_secret_code(content)), None)):
            raise ConfigError(
                f"{key}: {secret} holds what looks like a secret, which does not travel to a worker; "
                "have it read from the environment"
            )
        names[key] = f"{number}/{next(iter(found))}"
        files |= {f"{number}/{name}": content for name, content in found.items()}
    return names, files


def _stuck(experiment: Experiment) -> Iterator[str]:
    """Yield what of a run cannot travel to a worker."""
    config, parts = experiment.config, experiment.parts
    if conversation_of(parts.adapter) is not None:
        yield "prompt.messages may attach files, which do not travel"
    if parts.tools is not None:
        yield "tools (prompt.tools, prompt.tool_server) are kept in the folder of the run, which does not travel"
    for key, run in runs_compared_with(config).items():
        yield f"{key}={run} is a run, and runs do not travel; name a file of answers"


def _no_rows() -> Dataset:
    from runner.data import open_dataset

    return open_dataset("inline", rows=[{"id": "none"}])
