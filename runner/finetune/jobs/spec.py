"""The definition of a training: base, data and hyper-parameters. Its id follows from them, so nothing is trained twice."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from runner.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
"""Version of ``spec.json``. Readers refuse a newer one."""

ProviderName = Literal["local", "openai", "databricks", "command"]

FORMATS: dict[ProviderName, tuple[str, ...]] = {
    "local": ("chat", "completion", "preference"),
    "openai": ("chat", "completion", "preference"),
    "databricks": ("chat", "completion"),
    "command": ("chat", "completion", "preference"),
}
"""The formats of training rows that each provider accepts."""

canonical = msgspec.json.Encoder(order="deterministic").encode
"""Canonical JSON: sorted keys, no spaces, UTF-8. Ids and fingerprints hash it, so it must never change."""


class Base(msgspec.Struct, frozen=True):
    """The model that is trained.

    Attributes:
        name: its name, for people.
        identity: the identity of its weights, the same on every machine: ``sha256:...``, or ``openai:NAME@URL``.
        gguf: the weights' file, for a GGUF model on this machine.
        hf: the weights' folder, for a Hugging Face model on this machine.
    """

    name: str
    identity: str
    gguf: str | None = None
    hf: str | None = None


class DataFacts(msgspec.Struct, frozen=True):
    """The numbers of training and validation rows, and the SHA-256 of all of them."""

    rows: int
    fingerprint: str
    valid_rows: int = 0


class Access(msgspec.Struct, frozen=True):
    """How a hosted provider is reached. Not part of the id; holds no secret.

    Attributes:
        api_base: its address; None: the provider's own.
        api_key_env: the environment variable that holds the key.
        poll_s: seconds between two polls of a job.
    """

    api_base: str | None = None
    api_key_env: str | None = None
    poll_s: float = 10.0


class Recipe(NamedTuple):
    """How a model is trained: everything in a spec except its data, and facts about the provider.

    Attributes:
        provider: who trains.
        base: what is trained.
        hyper: the whole hyper-parameters, defaults included.
        access: how a hosted provider is reached.
        window: the tokens that a row may have; None: unknown.
        usd_per_mtokens: the price of a million tokens; None: unknown.
    """

    provider: ProviderName
    base: Base
    hyper: dict[str, Any]
    access: Access | None = None
    window: int | None = None
    usd_per_mtokens: float | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """One training: ``spec.json`` in its folder. Made by `make`."""

    job: str
    provider: ProviderName
    base: Base
    train_data_format: str
    data: DataFacts
    hyper: dict[str, Any]
    access: Access | None = None
    format: int = FORMAT

    @classmethod
    def make(cls, recipe: Recipe, train_data_format: str, data: DataFacts) -> Spec:
        """Make the spec with its id: the first 12 hex digits of the SHA-256 of what decides the trained model.

        The base's path on this machine and the provider's access are not part of the id.

        Raises:
            ConfigError: the provider cannot learn from this format, or early stopping has no rows to validate with.
        """
        check_format(recipe, train_data_format)
        if recipe.hyper.get("early_stopping_patience") and not data.valid_rows:
            raise ConfigError("early_stopping_patience: there are no validation rows; set finetune.data.valid_fraction")
        decisive = [recipe.base.identity, recipe.provider, train_data_format, data.fingerprint, recipe.hyper]
        job = hashlib.sha256(canonical(decisive)).hexdigest()[:12]
        return cls(
            job=job,
            provider=recipe.provider,
            base=recipe.base,
            train_data_format=train_data_format,
            data=data,
            hyper=recipe.hyper,
            access=recipe.access,
        )


def check_format(recipe: Recipe, train_data_format: str) -> None:
    """Raise ConfigError when the provider, with these hyper-parameters, cannot learn from this format."""
    formats = FORMATS[recipe.provider]
    if train_data_format not in formats:
        raise ConfigError(f"{recipe.provider} trains on {' and '.join(formats)} data, not on {train_data_format}")
    if recipe.provider != "local":
        return
    preference = train_data_format == "preference"
    if preference and recipe.hyper.get("backend") != "trl":
        raise ConfigError("preference data is learned on this machine by TRL: finetune.backend=trl (pip install 'ostinato[trl]')")
    if recipe.hyper.get("beta") is not None and not preference:
        raise ConfigError(f"beta: only preference data uses it, and this is {train_data_format} data")


def facts_of(train: Iterable[dict[str, Any]], valid: Iterable[dict[str, Any]] = ()) -> DataFacts:
    """Count and hash rows in their order.

    Raises:
        ConfigError: a row holds a value that JSON cannot hold.
    """
    digest = hashlib.sha256()
    counts = []
    try:
        for rows in (train, valid):
            count = 0
            for row in rows:
                digest.update(canonical(row) + b"\n")
                count += 1
            digest.update(b"\n")
            counts.append(count)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"training data: a row holds a value that JSON cannot hold: {error}") from None
    return DataFacts(counts[0], digest.hexdigest(), counts[1])
