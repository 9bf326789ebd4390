"""Identify a cell by a hash of its effective config and of the files that it reads."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.older import hashed
from runner.config.roles import ADJUSTABLE, IDENTITY, group_of
from runner.config.schema.solver import PlainSolver
from runner.experiment.files import digests_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.experiment.prepared import Once, Prepared


class Identities:
    """Hash the cells of a sweep. Equal groups of many cells are hashed once.

    Args:
        once: keeps the hashes of groups.
    """

    def __init__(self, once: Once) -> None:
        self._once = once

    def of(self, prepared: Prepared, values: Mapping[str, Any]) -> str:
        """Hash a cell, to 64 hexadecimal digits.

        Args:
            prepared: the cell's experiment.
            values: the varied keys and their values. Those that do not change answers (limits, launch) count too.

        Raises:
            ConfigError, DataError: its data or another file cannot be read.
        """
        config = prepared.config
        facts: dict[str, Any] = {name: self._digest(name, getattr(config, name)) for name in IDENTITY}
        if isinstance(config.solver, PlainSolver):  # as before this group was added
            del facts["solver"]
        facts["rows"] = prepared.dataset.fingerprint
        facts["files"] = self._once.get("files", (config.prompt, config.scoring, config.solver), lambda: digests_of(config))
        if config.finetune is not None:  # its rows are in a file
            facts["training"] = prepared.training.spec.job
        facts["values"] = {key: value for key, value in values.items() if group_of(key) in ADJUSTABLE}
        return sha256(facts)

    def _digest(self, group: str, part: Any) -> Any:
        if not isinstance(part, msgspec.Struct):
            return part
        return self._once.get("digest", (part,), lambda: sha256(hashed(group, msgspec.to_builtins(part))))


def sha256(value: Any) -> str:
    """Return the hash of plain data, in hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()
