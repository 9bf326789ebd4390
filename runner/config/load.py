"""Convert a plain dict to a RunConfig, and back. Each mistake is named by its path, with what is allowed there."""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import structs

from runner.config.older import RENAMED
from runner.config.schema import RunConfig
from runner.config.units import in_unit_of
from runner.errors import ConfigError
from runner.secrets import is_secret, names_a_secret
from runner.wording.suggest import suggest

Origin = Callable[[str], str]
"""Return where the value at a path such as ``sampling.temperature`` was written, such as ``override 'x=y'``; '' if unknown."""

struct_fields = functools.cache(structs.fields)
"""Return the fields of a Struct. Cached, because each cell of a sweep needs them."""

_ENV = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_URL_PASSWORD = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
_PROBLEM = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)


def nowhere(_path: str) -> str:
    """Return the origin of values that were given in Python: none."""
    return ""


def load(raw: Mapping[str, Any], origin: Origin = nowhere) -> RunConfig:
    """Check `raw` and build the RunConfig.

    A key written as ``api_key: ${oc.env:NAME}`` becomes ``api_key_env: NAME``, so that a RunConfig never holds a secret.

    Args:
        raw: the groups, with interpolations resolved except where `is_literal` or `is_deferred`.
        origin: tells where a value was written, for messages.

    Raises:
        ConfigError: the first mistake found, with its path, its origin and what is allowed.
    """
    plain = _prepare(raw, "", origin)
    _refuse_unknown(plain, RunConfig, "", origin)
    try:
        return msgspec.convert(plain, RunConfig)
    except msgspec.ValidationError as error:
        raise _explain(error, plain, origin) from None


def dump(config: RunConfig) -> dict[str, Any]:
    """Return the config as plain data: the content of config.yaml, which `load` accepts."""
    plain: dict[str, Any] = msgspec.to_builtins(config)
    return _escaped(plain, "") if "${" in repr(plain) else plain


def is_literal(path: str) -> bool:
    """Return whether text at `path` is the user's own and is never interpolated: prompts, and rows written in YAML."""
    return path in ("prompt.system", "prompt.user") or path.startswith(
        ("prompt.examples", "prompt.messages", "prompt.tools", "prompt.turns", "data.rows")
    )


def is_protected(path: str) -> bool:
    """Return whether an interpolation at `path` could bring in a secret, so that only `build` may resolve it."""
    return names_a_secret(path) or "headers." in path or path.startswith("model.params.")


def is_deferred(path: str, value: Any) -> bool:
    """Return whether `value` names environment variables that only `build` reads, so that it stays as it is written."""
    return isinstance(value, str) and "oc.env" in value and is_protected(path) and not is_literal(path)


def escape(text: str) -> str:
    r"""Escape `text`, so that OmegaConf finds no interpolation in it: ``${`` as ``\${``, backslashes before it doubled."""
    return re.sub(r"(\\*)\$\{", lambda found: f"{found[1] * 2}\\${{", text)


def _unescape(text: str) -> str:
    return re.sub(r"(\\+)\$\{", lambda found: f"{found[1][: len(found[1]) // 2]}${{", text)


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of nested dicts and lists with its path, ``a.b[0].c``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from walk(item, f"{path}[{index}]")
    else:
        yield path, value


def unknown_key(path: str) -> str:
    """Return the message for an unknown key at `path`: the keys that exist there, or the kind that has it."""
    parent, _, name = path.rpartition(".")
    options = _structs_at(parent)
    if not options:
        return unknown_key(parent) if parent else f"{path}: unknown key"
    by_kind = {_kind_of(struct): [field.encode_name for field in struct_fields(struct)] for struct in options}
    owners = [kind for kind, names in by_kind.items() if kind and name in names]
    if owners:
        return f"{path}: unknown key for this kind; '{name}' belongs to {parent}={' or '.join(owners)}"
    allowed = sorted({field for names in by_kind.values() for field in names})
    hint = suggest(name, allowed)
    return f"{path}: unknown key{hint}" if hint else f"{path}: unknown key; {parent or 'a config'} has {', '.join(allowed)}"


