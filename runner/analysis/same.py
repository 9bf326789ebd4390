"""Find samples that look independent and are not: the same request, answered once or sent with the same seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.stats.seeds import recorded_rule, seed_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.records.folder import Mark
    from runner.types import Sample

_UNANSWERED = ("error", "refused")


class Asked:
    """The requests of a run, apart from row and repeat.

    Two samples are one answer if their requests have one key (the cache answers the second one), or if they differ in nothing
    but the number of the repeat, which is not sent: repeat 1 of seed 0 was repeat 0 of seed 1 once (see `runner.stats.seeds`).

    Args:
        manifest: the run's; None for samples without one, of which only the keys are known.
        config: the run's, as plain data.
    """

    def __init__(self, manifest: Mapping[str, Any] | None = None, config: Mapping[str, Any] | None = None) -> None:
        self._seed: int | None = None
        self._form: bytes | None = None
        if manifest is None or config is None:
            return
        seed = (manifest.get("seeds") or {}).get("sampling")
        self._seed = seed if isinstance(seed, int) else None
        self._rule = recorded_rule(manifest)
        model, sampling = (dict(config.get(group) or {}) for group in ("model", "sampling"))
        model["params"] = _without(model.get("params"), "seed")
        sent = [model, _without(sampling, "seed", "repeats"), config.get("prompt"), config.get("adapter")]
        files = {name: digest for name, digest in (manifest.get("files") or {}).items() if not name.startswith("scoring")}
        known = [manifest.get("data", {}).get("fingerprint"), manifest.get("model", {}).get("endpoint"), files]
        self._form = msgspec.json.encode([sent, known], order="deterministic")

    def identities(self, sample: Sample | Mark) -> list[int]:
        """Return hashes of which two samples of one answer share one; none if there is no answer."""
        key = key_of(sample)
        if key is None or self._seed is None:
            return [] if key is None else [key]
        return [key, hash((self._form, sample.id, self.seed(sample.repeat)))]

    def has_form_of(self, other: Asked) -> bool:
        """Return whether requests of both runs are the same if their rows and their seeds are."""
        return self._seed is not None and other._seed is not None and self._form == other._form

    def seed(self, repeat: int) -> int:
        """Return the seed that a repeat was sent. There is one if the run `has_form_of` another one."""
        assert self._seed is not None
        return seed_of(self._seed, repeat, self._rule)


def key_of(sample: Sample | Mark) -> int | None:
    """Return a hash of the key of a sample's request; None if there is no answer."""
    return None if sample.request_key is None or sample.status in _UNANSWERED else hash(sample.request_key)


def _without(fields: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if name not in names}
