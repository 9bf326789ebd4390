"""Read and write YAML: what looks like text is text, and duplicate keys are refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from runner.errors import ConfigError
from runner.system.paths import shortened

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

_DIGITS = r"\d(?:_?\d)*"
"""Digits, which may be grouped, as in ``1_000`` (OmegaConf's grammar, 2.3)."""
_FLOAT = re.compile(
    rf"^[-+]?(?:(?:{_DIGITS}\.(?:{_DIGITS})?|\.{_DIGITS})(?:[eE][-+]?{_DIGITS})?|{_DIGITS}[eE][-+]?{_DIGITS}"
    r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)

_BREAKS = re.compile("[\x85\u2028\u2029]")
_PLAIN = frozenset({"null", "bool", "int", "float", "str", "seq", "map"})

MAX_DEPTH = 100
"""Levels of nesting in one file: more than any config needs, and fewer than OmegaConf can recurse through."""

MAX_COPIES = 1_000_000
"""Values that the aliases in one file may add to those that are written: ten lines of YAML can stand for a billion."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml's parser where it is installed
    """Read YAML with the plain values of Hydra's command line.

    YAML 1.1 reads ``no`` as false, ``012`` as 10, ``1:30`` as 90 and ``1e3`` as text. Here the first three are text, which
    fields of another type refuse, and ``1e3`` is a number. So a value means the same in a file as in an override.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - where PyYAML looks for them

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key '{key.value}' occurs twice", key.start_mark)
                seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


_MOST_PARTS = 1024
_parts: dict[str, str] = {}
_NAME = re.compile(r"[A-Za-z_]\w{0,39}", re.ASCII)
_SHORT = 60
"""Characters of a text that is never broken into two lines."""


class _Dumper(yaml.SafeDumper):
    """Quote text that some reader of YAML could take for another type: ``no`` in YAML 1.1, ``1e3`` in ours."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if _BREAKS.search(text) else None  # PyYAML would write these line breaks unescaped, and read them as spaces
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _PLAIN  # a config has no dates and no sets
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9](?:_?\d)*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read(file: Path) -> dict[str, Any]:
    """Return the mapping in `file`; an empty one if the file is empty.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or is not a mapping; the message says where.
    """
    where = shortened(file)
    try:
        value = yaml.load(file.read_bytes().decode("utf-8-sig"), _Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise ConfigError(f"{place}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, LookupError) as error:  # a number with thousands of digits, `!!int x`
        raise ConfigError(f"{where}: holds a value that cannot be read: {str(error).partition(';')[0]}") from None
    except RecursionError:
        raise ConfigError(f"{where}: is nested too deeply") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{where}: a config is a mapping (key: value), not {'a list' if isinstance(value, list) else 'a value'}"
        )
    _check_shape(value, file)
    return value


def line_of(file: Path, path: str) -> int | None:
    """Return the line of the key at a dotted path, counted from 1; None if the file does not have it. Raises as `read`."""
    read(file)
    node = yaml.compose(file.read_bytes().decode("utf-8-sig"), Loader=_Loader)
    line = None
    for part in path.split("."):
        found = [pair for pair in getattr(node, "value", ()) if isinstance(pair, tuple) and pair[0].value == part]
        if not found:
            return None
        key, node = found[-1]
        line = key.start_mark.line + 1
    return line


def _check_shape(value: dict[str, Any], file: Path) -> None:
    """Refuse files that OmegaConf could not handle: it copies what an alias stands for, and recurses through every level."""
    sizes: dict[int, int] = {}
    copies = 0

    def size(value: Any, depth: int) -> int:
        nonlocal copies
        if not isinstance(value, dict | list):
            return 1
        if (known := sizes.get(id(value))) is not None:
            copies += known
            return known
        if depth > MAX_DEPTH:
            raise ConfigError(f"{file}: is nested deeper than {MAX_DEPTH} levels, or an alias (*name) contains itself")
        items = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = total = 1 + sum(size(item, depth + 1) for item in items)
        return total

    size(value, 1)
    if copies > MAX_COPIES:
        raise ConfigError(
            f"{file}: its aliases (*name) stand for more than {MAX_COPIES:,} values; write out the ones that are needed"
        )


def write(value: Any) -> str:
    """Return plain data as YAML, in its own order."""
    if isinstance(value, dict) and value:
        return "".join(_entry(key, entry) for key, entry in value.items())
    if isinstance(value, list) and value:
        return "".join(_part([item]) for item in value)
    return _dump(value)


def _entry(key: Any, entry: Any) -> str:
    """Return one entry of a mapping as YAML. Where no line of a group can be broken, its lines are made one by one."""
    if isinstance(entry, dict) and entry and all(map(_has_own_line, [key, *entry], [None, *entry.values()])):
        return _part({key: {}}).removesuffix(" {}\n") + "\n" + "".join(f"  {_part({name: entry[name]})}" for name in entry)
    return _part({key: entry})


def _has_own_line(key: Any, value: Any) -> bool:
    """Return whether a key and its value have a line of their own, however far it is indented."""
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        return False
    if isinstance(value, str):
        return len(value) < _SHORT and value.isprintable()
    return value is None or isinstance(value, bool | int | float)


def _part(part: Any) -> str:
    """Return a small part of a document as YAML. Known ones are not made again: the configs of a sweep differ in one or two."""
    known = repr(part)
    if (text := _parts.get(known)) is None:
        if len(_parts) >= _MOST_PARTS:
            _parts.clear()
        text = _parts[known] = _dump(part)
    return text


def _dump(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
