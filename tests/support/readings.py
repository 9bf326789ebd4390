"""Answers in the ways of real models: how each is read, and where the kind was seen.

They are lines of ``readings.jsonl``. The texts are written for the table, in the notations and wordings of their sources. To add
one: add a line with its source, then see whether it is read rightly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple


class Reading(NamedTuple):
    """One answer.

    Attributes:
        scorer: ``numeric``, ``choice``, ``json`` (the adapter), or a scorer that gives a score.
        language: ISO 639-1, perhaps with a country.
        source: where answers of this kind were seen.
        output: the answer.
        value: what is to be read: a fraction as text, a label, JSON; None: nothing. Of other scorers the score.
        options: of the scorer or adapter; ``target`` is that of the row.
    """

    scorer: str
    language: str
    source: str
    output: str
    value: Any
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed


READINGS = [Reading(**json.loads(line)) for line in Path(__file__).with_suffix(".jsonl").read_text("utf-8").splitlines()]
