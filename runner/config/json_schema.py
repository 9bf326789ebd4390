"""Describe the config files as JSON Schema, for editors: made from the Structs, with the comments of conf as descriptions.

Anything that `load` takes is valid, as far as JSON Schema can say. No key is required, because a file may take it from an option
in its `defaults` list. Draft 7 is what every editor reads.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from runner.config.comments import meanings
from runner.config.folders import kind_of_option, options
from runner.config.older import RENAMED
from runner.config.schema import RunConfig
from runner.config.units import units_of
from runner.errors import ConfigError
from runner.system.files import write
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Node = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
_LATER = r"\$\{|^\?\?\?$"
"""Interpolations, and values that are missing yet: OmegaConf fills them in later."""

_REFERENCE = re.compile(r"#/definitions/([\w.]+)")
_ENV = r"^\s*\$\{\s*oc\.env:"
_NAMES: dict[type, str] = {
    inspect.NoneType: "null",
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.ListType: "array",
    inspect.DictType: "object",
}
_OBJECT: Node = {"type": ["object", "string"], "pattern": _LATER}


def json_schema(places: Sequence[Path], group: str | None = None) -> Node:
    """Return the schema of the option files of `group`, or of a whole config: a primary one, an experiment, a run's own.

    Args:
        places: the folders that are searched for options, from `folders`. Their names are suggested in `defaults` lists.
        group: None: a whole config.

    Raises:
        ConfigError: there is no such group.
    """
    names = group_names()
    if group is not None and group not in names:
        raise ConfigError(f"there is no group '{group}'; there are {', '.join(names)}{suggest(group, names)}")
    groups = [_Group(field, places) for field in _fields(RunConfig) if field.encode_name in names]
    if group is None:
        return _config_schema({each.name: each for each in groups}, places)
    (chosen,) = (each for each in groups if each.name == group)
    definitions = {name: node for each in groups for name, node in each.definitions().items()}
    file = chosen.as_file()
    return {"$schema": DRAFT, **file, "definitions": {name: definitions[name] for name in _needed(file, definitions)}}


def written(schema: Node) -> str:
    """Return a schema as JSON, with each property and each definition of its top level on a line of its own."""

    def lines(node: Node, indent: str, depth: int) -> str:
        inner = (
            f"{indent} {json.dumps(key)}: "
            + (
                lines(value, f"{indent} ", depth - 1)
                if depth and isinstance(value, dict)
                else json.dumps(value, ensure_ascii=False)
            )
            for key, value in node.items()
        )
        return "{\n" + ",\n".join(inner) + f"\n{indent}}}"

    return lines(schema, "", 1) + "\n"


def write_into(folder: Path, places: Sequence[Path], group: str | None = None) -> list[Path]:
    """Write the schemas of a folder of configs, each as ``schema.json`` beside the files that it is for. Return their paths.

    Args:
        folder: gets the schema of whole configs, and each folder of a group in it that of the group.
        places: the folders that are searched for options, from `folders`.
        group: write only that of this group.

    Raises:
        ConfigError: there is no such group.
    """
    there = [name for name in group_names() if (folder / name).is_dir()]
    names: list[str | None] = [group] if group else [None, *there]
    files = [(name, folder / (name or "") / "schema.json") for name in names]
    for name, file in files:
        text = written(json_schema(places, name))
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, text)
    return [file for _, file in files]


def group_names() -> list[str]:
    """Return the names of the config groups, in the order of the config."""
    return [field.encode_name for field in _fields(RunConfig) if _structs(field.type)]


def _config_schema(groups: Mapping[str, _Group], places: Sequence[Path]) -> Node:
    said = meanings()
    properties: Node = {
        "defaults": _defaults_of_config(groups, places),
        "hydra": {**_OBJECT, "description": "settings of Hydra itself"},
    }
    for field in _fields(RunConfig):
        name = field.encode_name
        own = groups.get(name)
        properties[name] = _described({"allOf": [own.ref()]}, own.meaning) if own else _field(field, said, "", "")
    return {
        "$schema": DRAFT,
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": [condition for group in groups.values() for condition in group.conditions()],
        "definitions": {name: node for group in groups.values() for name, node in group.definitions().items()},
    }


class _Group:
    """Describe a group of the config: as a value in a config, and as an option file of its own."""

    def __init__(self, field: inspect.Field, places: Sequence[Path]) -> None:
        self.name = field.encode_name
        self.meaning = meanings().get(f"defaults.{self.name}", "")
        optional = any(isinstance(member, inspect.NoneType) for member in _members(field.type))
        self._types = ["object", "string", "null"] if optional else ["object", "string"]
        self._structs = _structs(field.type)
        self._kinds = [kind for struct in self._structs if (kind := _tag(struct))]
        self.options = options(self.name, places)
        self._options_of: dict[str, list[str]] = {}
        for option in self.options if self._kinds else ():
            if (found := kind_of_option(self.name, option, places)) in self._kinds:
                self._options_of.setdefault(str(found), []).append(option)

    def ref(self, part: str = "") -> Node:
        """Return the reference to a definition."""
        return {"$ref": f"#/definitions/{self.name}{part}"}

    def definitions(self) -> Node:
        """Return the definitions of the group as a value: of the whole, of each kind, and of a kind that is not told."""
        if not self._kinds:
            return {self.name: self._object(self._structs[0])}
        objects = [self._object(struct) for struct in self._structs]
        kinds = {f"{self.name}.{kind}": node for kind, node in zip(self._kinds, objects, strict=True)}
        return {self.name: _by_kind(self._kinds, self.ref), **kinds, f"{self.name}.any": _any_of_them(objects)}

    def as_file(self) -> Node:
        """Return the schema of an option file, whose kind its `defaults` may tell."""
        if not self._kinds:
            return self._file(self.definitions()[self.name], self.ref())
        definitions = self.definitions()
        told: list[Node] = [_is_one_of(self._kinds)]
        cases = []
        for kind in self._kinds:
            told.append(built_on := {"not": {"required": ["kind"]}, **_has_default({"enum": self._options_of.get(kind, [])})})
            file = self._file(definitions[f"{self.name}.{kind}"], self.ref(f".{kind}"))
            cases.append({"if": {"anyOf": [_is_one_of([kind]), built_on]}, "then": file})
        unknown = self._file(definitions[f"{self.name}.any"], self.ref(".any"))
        return {"allOf": [{"if": {"anyOf": told}, "else": unknown}, *cases]}

    def conditions(self) -> list[Node]:
        """Return what follows for a config from the options in its `defaults` list: of which kind the group is."""
        return [
            {
                "if": _has_default(_chooses(self.name, names)),
                "then": {"properties": {self.name: {"if": {"required": ["kind"]}, "else": self.ref(f".{kind}")}}},
            }
            for kind, names in self._options_of.items()
        ]

    def _object(self, struct: inspect.StructType) -> Node:
        kind = _tag(struct)
        node = {**_object(struct, meanings(self.name, kind), self.name), "type": self._types}
        if self.name == "model":
            said = "${oc.env:NAME}: the same as api_key_env: NAME"
            node["properties"]["api_key"] = {"type": ["string", "null"], "pattern": _ENV, "description": said}
        for old, new in RENAMED.items():
            if old.startswith(f"{self.name}."):
                renamed = node["properties"][new.rpartition(".")[2]]
                node["properties"][old.rpartition(".")[2]] = {**renamed, "deprecationMessage": f"the name is now {new}"}
        if kind:
            said = meanings(self.name).get("kind", "")
            node["properties"] = {"kind": _described({"const": kind}, said), **node["properties"]}
        return node

    def _file(self, value: Node, ref: Node) -> Node:
        """Return the schema of an option file: the keys of the value, and `defaults`."""
        item = {"anyOf": [{"enum": [*self.options, "_self_"]}, {"type": "string"}, {"type": "object", "maxProperties": 1}]}
        built_on = {"type": "array", "items": item, "description": "the options of this group that this one builds on"}
        keys = {key: {"$ref": f"{ref['$ref']}/properties/{key}"} for key in value["properties"]}
        return {"type": ["object", "null"], "properties": {"defaults": built_on, **keys}, "additionalProperties": False}


def _by_kind(kinds: Sequence[str], ref: Callable[[str], Node]) -> Node:
    """Return the schema of a value of one of several kinds, which its key `kind` tells; without it, it may be any of them."""
    cases = [{"if": _is_one_of([kind]), "then": ref(f".{kind}")} for kind in kinds]
    return {"allOf": [{"if": _is_one_of(kinds), "else": ref(".any")}, *cases]}


def _is_one_of(kinds: Sequence[str]) -> Node:
    return {"required": ["kind"], "properties": {"kind": {"enum": list(kinds)}}}


def _has_default(item: Node) -> Node:
    return {"required": ["defaults"], "properties": {"defaults": {"contains": item}}}


def _defaults_of_config(groups: Mapping[str, _Group], places: Sequence[Path]) -> Node:
    """Return the schema of the `defaults` list of a whole config: options of groups, and experiments to build on."""
    chosen: Node = {}
    for name, group in groups.items():
        option = {"anyOf": [{"enum": group.options}, {"type": ["string", "array", "null"]}]}
        chosen |= {name: _described(option, group.meaning), f"override /{name}": _described(option, group.meaning)}
    experiments = options("experiment", places)
    chosen["experiment"] = {
        "anyOf": [{"enum": experiments}, {"type": ["string", "array", "null"]}],
        "description": "a whole named experiment",
    }
    one = {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": chosen}
    return {
        "type": "array",
        "items": {"anyOf": [{"enum": ["_self_", *experiments]}, {"type": "string"}, one]},
        "description": "the option of each group; in an experiment, those that it changes: - override /GROUP: OPTION",
    }


def _chooses(group: str, names: list[str]) -> Node:
    """Return the schema of an item of a `defaults` list that chooses one of these options of a group."""
    key = f"^((override|optional) +)*/?{group}$"
    return {"type": "object", "minProperties": 1, "propertyNames": {"pattern": key}, "additionalProperties": {"enum": names}}


def _object(struct: inspect.StructType, said: Mapping[str, str], group: str, above: str = "") -> Node:
    properties = {field.encode_name: _field(field, said, group, above) for field in struct.fields}
    return {**_OBJECT, "description": _summary(struct), "properties": properties, "additionalProperties": False}


def _field(field: inspect.Field, said: Mapping[str, str], group: str, above: str) -> Node:
    path = f"{above}{field.encode_name}"
    node = _described(_value(field.type, said, group, path), said.get(path, ""))
    if not isinstance(field.default, msgspec.Struct) and field.default is not msgspec.NODEFAULT:
        node["default"] = field.default
    return node


def _value(kind: inspect.Type, said: Mapping[str, str], group: str, path: str) -> Node:
    """Return the schema of a value, which may always be an interpolation."""
    if isinstance(kind, inspect.Metadata):
        return {"anyOf": [{"enum": (kind.extra_json_schema or {})["examples"]}, _value(kind.type, said, group, path)]}
    members = _members(kind)
    if any(isinstance(member, inspect.AnyType) for member in members):
        return {}
    if structs := [member for member in members if isinstance(member, inspect.StructType)]:
        given = _one_of(structs, said, group, path)
        return {"anyOf": [given, {"type": "null"}]} if any(isinstance(member, inspect.NoneType) for member in members) else given
    types: list[str] = []
    node: Node = {}
    allowed: list[Any] = []
    for member in members:
        name, bounds = _plain(member, said, group, path)
        types += [name] if name else []
        allowed += member.values if isinstance(member, inspect.LiteralType) else []
        node |= bounds
    if allowed:
        later = {"type": ["string", *types], "pattern": _LATER} if types else {"type": "string", "pattern": _LATER}
        return {"anyOf": [{"enum": allowed}, later]}
    if "string" not in types:
        units = units_of(f"{group}.{path}")
        node["pattern"] = _LATER + (rf"|^\s*[0-9]+(\.[0-9]+)?\s*({'|'.join(units)})\s*$" if units else "")
        node["patternErrorMessage"] = (
            f"expected {' or '.join(types)}{', or a number with a unit: ' if units else ''}{', '.join(units or ())}"
        )
        types.append("string")
    elif "pattern" in node:
        node["pattern"] += f"|{_LATER}"
    return {"type": types, **node}


def _one_of(structs: list[inspect.StructType], said: Mapping[str, str], group: str, path: str) -> Node:
    """Return the schema of a Struct inside a group: in its place, or as the group that it is of, such as a judge's `model`."""
    home = _homes().get(structs[0].cls)
    if home is None:
        return _object(structs[0], said, group, f"{path}.")
    if _tag(structs[0]) is None:
        return {"allOf": [{"$ref": f"#/definitions/{home}"}]}
    return _by_kind([str(_tag(struct)) for struct in structs], lambda part: {"$ref": f"#/definitions/{home}{part}"})


