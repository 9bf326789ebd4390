"""Explain a key of the config: what it means, which values it takes, its default and unit, and what it changes."""

from __future__ import annotations

import functools
import json
from typing import Any, TypeAlias

import msgspec

from runner.config.comments import meanings
from runner.config.load import unknown_key
from runner.config.roles import ROLES
from runner.config.schema import RunConfig
from runner.config.units import SECONDS, units_of
from runner.errors import ConfigError

_Place: TypeAlias = tuple[str | None, dict[str, Any]]
"""A schema, and the `kind` of the group that it belongs to."""


class Kind(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key as one kind of its group has it.

    Attributes:
        kind: the group's ``kind``; None: the group has no kinds.
        means: what conf says of it.
        values: which values are allowed.
        default: its default as JSON; None: it must be given.
    """

    kind: str | None
    means: str
    values: str
    default: str | None = None


class Explained(msgspec.Struct, frozen=True):
    """Hold what is to be said of a key.

    Attributes:
        key: dotted, such as ``limits.timeout_s``.
        kinds: what the kinds of its group say of it; those that say the same are joined, as ``csv, jsonl``.
        unit: of a number; None: it has none.
        role: what it changes of an experiment.
        keys: the keys below it, if it is a group or a mapping with fixed keys.
    """

    key: str
    kinds: list[Kind]
    unit: str | None
    role: str
    keys: list[str]


def explained(key: str) -> Explained:
    """Explain a key. Raise ConfigError if there is none of that name."""
    definitions = _definitions()
    places: list[_Place] = [(None, definitions["RunConfig"])]
    found: list[_Place] = []
    for name in key.split("."):
        found = [(kind, place["properties"][name]) for kind, place in places if name in place["properties"]]
        places = [(kind or tag, option) for kind, schema in found for tag, option in _options(schema, definitions)]
    if not found:
        raise ConfigError(unknown_key(key))
    joined: dict[Kind, list[str]] = {}
    is_group = "." not in key and bool(places)
    for kind, told in _groups(places) if is_group else [_told(key, kind, schema) for kind, schema in found]:
        joined.setdefault(told, []).append(kind or "")
    kinds = [msgspec.structs.replace(told, kind=", ".join(sorted(filter(None, named))) or None) for told, named in joined.items()]
    below = sorted({name for _, option in places for name in option["properties"]})
    return Explained(key, kinds, _unit(key), ROLES[key.partition(".")[0]].value, below)


@functools.cache
def _definitions() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.schema(RunConfig)["$defs"]
    return found


def _groups(places: list[_Place]) -> list[tuple[str | None, Kind]]:
    """Say of each kind of a group what the schema does."""
    return [(kind, Kind(None, option.get("description", "").partition("\n\n")[0], "a mapping")) for kind, option in places]


def _told(key: str, kind: str | None, schema: dict[str, Any]) -> tuple[str | None, Kind]:
    """Say of a key what conf does, for one kind of its group."""
    group, _, inside = key.partition(".")
    means = meanings(group, kind).get(inside, "") if inside else meanings().get(key, "")
    above, _, name = inside.rpartition(".")
    if not means and above in ROLES:  # a judge has limits and a budget of its own
        means = meanings(above).get(name, "")
    default = json.dumps(schema["default"], ensure_ascii=False) if "default" in schema else None
    return kind, Kind(None, means, _values(schema), default)


def _options(schema: dict[str, Any], definitions: dict[str, Any]) -> list[_Place]:
    """Return the objects that a schema allows, with the `kind` of each."""
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return [(None, definitions[name])]
    tags = {ref.rpartition("/")[2]: kind for kind, ref in schema.get("discriminator", {}).get("mapping", {}).items()}
    parts = schema.get("anyOf", ())
    return [
        (tags.get(part.get("$ref", "").rpartition("/")[2]) or tag, option)
        for part in parts
        for tag, option in _options(part, definitions)
    ]


def _values(schema: dict[str, Any]) -> str:
    """Say which values a schema allows: ``a whole number of 1 or more, or null``."""
    parts = [_value(part) for part in schema.get("anyOf", [schema])]
    return ", or ".join(dict.fromkeys(parts))


def _value(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return "a mapping"
    kind = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "true | false",
        "null": "null",
        "array": "a list",
        "object": "a mapping",
    }.get(schema.get("type", ""), "anything")
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = [
        f"of {least} or more" if least is not None and most is None else "",
        f"from {least} to {most}" if least is not None and most is not None else "",
        f"above {schema['exclusiveMinimum']}" if "exclusiveMinimum" in schema else "",
        f"up to {most}" if most is not None and least is None else "",
        f"that matches {schema['pattern']}" if "pattern" in schema else "",
    ]
    return " ".join(filter(None, [kind, *bounds]))


def _unit(key: str) -> str | None:
    units = units_of(key)
    if units is None:
        return "US dollars" if key.endswith("usd") else None
    return f"{'seconds' if units is SECONDS else 'gigabytes'}, or a number with one of {', '.join(units)}"
