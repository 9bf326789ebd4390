"""Tell which groups of a config decide an experiment's answers, from the roles that the schema gives them."""

from __future__ import annotations

import hashlib
import re
import typing
from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.load import dump
from runner.config.older import hashed
from runner.config.schema import RunConfig
from runner.config.schema.judging import Asking
from runner.config.schema.roles import Role
from runner.config.schema.running import Budget
from runner.config.schema.solver import PlainSolver

if TYPE_CHECKING:
    from collections.abc import Collection

ROLES: dict[str, Role] = {
    field.name: role
    for field in msgspec.structs.fields(RunConfig)
    for role in typing.get_args(field.type)
    if isinstance(role, Role)
}
"""The role of each group of `RunConfig`, in the order of its fields."""

IDENTITY = tuple(name for name, role in ROLES.items() if role is Role.identity)
"""Groups that may change an answer. A run, a sweep or a pipeline with other ones is another experiment."""

ADJUSTABLE = tuple(name for name, role in ROLES.items() if role is Role.adjustable)
"""Groups that may change when a run, a sweep or a pipeline resumes."""

ASIDE = tuple(name for name, role in ROLES.items() if role is Role.aside)
"""Groups that a single run does not use."""


UNNAMED = frozenset({"execution", "expect", *ASIDE})
"""Groups that the name of a run folder does not depend on."""


def identity_hash(config: RunConfig) -> str:
    """Return the SHA-256 of the groups that may change an answer. It stays the same with a larger budget or other limits."""
    if isinstance(config.scoring, Asking):
        config = msgspec.structs.replace(config, scoring=msgspec.structs.replace(config.scoring, budget=Budget()))
    return _hash(config, IDENTITY)


def config_hash(config: RunConfig) -> str:
    """Return the SHA-256 that names a run folder and that its manifest records: of all groups but `UNNAMED`.

    Unlike `identity_hash` it counts budget, limits and launch, so it tells runs apart that differ in these.
    """
    return _hash(config, [name for name in ROLES if name not in UNNAMED])


def adjusted_like(config: RunConfig, other: RunConfig) -> RunConfig:
    """Return `config` with the adjustable groups of `other`, and its budget of scorers."""
    changed = {name: getattr(other, name) for name in ADJUSTABLE}
    if isinstance(config.scoring, Asking) and isinstance(other.scoring, Asking):
        changed["scoring"] = msgspec.structs.replace(config.scoring, budget=other.scoring.budget)
    return msgspec.structs.replace(config, **changed)


def is_adjustable(override: str) -> bool:
    """Return whether an override sets nothing but what may change when a run resumes."""
    return group_of(override) in ADJUSTABLE or override.lstrip("+~").startswith("scoring.budget")


def fixed(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a config, as plain data, without what may change when a run resumes."""
    kept = {name: value for name, value in plain.items() if name not in ADJUSTABLE}
    if isinstance(scoring := kept.get("scoring"), dict):
        kept["scoring"] = {name: value for name, value in scoring.items() if name != "budget"}
    return kept


def group_of(override: str) -> str:
    """Return the top-level key that an override sets: ``+limits.rpm=60``, ``model=fake``, ``model@scoring.model=fake``."""
    key = override.lstrip("+~").partition("=")[0]
    return re.split(r"[.:]", key.rpartition("@")[2], maxsplit=1)[0]


def _hash(config: RunConfig, groups: Collection[str]) -> str:
    plain = {name: hashed(name, value) for name, value in dump(config).items() if name in groups}
    # configs without one of these groups keep the hash that they had before it was added
    if config.finetune is None:
        del plain["finetune"]
    if isinstance(config.solver, PlainSolver):
        del plain["solver"]
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()
