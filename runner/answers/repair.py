"""Repair text that is almost JSON, by json-repair. A repair that changes a value is refused."""

from __future__ import annotations

import json
import re
from typing import Any

from runner.answers.values import NOTHING, decode
from runner.errors import ConfigError

_NUMBER = re.compile(r"(?<=[:\[,{])\s*(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)\s*(?=[,}\]\n]|//|#|/\*|\Z)")


def available() -> None:
    """Raise ConfigError if json-repair is not installed."""
    try:
        import json_repair  # noqa: F401
    except ImportError as error:
        raise ConfigError("adapter.repair needs the package json-repair: pip install 'ostinato[repair]'") from error


def repaired(text: str) -> Any:
    """Return the object or list that `text` was meant to be; `NOTHING` if there is no certain one.

    json-repair 0.64 changes values without saying so: it takes the sign of ``−5``, ``<5`` and ``±5``, and cuts ``10:30`` and
    ``4 of 5``. So a result counts only if each of its texts and numbers stands in `text` as it is.
    """
    import json_repair

    found = json_repair.loads(text)
    value = decode(json.dumps(found))  # refuses NaN and infinities
    if not isinstance(value, (dict, list)) or not value:
        return NOTHING
    numbers = {float(number) for number in _NUMBER.findall(text)}
    return value if _stands(value, text, numbers) else NOTHING


def _stands(value: Any, text: str, numbers: set[float]) -> bool:
    if isinstance(value, dict):
        return all(_stands(part, text, numbers) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(_stands(part, text, numbers) for part in value)
    if isinstance(value, str):
        return value in text or json.dumps(value, ensure_ascii=False)[1:-1] in text
    return value is None or isinstance(value, bool) or float(value) in numbers
