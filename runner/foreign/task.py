"""A config of another tool, as each reader gives it: an experiment, its rows, and a list of what could not be carried over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from runner.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SAMPLING = {
    "temperature": "temperature", "max_tokens": "max_tokens", "max_completion_tokens": "max_tokens", "max_gen_toks": "max_tokens",
    "top_p": "top_p", "seed": "seed", "stop": "stop", "until": "stop", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}  # fmt: skip
"""Parameters of a request as other tools call them, and as the group `sampling` does."""


class Left(msgspec.Struct, frozen=True):
    """Something that could not be carried over: the line of the file (from 1), what it is, and why."""

    line: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}: {self.why}"


class ForeignTask(msgspec.Struct, kw_only=True):
    """Describe one experiment of another tool.

    Attributes:
        tool: whose config it is.
        name: of the experiment.
        prompt, sampling, model: fields of these groups; `model` without a name is left to the config.
        data: fields of the group `data`; without a path, `rows` are written beside the config.
        scoring: its kind, and its fields.
        rows: the rows, if the file holds them.
        left: what could not be carried over.
    """

    tool: str
    name: str
    prompt: dict[str, Any]
    data: dict[str, Any]
    scoring: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    model: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    left: list[Left] = []


class Lines:
    """The values of a YAML file, and the line of each. Tags such as ``!function`` are kept as text.

    Raises:
        DataError: it is not a mapping in YAML.
    """

    def __init__(self, path: Path) -> None:
        self._lines: dict[str, int] = {}
        try:
            root = yaml.compose(path.read_text("utf-8-sig"), Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"{path} cannot be read as YAML: {error}") from None
        self.plain = self._plain(root, "") if root is not None else {}
        if not isinstance(self.plain, dict):
            raise DataError(f"{path} holds no mapping")

    def of(self, path: str) -> int:
        """Return the line of the value at a dotted path, or of the nearest one above it."""
        while path and path not in self._lines:
            path = path.rpartition(".")[0]
        return self._lines.get(path, 1)

    def _plain(self, node: yaml.Node, path: str) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            inner = [
                (str(key.value), f"{path}.{key.value}".strip("."), key.start_mark.line + 1, value) for key, value in node.value
            ]
            self._lines.update({place: line for _, place, line, _ in inner})
            return {key: self._plain(value, place) for key, place, _, value in inner}
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(value, f"{path}.{index}") for index, value in enumerate(node.value)]
        if node.tag.startswith("!"):
            return f"{node.tag} {node.value}"
        return yaml.SafeLoader("").construct_object(node, deep=True)


def parameters(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of a request's parameters is `sampling`, and what is not."""
    sampling = {SAMPLING[name]: value for name, value in given.items() if name in SAMPLING and value is not None}
    if isinstance(sampling.get("stop"), str):
        sampling["stop"] = [sampling["stop"]]
    return sampling, {name: value for name, value in given.items() if name not in SAMPLING and value is not None}


def said(messages: Any) -> dict[str, str] | None:
    """Return system and user of a conversation that is a question; None for a longer one, or one with images."""
    if not isinstance(messages, list) or not all(
        isinstance(one, dict) and isinstance(one.get("content"), str) for one in messages
    ):
        return None
    roles = [one.get("role") for one in messages]
    if roles not in (["user"], ["system", "user"], ["developer", "user"]):
        return None
    return {("user" if role == "user" else "system"): one["content"] for role, one in zip(roles, messages, strict=True)}
