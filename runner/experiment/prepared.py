"""Prepare configs: the alias of a model resolved, the data opened and the training rows read, each of them once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runner import build
from runner.config.schema.data import InlineData
from runner.experiment import prompts, targets
from runner.experiment.expected import Expected
from runner.experiment.files import rooted
from runner.experiment.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.config.schema import RunConfig
    from runner.config.schema.model import Model
    from runner.data import Dataset
    from runner.experiment.training import PreparedTraining, TrainingRows

T = TypeVar("T")


class Once:
    """Make things once for the same sources. The cells of a sweep share the groups in which they do not differ."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[tuple[object, ...], Any]] = {}

    def get(self, what: str, sources: tuple[object, ...], make: Callable[[], T]) -> T:
        """Return the `what` made from these sources (compared by identity). It is made on the first call."""
        key = (what, *map(id, sources))
        if key not in self._made:
            self._made[key] = (sources, make())  # keeps the sources alive, so that their ids stay unique
        made: T = self._made[key][1]
        return made


class Sources:
    """Read what configs refer to, once for all configs that refer to the same, so that the cells of a sweep agree.

    Attributes:
        once: things made from groups so far.
    """

    def __init__(self) -> None:
        self.once = Once()
        self._models: dict[bytes, Model] = {}
        self._datasets: dict[bytes, Dataset] = {}
        self._rows: dict[bytes, TrainingRows] = {}

    def pinned(self, config: RunConfig) -> RunConfig:
        """Replace the alias of a model (``tickets@latest``) by the model that it named when it was first resolved here."""
        return build.each_model(config, self._pinned)

    def _pinned(self, model: Model) -> Model:
        key = _encoded(model)
        if key not in self._models:
            self._models[key] = build.pinned(model)
        return self._models[key]

    def dataset(self, config: RunConfig) -> Dataset:
        """Open the data of a config. Raises ConfigError and DataError."""
        key = self.once.get("encoded", (config.data,), lambda: _encoded(config.data))
        if key not in self._datasets:
            self._datasets[key] = build.dataset(config)
        return self._datasets[key]

    def check_prompts(self, config: RunConfig, parts: Parts) -> None:
        """Check the prompts of all rows, once. Raises ConfigError and DataError."""
        made = (config.data, config.prompt, config.adapter, config.model)
        self.once.get("prompts", made, lambda: prompts.check(parts))

    def training_rows(self, config: RunConfig) -> TrainingRows:
        """Read the training rows of a config. Raises as `read_rows` does."""
        from runner.experiment.training import read_rows

        assert config.finetune is not None
        chosen, runs_dir = config.finetune.data, Path(config.runs_dir)
        key = msgspec.json.encode((chosen, config.runs_dir), order="sorted")
        if key not in self._rows:
            self._rows[key] = read_rows(chosen, runs_dir)
        return self._rows[key]


def _encoded(group: object) -> bytes:
    """Encode a group of a config. A value that JSON cannot hold, which is refused later, is written as Python shows it."""
    try:
        return msgspec.json.encode(group, order="sorted")
    except (TypeError, ValueError):
        return repr(group).encode("utf-8", "backslashreplace")


class Prepared:
    """A config whose model is pinned, with its data and its training rows. Both are read when first used, and only once.

    Made by `prepare`.

    Attributes:
        config: the experiment; its model is not an alias.
        cwd: the folder that relative names of files start from; None: the working directory.
        in_place: `config` with the names of its files absolute, where there is a `cwd`.
    """

    def __init__(self, config: RunConfig, sources: Sources, cwd: Path | None = None) -> None:
        self.config = config
        self.cwd = cwd
        self.in_place = rooted(config, {"cwd": str(cwd)}) if cwd else config
        self._sources = sources

    def replace(self, **groups: Any) -> Prepared:
        """Return the experiment with other groups. Data that does not depend on them is not read again."""
        return Prepared(msgspec.structs.replace(self.config, **groups), self._sources, self.cwd)

    @property
    def dataset(self) -> Dataset:
        """The rows. Raises ConfigError and DataError."""
        return self._sources.dataset(self.in_place)

    @property
    def name(self) -> str:
        """The experiment's name. Raises as `dataset` does."""
        return build.name(self.config, self.dataset)

    @property
    def training(self) -> PreparedTraining:
        """The training that the config asks for, checked. Nothing is begun, and nothing sent.

        Only weights from a hub are fetched, because their revision is not known before.

        Raises:
            ConfigError: the config does not say what to train, or on what.
            DataError: the training rows are wrong, or contain questions of the evaluation.
            RecordError: the run whose answers are to be learned does not exist.
        """
        config = self.in_place
        parts = (config.finetune, config.model, config.data, config.prompt, config.adapter)
        return self._sources.once.get("training", parts, self._training)

    def parts(self) -> Parts:
        """Build what an experiment needs, check the prompts of all rows, and the first targets. No weights are needed.

        The model and the adapter are made for each call.

        Raises:
            ConfigError, DataError: found before anything is made on disk or sent.
        """
        parts = Parts.of(self.in_place, self.dataset)
        if parts.solver is None:
            self._sources.check_prompts(self.in_place, parts)
        Expected(self.in_place, parts.dataset, parts.scorers)  # raises for what cannot be expected
        targets.refuse_hopeless(parts.dataset, parts.scorers)
        parts.lm.parameters()  # raises for what the model does not take
        if parts.named is not None:
            parts.named.check()
        return parts

    def _training(self) -> PreparedTraining:
        from runner.experiment.training import prepare_training

        config = self.in_place
        recipe = build.finetuning(config)
        rows = self._sources.training_rows(config)
        measured = not isinstance(config.data, InlineData) or config.data.rows
        evaluation = (self.dataset, build.adapter(config)) if measured else None
        return prepare_training(config, recipe, rows, evaluation)


def prepare(config: RunConfig, *, cwd: Path | None = None, sources: Sources | None = None) -> Prepared:
    """Pin the model of a config. Everything else is read when it is first used.

    Args:
        config: the experiment.
        cwd: the folder that relative names of files start from; None: the working directory.
        sources: what other configs have read already, to be shared with them.

    Raises:
        ConfigError: the config names a model by an alias that does not exist.
    """
    known = sources or Sources()
    return Prepared(known.pinned(config), known, cwd)
