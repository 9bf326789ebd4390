"""What a cell is: a hash of its effective config and of the files that it reads. Equal parts of many cells are hashed once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from runner import build
from runner.config.roles import ADJUSTABLE, IDENTITY, group_of
from runner.experiment import training as finetuning
from runner.experiment.drift import digests_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.config.schema import RunConfig
    from runner.data import Dataset

T = TypeVar("T")


class Once:
    """Makes things once for the same sources: the cells of a sweep share the groups in which they do not differ."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], tuple[tuple[object, ...], Any]] = {}

    def get(self, what: str, sources: tuple[object, ...], make: Callable[[], T]) -> T:
        """`what` there is of these sources (told apart by identity); made when it is first asked for."""
        key = (what, *map(id, sources))
        if key not in self._made:
            self._made[key] = (sources, make())  # with the sources, whose ids stay theirs as long as they live
        made: T = self._made[key][1]
        return made


class Identities:
    """Hashes of the cells of a sweep.

    Attributes:
        once: what was made of groups so far.
    """

    def __init__(self) -> None:
        self.once = Once()

    def dataset(self, config: RunConfig) -> Dataset:
        """The rows of this config, read once. Raises ConfigError and DataError."""
        return self.once.get("dataset", (config.data,), lambda: build.dataset(config))

    def of(self, config: RunConfig, values: Mapping[str, Any]) -> str:
        """64 hexadecimal digits.

        Args:
            config: the cell's; its model is no alias.
            values: what is varied; those that leave the answers as they are (limits, launch) tell cells apart all the same.

        Raises:
            ConfigError, DataError: its data or another file cannot be read.
        """
        facts: dict[str, Any] = {name: self._digest(getattr(config, name)) for name in IDENTITY}
        facts["rows"] = self.dataset(config).fingerprint
        facts["files"] = self.once.get("files", (config.prompt, config.scoring), lambda: digests_of(config))
        if config.finetune is not None:  # whose rows are in a file
            parts = (config.finetune, config.model, config.data, config.prompt, config.adapter)
            facts["training"] = self.once.get("training", parts, lambda: finetuning.prepare(config).spec.job)
        facts["values"] = {key: value for key, value in values.items() if group_of(key) in ADJUSTABLE}
        return sha256(facts)

    def _digest(self, part: Any) -> Any:
        if not isinstance(part, msgspec.Struct):
            return part
        return self.once.get("digest", (part,), lambda: sha256(msgspec.to_builtins(part)))


def sha256(value: Any) -> str:
    """The hash of plain data, in hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