@functools.cache
def _homes() -> dict[type, str]:
    """Return the group that each Struct stands for, or is a kind of."""
    return {struct.cls: field.encode_name for field in _fields(RunConfig) for struct in _structs(field.type)}


def _plain(member: inspect.Type, said: Mapping[str, str], group: str, path: str) -> tuple[str, Node]:
    """Return the name of a type in JSON Schema ('' for a Literal), and its bounds."""
    bounds: Node = {}
    match member:
        case inspect.IntType() | inspect.FloatType():
            bounds = {"exclusiveMinimum": member.gt, "minimum": member.ge, "exclusiveMaximum": member.lt, "maximum": member.le}
        case inspect.StrType():
            bounds = {"minLength": member.min_length, "pattern": member.pattern}
        case inspect.ListType():
            items = _value(member.item_type, said, group, f"{path}.*")
            bounds = {"items": items, "minItems": member.min_length, "maxItems": member.max_length}
        case inspect.DictType():
            bounds = {"additionalProperties": _value(member.value_type, said, group, f"{path}.*")}
    return _NAMES.get(type(member), ""), {name: bound for name, bound in bounds.items() if bound is not None}


def _any_of_them(objects: Sequence[Node]) -> Node:
    """Return the schema of a group whose kind is not told: each key as one of the kinds has it."""
    properties: Node = {}
    for key in dict.fromkeys(key for node in objects for key in node["properties"]):
        variants = [node["properties"][key] for node in objects if key in node["properties"]]
        distinct: list[Node] = []
        for variant in map(_undescribed, variants):
            if variant not in distinct:
                distinct.append(variant)
        properties[key] = (
            variants[0] if len(distinct) == 1 else _described({"anyOf": distinct}, variants[0].get("description", ""))
        )
    kinds = [node["properties"]["kind"]["const"] for node in objects]
    told = {"anyOf": [{"enum": kinds}, {"type": "string", "pattern": _LATER}]}
    properties["kind"] = _described(told, objects[0]["properties"]["kind"].get("description", ""))
    return {"type": objects[0]["type"], "pattern": _LATER, "properties": properties, "additionalProperties": False}


def _undescribed(node: Any) -> Any:
    """Return a schema without what it says to people, at any depth."""
    if isinstance(node, list):
        return [_undescribed(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: _undescribed(value) for key, value in node.items() if key not in ("description", "default")}


def _needed(node: Node, definitions: Node) -> list[str]:
    """Return the names of the definitions that a schema refers to, directly or not, in their order."""
    needed: set[str] = set()
    new = {json.dumps(node)}
    while new:
        names = {name for text in new for name in _REFERENCE.findall(text)} - needed
        needed |= names
        new = {json.dumps(definitions[name]) for name in names}
    return [name for name in definitions if name in needed]


def _described(node: Node, said: str) -> Node:
    return {**node, "description": said} if said else node


def _summary(struct: inspect.StructType) -> str:
    return (struct.cls.__doc__ or "").partition("\n")[0].replace("``", "`")


def _fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _structs(kind: inspect.Type) -> list[inspect.StructType]:
    return [member for member in _members(kind) if isinstance(member, inspect.StructType)]


def _tag(struct: inspect.StructType) -> str | None:
    return struct.tag if isinstance(struct.tag, str) else None