def is_text_field(path: str) -> bool:
    """Return whether the schema has text at `path` (``str`` or ``str | None``)."""
    parent, _, name = path.rpartition(".")
    kinds = [field.type for struct in _structs_at(parent) for field in struct_fields(struct) if field.encode_name == name]
    return bool(kinds) and all(set(_members(kind)) <= {str, type(None)} for kind in kinds)


def is_open(path: str) -> bool:
    """Return whether `path` is, or lies in, a mapping that takes any key, such as ``model.params``."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        parent, name = ".".join(parts[: end - 1]), parts[end - 1]
        kinds = [field.type for struct in _structs_at(parent) for field in struct_fields(struct) if field.encode_name == name]
        if any(typing.get_origin(member) is dict for kind in kinds for member in _members(kind)):
            return True
    return False


def _prepare(value: Any, path: str, origin: Origin) -> Any:
    """Copy `value`: refuse `_target_` and literal secrets, rename keys from the environment, undo escapes in literal text."""
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        older: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) is int and origin(path).startswith("override "):  # Hydra's grammar has no quoted keys
                key = str(key)  # noqa: PLW2901
            if not isinstance(key, str):
                raise ConfigError(_at(path, origin, f"the key {key!r} is not text; put it in quotes, in a YAML file"))
            below = f"{path}.{key}" if path else key
            if key == "_target_":
                raise ConfigError(_at(below, origin, "YAML must not name code; choose a `kind` instead"))
            if below == "model.api_key" and isinstance(item, str) and (env := _ENV.fullmatch(item)):
                copy["api_key_env"] = env.group(1)
            elif below == "model.api_key" and item is None:
                continue
            elif below in RENAMED:
                older[RENAMED[below].rpartition(".")[2]] = _prepare(item, RENAMED[below], origin)
            else:
                copy[key] = _prepare(item, below, origin)
        return copy | older  # only a file of the user's has the older name: it goes before the default of the new one
    if isinstance(value, list | tuple):
        return [_prepare(item, f"{path}[{index}]", origin) for index, item in enumerate(value)]
    if isinstance(value, str):
        if is_literal(path):
            return _unescape(value)
        _refuse_secret(value, path, origin)
        return in_unit_of(path, value)
    return value


def _refuse_secret(value: str, path: str, origin: Origin) -> None:
    in_header = path.startswith("model.headers.")
    if _ENV.search(value):
        if is_protected(path) and not in_header:
            raise ConfigError(_at(path, origin, "only model.api_key and model.headers take their value from the environment"))
    elif is_secret("" if path.startswith(("data.", "scoring.")) else path, value) or _URL_PASSWORD.search(value):
        how = "give it as ${oc.env:NAME}" if in_header else "name that in `model.api_key_env`"
        raise ConfigError(_at(path, origin, f"a literal key is refused; put it in an environment variable and {how}"))


def _escaped(value: Any, path: str) -> Any:
    """Escape every interpolation in `value` except those that `build` resolves."""
    if isinstance(value, dict):
        return {key: _escaped(item, f"{path}.{key}" if path else key) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item, f"{path}[{index}]") for index, item in enumerate(value)]
    return escape(value) if isinstance(value, str) and not is_deferred(path, value) else value


def _refuse_unknown(value: Any, annotation: Any, path: str, origin: Origin) -> None:
    """Refuse unknown keys before types are checked, so that the message can suggest a similar one."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for inner in _arguments(annotation, list):
                _refuse_unknown(item, inner, f"{path}[{index}]", origin)
        return
    if not isinstance(value, dict):
        return
    options = _structs(annotation)
    if not options:
        for inner in _arguments(annotation, dict):
            for key, item in value.items():
                _refuse_unknown(item, inner, f"{path}.{key}", origin)
        return
    struct = _choose(options, value, path, origin)
    allowed = {field.encode_name: field.type for field in struct_fields(struct)}
    for key, item in value.items():
        below = f"{path}.{key}" if path else key
        if key == "kind" and _kind_of(struct):
            continue
        if key not in allowed:
            message = unknown_key(below) if _structs_at(path) else f"{below}: unknown key{suggest(key, list(allowed))}"
            raise ConfigError(_with_origin(message, below, origin))
        _refuse_unknown(item, allowed[key], below, origin)


