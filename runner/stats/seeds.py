"""The seed that each repeat of a row is sent."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

RULE = 2
"""The rule by which new runs derive seeds. The manifest records it: a run resumes and replays with the seeds it began with."""

_SEEDS, _REPEATS = 2**14, 2**15
_FIRST = 2**30
_BLOCKS = _SEEDS * _REPEATS
_SPREAD = 331_804_471
"""Odd, and 2^29 over the golden ratio: multiples of it modulo 2^29 are all different, and neighbours are far apart."""


def seed_of(seed: int, repeat: int, rule: int = RULE) -> int:
    """Return the seed of a repeat. Repeat 0 is sent the seed itself.

    Rule 2: no two pairs of seed and repeat share a seed, if seeds are below 16,384 and repeats below 32,768: derived seeds begin
    at 2^30. They are spread, because a server may draw the answers of one request (`n`) with consecutive seeds (llama.cpp does).
    Other pairs get a hash, and share a seed by chance alone. Derived seeds are below 2^31.

    Rule 1 (runs that began before rule 2): ``seed + repeat``, so repeat 1 of seed 0 is sent the seed of repeat 0 of seed 1.

    Args:
        seed: the seed of the config.
        repeat: which repeat of the row, from 0.
        rule: 1 or 2.
    """
    if rule == 1:
        return seed + repeat
    if repeat == 0:
        return seed
    if 0 <= seed < _SEEDS and repeat < _REPEATS:
        return _FIRST + (seed * _REPEATS + repeat) * _SPREAD % _BLOCKS
    digest = hashlib.sha256(b"%d:%d" % (seed, repeat)).digest()
    return _FIRST + _BLOCKS + int.from_bytes(digest[:8], "big") % (_FIRST - _BLOCKS)


def recorded_rule(manifest: Mapping[str, Any]) -> int:
    """Return the rule that a run's manifest records; 1 if it records none, because the run began before rule 2."""
    known = manifest.get("seeds")
    return RULE if isinstance(known, dict) and known.get("rule") == RULE else 1
