"""Check definitions of tools in OpenAI's form."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from runner.errors import DataError, OstinatoError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEYS = frozenset({"name", "description", "parameters", "strict"})


class ToolError(OstinatoError):
    """Signal that a tool has failed. It is told to the model, which may correct itself."""


def checked(value: Any) -> list[dict[str, Any]]:
    """Return the tools in a list, or in its JSON. Keys that are null are left out.

    Raises:
        DataError: it is not a list of tools in OpenAI's form.
    """
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(f"it is text, and not the JSON of a list of tools: {error}") from None
    if not isinstance(value, list):
        raise DataError(f"it is {_shown(value)}, and not a list of tools")
    found: list[dict[str, Any]] = []
    for number, tool in enumerate(value, 1):
        try:
            found.append(_tool(tool))
        except DataError as error:
            raise DataError(f"tool {number}: {error}") from None
    names = [tool["function"]["name"] for tool in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two tools have the name {twice!r}")
    return found


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise DataError(f"{_shown(tool)} is not of the form {{type: function, function: {{name, description, parameters}}}}")
    kept = {key: value for key, value in function.items() if value is not None}
    if strange := sorted(kept.keys() - _KEYS):
        raise DataError(f"unknown key {strange[0]!r}; a function has {', '.join(sorted(_KEYS))}")
    name = kept.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"the name {name!r} is not one: up to 64 letters, digits, _ and -")
    if not isinstance(kept.get("parameters", {}), dict):
        raise DataError(f"the parameters of {name!r} are not a JSON Schema: {_shown(kept['parameters'])}")
    return {"type": "function", "function": kept}


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004