def _choose(options: list[type[msgspec.Struct]], value: dict[str, Any], path: str, origin: Origin) -> type[msgspec.Struct]:
    kinds = {kind: struct for struct in options if (kind := _kind_of(struct))}
    if not kinds:
        return options[0]
    kind = value.get("kind")
    if kind is None:
        raise ConfigError(_at(path, origin, f"`kind` is missing; allowed: {', '.join(kinds)}"))
    if not isinstance(kind, str) or kind not in kinds:
        hint = suggest(str(kind), list(kinds))
        raise ConfigError(_at(f"{path}.kind", origin, f"there is no kind '{kind}'; allowed: {', '.join(kinds)}{hint}"))
    return kinds[kind]


def _explain(error: msgspec.ValidationError, plain: dict[str, Any], origin: Origin) -> ConfigError:
    match = _PROBLEM.match(str(error))
    what, path = (match["what"], match["path"] or "") if match else (str(error), "")
    what = what.replace("Expected `", "expected `", 1)
    parent, _, name = path.rpartition(".")
    if what.startswith("Invalid enum value"):
        given = _value_at(plain, path)
        allowed = [str(item) for struct in _structs_at(parent) for item in _literals(struct, name)]
        what = f"'{given}' is not allowed; allowed: {', '.join(allowed)}{suggest(str(given), allowed)}"
    elif what.startswith("expected `") and "got `" in what:
        what = what.replace("`", "")
        if "..." not in path and not what.endswith("null"):  # msgspec writes ... for any value of a mapping
            what = f"{what} {_value_at(plain, path)!r}"
        if re.match(r"expected str(?: \| null)?, got (?:int|float|bool)", what):
            what = f"{what}; put it in quotes to make it text"
    elif what.startswith("expected `"):
        what = f"{what.replace('`', '')}, got {_value_at(plain, path)!r}"
    elif what.startswith("Object missing required field"):
        missing = what.split("`")[1]
        path = f"{path}.{missing}" if path else missing
        what = f"is required; give it as {path}=..."
    return ConfigError(_at(path, origin, what))


def _at(path: str, origin: Origin, what: str) -> str:
    return _with_origin(f"{path}: {what}" if path else what, path, origin)


def _with_origin(message: str, path: str, origin: Origin) -> str:
    source = origin(path)
    return f"{message} (in {source})" if source else message


def _value_at(value: Any, path: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
    return value


def _structs_at(path: str) -> list[type[msgspec.Struct]]:
    """Return the Structs that the schema allows at `path`; several for a group with kinds."""
    options: list[type[msgspec.Struct]] = [RunConfig]
    for part in re.findall(r"[^.\[\]]+", path):
        found = [field.type for struct in options for field in struct_fields(struct) if field.encode_name == part]
        options = [struct for annotation in found for struct in _structs(annotation)]
    return options


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, with aliases and Annotated unwrapped; a plain type is its own only member."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin is typing.Union or origin is types.UnionType:
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def _structs(annotation: Any) -> list[type[msgspec.Struct]]:
    return [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, msgspec.Struct)]


def _arguments(annotation: Any, container: type) -> list[Any]:
    """Return the types of the items of lists (or of the values of dicts) that `annotation` allows."""
    return [typing.get_args(member)[-1] for member in _members(annotation) if typing.get_origin(member) is container]


def _kind_of(struct: type[msgspec.Struct]) -> str | None:
    tag = struct.__struct_config__.tag
    return tag if isinstance(tag, str) else None


def _literals(struct: type[msgspec.Struct], name: str) -> list[Any]:
    kinds = [field.type for field in struct_fields(struct) if field.encode_name == name]
    members = [member for kind in kinds for member in _members(kind)]
    return [value for member in members if typing.get_origin(member) is Literal for value in typing.get_args(member)]
