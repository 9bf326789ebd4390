"""Typed functions of a Python file as tools: their signatures are the definitions, their docstrings the descriptions."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
import typing
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError
from runner.secrets import redact
from runner.system.paths import expanded
from runner.tools.definitions import ToolError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable

_ARGUMENT = re.compile(r"^\s+(?P<name>\w+)(?:\s*\([^)]*\))?:\s*(?P<told>.+)$")


class Functions:
    """Functions of one file, by name.

    Args:
        place: ``tools.py`` for all its functions whose names do not begin with ``_``, or ``tools.py:one,two``.
        key: where the config names it, for messages.

    Attributes:
        definitions: the tools, in OpenAI's form.

    Raises:
        ConfigError: there is no such file or function, it cannot be run, or a parameter has no type.
    """

    def __init__(self, place: str, key: str) -> None:
        file, colon, names = place.rpartition(":")
        path = expanded(file if colon else place)
        module = _loaded(path, key)
        own = {
            name: value
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }
        chosen = [name.strip() for name in names.split(",")] if colon else list(own)
        for name in chosen:
            if name not in own:
                raise ConfigError(f"{key}: {path} has no function {name!r}{suggest(name, own) or f'; it has {list(own)}'}")
        if not chosen:
            raise ConfigError(f"{key}: {path} has no functions")
        self._functions = {name: own[name] for name in chosen}
        self._arguments = {name: _arguments(function, f"{key}: {path}") for name, function in self._functions.items()}
        self.definitions = [_definition(function, self._arguments[name]) for name, function in self._functions.items()]

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    async def call(self, name: str, arguments: dict[str, Any], timeout_s: float) -> str:
        """Call a function in a thread of its own, and return what it returns as text: JSON, unless it is a text.

        Raises:
            ToolError: the arguments do not fit, it raised an exception, or it took too long. Its thread goes on in that case.
        """
        try:
            given = msgspec.convert(arguments, self._arguments[name], strict=False)
        except msgspec.ValidationError as error:
            raise ToolError(str(error)) from None
        keywords = {field: getattr(given, field) for field in given.__struct_fields__}
        try:
            value = await asyncio.wait_for(_in_thread(self._functions[name], keywords), timeout_s)
            return value if isinstance(value, str) else msgspec.json.encode(value).decode()
        except TimeoutError:
            raise ToolError(f"no result within {timeout_s:g} s") from None
        except Exception as error:  # boundary: the user's code may raise anything, and the model is told
            raise ToolError(redact(f"{type(error).__name__}: {error}")) from error


async def _in_thread(function: Callable[..., Any], keywords: dict[str, Any]) -> Any:
    """Call a function in a daemon thread: one that hangs keeps neither other tools nor the end of the run waiting."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any, error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def work() -> None:
        value, failed = None, None
        try:
            value = function(**keywords)
            if inspect.iscoroutine(value):
                value = asyncio.run(value)
        except Exception as error:  # noqa: BLE001 - boundary: raised again where the tool was called
            failed = RuntimeError(f"StopIteration: {error}") if isinstance(error, StopIteration) else error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=work, name=f"tool {function.__name__}", daemon=True).start()
    return await done


def _loaded(path: Any, key: str) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from None
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 - the user's own file, named by them
    except Exception as error:  # boundary: the user's code may raise anything
        raise ConfigError(f"{key}: {path} cannot be run: {type(error).__name__}: {error}") from error
    return module


def _arguments(function: Callable[..., Any], where: str) -> type[msgspec.Struct]:
    """Return the Struct of a function's parameters."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(f"{where}: the types of {function.__name__} cannot be read: {error}") from None
    fields: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"{where}: {function.__name__} takes {parameter}; a tool has named parameters only")
        if parameter.name not in hints:
            raise ConfigError(f"{where}: the parameter {parameter.name!r} of {function.__name__} has no type")
        default = () if parameter.default is parameter.empty else (_field(parameter.default),)
        fields.append((parameter.name, hints[parameter.name], *default))
    try:
        made = msgspec.defstruct(function.__name__, fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.schema(made)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: the types of {function.__name__} are not those of JSON: {error}") from None
    return made


def _field(default: Any) -> Any:
    return msgspec.field(default_factory=lambda: default)


def _definition(function: Callable[..., Any], arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the definition of a function, in OpenAI's form."""
    schema = msgspec.json.schema(arguments)
    parts = schema.get("$defs", {})
    parameters = dict(parts.pop(function.__name__, {"type": "object", "properties": {}}))
    for noise in ("title", "default"):
        parameters.pop(noise, None)
    text = inspect.getdoc(function) or ""
    told = _told(text)
    properties = {
        name: {
            **{key: value for key, value in part.items() if key != "title"},
            **({"description": told[name]} if name in told else {}),
        }
        for name, part in parameters.get("properties", {}).items()
    }
    parameters = {**parameters, "properties": properties, **({"$defs": parts} if parts else {})}
    about = re.split(r"\n\s*(?:Args|Arguments|Returns|Raises|Examples?):\s*\n", text)[0].strip()
    return {
        "type": "function",
        "function": {"name": function.__name__, **({"description": about} if about else {}), "parameters": parameters},
    }


def _told(docstring: str) -> dict[str, str]:
    """Return what a docstring in Google's style says of the arguments."""
    _, _, section = docstring.partition("Args:\n")
    told: dict[str, str] = {}
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if found := _ARGUMENT.match(line):
            told[found["name"]] = found["told"].strip()
    return told
