"""Read what the shipped YAML files say about their keys: the comments beside them."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import yaml

from runner.config.folders import kind_of
from runner.system.paths import shipped_conf

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIRECTIVE = re.compile(r"#\s*(?:@package\b|yaml-language-server:)")
_COMMENT = re.compile(r"\s*#\s?(?P<text>.*?)\s*$")


@functools.cache
def meanings(group: str = "", kind: str | None = None) -> dict[str, str]:
    """Return what conf says about each key of a group, by its path in the group, such as ``price.prompt`` in `model`.

    Under '' is what it says about the option as a whole. Keys that the option does not explain are as in the group's default.

    Args:
        group: a config group; '' for the keys of a config, such as ``runs_dir``, and what groups are for (``defaults.GROUP``).
        kind: of a group with kinds, whose fields are meant; None: the group's default.
    """
    if not group:
        return comments((shipped_conf() / "config.yaml").read_text("utf-8"))
    folder = shipped_conf() / group
    default = comments((folder / "default.yaml").read_text("utf-8"))
    file = folder / f"{kind}.yaml"
    if kind is None or kind_of(folder / "default.yaml") == kind or not file.is_file():
        return default
    return {**{path: text for path, text in default.items() if path not in ("", "kind")}, **comments(file.read_text("utf-8"))}


def comments(text: str) -> dict[str, str]:
    """Return the comment on each key of a YAML text, by the key's path; '' has the lines above all keys.

    A comment stands behind the value, and goes on in lines of its own below it, in the same column. If there is none, the
    lines right above the key are taken. An item ``/GROUP@KEY: OPTION`` of the defaults list speaks for KEY.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.splitlines()
    found = {"": _heading(lines)}
    if isinstance(root, yaml.MappingNode):
        for path, key, value in _keys(root):
            if said := _behind(lines, key, value) or (_above(lines, key) if key.start_mark.line else ""):
                found[path] = said
    for path in [path for path in found if path.startswith("defaults./") and "@" in path]:
        found.setdefault(path.partition("@")[2], found[path])
    return {path: said for path, said in found.items() if said}


def _keys(node: yaml.MappingNode, above: str = "") -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield each key that has a line of its own, with its path and its value. A list adds nothing to a path."""
    for key, value in node.value:
        path = f"{above}.{key.value}" if above else str(key.value)
        yield path, key, value
        inner = value.value if isinstance(value, yaml.SequenceNode) and not value.flow_style else [value]
        for item in inner:
            if isinstance(item, yaml.MappingNode) and not item.flow_style:
                yield from _keys(item, path)


def _behind(lines: list[str], key: yaml.Node, value: yaml.Node) -> str:
    end = key.end_mark if isinstance(value, yaml.CollectionNode) and not value.flow_style else value.end_mark
    rest = lines[end.line][end.column :] if end.line < len(lines) else ""
    comment = re.search(r"(?:^|(?<=\s))#", rest)
    if comment is None or rest[: comment.start()].strip(": "):
        return ""
    column = end.column + comment.start()
    said = [lines[end.line][column:]]
    for line in lines[end.line + 1 :]:
        if line.find("#") != column or line[:column].strip():
            break
        said.append(line[column:])
    return _joined(said)


def _above(lines: list[str], key: yaml.Node) -> str:
    """Return the comment lines right above a key, in the key's column. Those at the beginning of the file are its heading."""
    at, said = key.start_mark.line - 1, list[str]()
    while at >= 0 and lines[at].startswith(" " * key.start_mark.column + "#"):
        said.insert(0, lines[at])
        at -= 1
    return _joined(said) if at >= 0 else ""


def _heading(lines: list[str]) -> str:
    said = []
    for line in lines:
        if not line.startswith("#"):
            break
        said.append(line)
    return _joined(said)


def _joined(said: list[str]) -> str:
    texts = (_COMMENT.match(line) for line in said if not _DIRECTIVE.match(line.strip()))
    return " ".join(text["text"] for text in texts if text).strip()
