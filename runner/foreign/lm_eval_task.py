"""Read tasks of lm-eval (YAML, ``output_type: generate_until``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from runner.errors import DataError
from runner.foreign.task import ForeignTask, Left, Lines, parameters

if TYPE_CHECKING:
    from pathlib import Path

_CARRIED = {
    "task", "dataset_path", "dataset_name", "dataset_kwargs", "test_split", "validation_split", "output_type", "doc_to_text",
    "doc_to_target", "generation_kwargs", "metric_list", "description", "metadata", "tag", "group", "task_alias", "repeats",
}  # fmt: skip

_COLUMN = re.compile(r"^\s*(?:\{\{\s*)?([A-Za-z_]\w*)\s*(?:\}\})?\s*$")
_SPLITS = ("test_split", "validation_split")


def is_task(plain: dict[str, Any]) -> bool:
    """Return whether a mapping is a task of lm-eval."""
    return "task" in plain and "doc_to_text" in plain


def read(path: Path, lines: Lines) -> list[ForeignTask]:
    """Return the experiment of a task. Raises DataError for one that does not generate text, or has its data elsewhere."""
    plain = lines.plain
    kind = plain.get("output_type", "generate_until")
    if kind != "generate_until":
        raise DataError(f"{path}: output_type {kind}: only tasks that generate text become experiments")
    left = [Left(lines.of(key), key, _why(key)) for key in plain if key not in _CARRIED]
    prompt = {"user": f"{plain.get('description') or ''}{_text(plain, 'doc_to_text', path)}"}
    data, scoring = _data(plain, path), _scoring(plain, lines, left)
    if scoring["kind"] != "none":
        target = str(_text(plain, "doc_to_target", path))
        if found := _COLUMN.match(target):
            data["target"] = found[1]
        else:
            data["columns"], data["target"] = {"expected": target}, "expected"
    sent = dict(plain.get("generation_kwargs") or {})
    sent.pop("do_sample", None)
    sampling, rest = parameters(sent)
    left += [
        Left(lines.of("generation_kwargs"), f"generation_kwargs.{name}", "is not a parameter of `sampling`") for name in rest
    ]
    if isinstance(plain.get("repeats"), int) and plain["repeats"] > 1:
        sampling["repeats"] = plain["repeats"]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(plain["task"])).strip("-.")[:60] or "task"
    return [ForeignTask(tool="lm-eval", name=name, prompt=prompt, data=data, scoring=scoring, sampling=sampling, left=left)]


def _why(key: str) -> str:
    if key in ("filter_list", "process_results"):
        return "answers are scored whole; scoring=numeric, choice and regex find the part that counts"
    if key.startswith(("fewshot", "num_fewshot")):
        return "examples are written out: prompt.examples"
    return "has no place in an experiment"


def _text(plain: dict[str, Any], key: str, path: Path) -> Any:
    value = plain.get(key)
    if value is None or str(value).startswith("!function"):
        raise DataError(f"{path}: {key}: {value or 'is missing'}: only templates are read, and no code")
    return value if "{{" in str(value) else f"{{{{ {value} }}}}"


def _data(plain: dict[str, Any], path: Path) -> dict[str, Any]:
    source, split = str(plain.get("dataset_path")), next((plain[key] for key in _SPLITS if plain.get(key)), "test")
    files = (plain.get("dataset_kwargs") or {}).get("data_files")
    if files is not None:
        found = files.get(split) if isinstance(files, dict) else files
        there = [str((path.parent / one).absolute()) for one in ([found] if isinstance(found, str) else found or [])]
        if not there:
            raise DataError(f"{path}: dataset_kwargs.data_files: has no files of the split {split!r}")
        return {"path": there[0] if len(there) == 1 else there}
    parts = [source, plain.get("dataset_name"), split]
    return {"path": "hf://" + "/".join(str(part) for part in parts if part)}


def _scoring(plain: dict[str, Any], lines: Lines, left: list[Left]) -> dict[str, Any]:
    scoring: dict[str, Any] = {"kind": "none"}
    for index, metric in enumerate(plain.get("metric_list") or ()):
        name = metric.get("metric") if isinstance(metric, dict) else metric
        if name == "exact_match" and scoring["kind"] == "none":
            ignored = isinstance(metric, dict) and bool(metric.get("ignore_case"))
            scoring = {"kind": "exact", **({"ignore_case": True} if ignored else {})}
            continue
        left.append(Left(lines.of(f"metric_list.{index}"), f"metric {name}", "no scorer is the same; see docs/scoring.md"))
    return scoring
