"""Read configs of promptfoo (``promptfooconfig.yaml``): one experiment for each prompt."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import DataError
from runner.foreign.promptfoo import model_of
from runner.foreign.task import ForeignTask, Left, Lines, parameters, said

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    "equals": ("exact", {}),
    "icontains": ("contains", {}),
    "contains": ("contains", {"ignore_case": False}),
    "regex": ("regex", {}),
}
"""Assertions that one of our scorers makes, with the assertion's value as the row's target."""

_CARRIED = {"description", "prompts", "providers", "tests", "defaultTest"}
_VENDORS = ("openai", "anthropic", "azure", "bedrock", "vertex", "mistral", "ollama", "openrouter")


def is_config(plain: dict[str, Any]) -> bool:
    """Return whether a mapping is a config of promptfoo."""
    return "prompts" in plain and ("providers" in plain or "tests" in plain)


def read(path: Path, lines: Lines) -> list[ForeignTask]:
    """Return the experiments of a config. Raises DataError if it has no prompts or no tests of its own."""
    plain = lines.plain
    left = [Left(lines.of(key), key, "has no place in an experiment") for key in plain if key not in _CARRIED]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(plain.get("description") or path.stem)).strip("-.")[:56] or "promptfoo"
    default = plain.get("defaultTest") if isinstance(plain.get("defaultTest"), dict) else {}
    rows, scoring = _rows(plain.get("tests"), default or {}, lines, left)
    model, sampling = _model(plain.get("providers"), lines, left)
    prompts = plain["prompts"] if isinstance(plain["prompts"], list) else [plain["prompts"]]
    tasks: list[ForeignTask] = []
    for index, given in enumerate(prompts):
        prompt = _prompt(given, path, lines.of(f"prompts.{index}"), left)
        if prompt is None:
            continue
        named = name if len(prompts) == 1 else f"{name}-{index + 1}"
        target = {"target": "expected"} if scoring["kind"] != "none" else {}
        task = ForeignTask(
            tool="promptfoo", name=named, prompt=prompt, data=target, scoring=scoring, sampling=sampling, model=model, rows=rows
        )
        tasks.append(task)
    if not tasks:
        raise DataError(f"{path}: has no prompt that is a text in it or in a file")
    for task in tasks:
        task.left = left
    return tasks


def _prompt(given: Any, path: Path, line: int, left: list[Left]) -> dict[str, Any] | None:
    text = given.get("raw") or given.get("id") if isinstance(given, dict) else given
    if isinstance(text, str) and text.startswith("file://"):
        file = path.parent / text.removeprefix("file://")
        if file.suffix not in (".txt", ".json", ".md") or not file.is_file():
            left.append(Left(line, text, "only prompts in .txt, .md and .json files beside the config are read"))
            return None
        text = file.read_text("utf-8")
    if not isinstance(text, str):
        left.append(Left(line, "a prompt", "is not a text"))
        return None
    if text.lstrip().startswith("["):
        try:
            conversation = said(msgspec.json.decode(text))
        except msgspec.MsgspecError:
            conversation = None
        if conversation is None:
            left.append(Left(line, "a prompt", "a conversation that is more than system and user"))
        return conversation
    return {"user": text}


def _model(given: Any, lines: Lines, left: list[Left]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first provider's model and sampling; the others are left."""
    providers = given if isinstance(given, list) else [given] if given else []
    for index, other in enumerate(providers[1:], 1):
        name = other if isinstance(other, str) else (other or {}).get("id")
        hint = f"play it as well: -m model.name=...,{model_of(str(name))}"
        left.append(Left(lines.of(f"providers.{index}"), f"provider {name}", hint))
    if not providers:
        return {}, {}
    first = providers[0] if isinstance(providers[0], dict) else {"id": providers[0]}
    id_, config = str(first.get("id")), dict(first.get("config") or {})
    line = lines.of("providers.0")
    if id_.partition(":")[0] not in _VENDORS:
        left.append(Left(line, f"provider {id_}", "is not a model's; choose one: model=..."))
        return {}, {}
    model: dict[str, Any] = {"name": model_of(id_)}
    if base := config.pop("apiBaseUrl", None):
        model["api_base"] = base
    if config.pop("apiKey", None) is not None:
        left.append(Left(line, "apiKey", "a key is never written: name its variable, model.api_key_env=..."))
    sampling, rest = parameters(config)
    left += [Left(line, f"providers.0.config.{name}", "is not a parameter that is known; see model.params") for name in rest]
    return model, sampling


def _rows(tests: Any, default: dict[str, Any], lines: Lines, left: list[Left]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows, and the scorer of their assertions: of the first kind that one of ours makes."""
    if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
        raise DataError("tests: only tests that stand in the config are read; write those of a file into it")
    kinds: list[str] = []
    rows: list[dict[str, Any]] = []
    for index, test in enumerate(tests):
        place = f"tests.{index}"
        row: dict[str, Any] = {"id": str(index), **(default.get("vars") or {}), **(test.get("vars") or {})}
        asserted = [*(default.get("assert") or ()), *(test.get("assert") or ())]
        for number, assertion in enumerate(asserted):
            kind = str(assertion.get("type"))
            if kind not in _KINDS or "expected" in row or (kinds and kind != kinds[0]):
                why = (
                    "one assertion of one kind is carried over"
                    if kind in _KINDS
                    else "no scorer is the same; see docs/scoring.md"
                )
                left.append(Left(lines.of(f"{place}.assert.{number}"), f"{place}.assert: {kind}", why))
                continue
            kinds.append(kind)
            row["expected"] = str(assertion.get("value"))
        left += [
            Left(lines.of(f"{place}.{key}"), f"{place}.{key}", "has no place in a row")
            for key in test
            if key not in ("vars", "assert", "description")
        ]
        rows.append(row)
    if len(kinds) != len(rows):
        if kinds:
            left.append(Left(lines.of("tests"), "tests without an assertion that is carried over", "so no row is scored"))
        return [{key: value for key, value in row.items() if key != "expected"} for row in rows], {"kind": "none"}
    kind, fields = _KINDS[kinds[0]]
    return rows, {"kind": kind, **fields}
