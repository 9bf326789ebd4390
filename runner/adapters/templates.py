"""Fill in ``{{ field }}`` in a prompt from a row. The only module that imports Jinja2, sandboxed and strict.

Most prompts are text with plain ``{{ name }}`` in it. Those are filled in by string formatting, which is faster and does not
import Jinja2; the result is the same. All other features of Jinja2 (filters, conditions, loops) work too.
"""

from __future__ import annotations

import json
import keyword
import re
from functools import cache, wraps
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, DataError, OstinatoError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2.sandbox import ImmutableSandboxedEnvironment

    from runner.types import Row

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_MARKUP = ("{{", "{%", "{#")
_SPECIAL = re.compile("true|false|none|self|super|loop|caller|varargs|kwargs|range|dict|lipsum|cycler|joiner|namespace")
"""Names with a meaning in Jinja2: templates with such a placeholder are left to it."""

_WRITTEN = frozenset({str, int, float, bool})
"""Types whose values are written as ``str(value)``."""


class Template:
    r"""Text with ``{{ field }}`` in it.

    Values are written as ``str(value)`` and not escaped, lists and objects as JSON; text from a row is never a template itself. A
    column that a row lacks, or that is null, is an error, never an empty string; ``{{ field or "unknown" }}`` and
    ``{% if field %}`` say what to do with null. Line ends become ``\n``, as in Jinja2; a final one is kept.

    Args:
        source: the template.
        where: its name in error messages, such as ``prompt.user``.

    Attributes:
        constant: the text, if it has no fields and is the same for every row; else None.
        columns: the columns that are filled in, if that is all that the template does; else None.

    Raises:
        ConfigError: the template has a syntax error; the message names the line.
    """

    def __init__(self, source: str, *, where: str = "prompt") -> None:
        self._where = where
        self.constant: str | None = None
        self.columns: frozenset[str] | None = None
        pieces = _PLACEHOLDER.split(re.sub(r"\r\n|\r", "\n", source))
        self._names = names = pieces[1::2]
        self._fill: Callable[[dict[str, Any]], str]
        if not _is_plain(pieces[::2], names):
            self._fill = self._compiled(source)
            self._names = []
            return
        self.columns = frozenset(names)
        if not names:
            self.constant = pieces[0]
            self._fill = lambda _fields, text=pieces[0]: text  # type: ignore[misc]
        else:
            self._fill = _filler(pieces[::2], names)

    def render(self, row: Row) -> str:
        """Fill in the fields of `row`.

        Raises:
            DataError: the row lacks a column, or the template cannot work with its values; the message names the row.
            ConfigError: the template does what the sandbox forbids.
        """
        try:
            return self._fill(row.fields)
        except OstinatoError:
            raise
        except Exception as error:  # boundary: an expression in a template may raise anything
            raise self._explained(row, error) from error

    def _compiled(self, source: str) -> Callable[[dict[str, Any]], str]:
        from jinja2 import TemplateSyntaxError, meta, nodes
        from jinja2.exceptions import SecurityError

        environment = _environment()
        try:
            tree = environment.parse(source)
            if next(meta.find_referenced_templates(tree), "") != "":
                raise ConfigError(f"{self._where}: a prompt cannot include, import or extend another template")
            for joined in tree.find_all(nodes.Concat):  # `~` would write null as None
                joined.nodes = [nodes.Filter(node, "written", [], [], None, None) for node in joined.nodes]
            render = environment.from_string(tree).render
        except TemplateSyntaxError as error:
            raise ConfigError(f"{self._where}, line {error.lineno}: {error.message}") from error

        def fill(fields: dict[str, Any]) -> str:
            try:
                return render(fields)
            except SecurityError as error:
                raise ConfigError(f"{self._where}: {error}") from error

        return fill

    def _explained(self, row: Row, error: Exception) -> DataError:
        if isinstance(error, ValueError) and str(error) == "null":
            null = [name for name in self._names or row.fields if name in row.fields and row.fields[name] is None]
            which = f"column {null[0]!r}" if len(null) == 1 else "a column"
            told = f"{self._where} uses {which}, which is null in this row"
            return DataError(
                f'row {row.id!r}: {told}; say what to write: {{{{ field or "unknown" }}}}, {{% if field %}}...{{% endif %}}; '
                f"or leave such rows out: data.where='{null[0] if len(null) == 1 else 'COLUMN'} != null'"
            )
        name = next((name for name in self._names if name not in row.fields), None)
        if undefined := re.fullmatch(r"'(\w+)' is undefined", str(error)):
            name = undefined[1]
        if name is None:
            return DataError(f"row {row.id!r}: {self._where} cannot be filled in: {type(error).__name__}: {error}")
        hint = suggest(name, row.fields) or ";"
        there = ", ".join(repr(column) for column in row.fields) or "none"
        return DataError(f"row {row.id!r} has no column {name!r}, which {self._where} uses{hint} the columns are {there}")


def _is_plain(texts: list[str], names: list[str]) -> bool:
    """Return whether a template is, for Jinja2, just `names` between `texts`."""
    if any(mark in text for text in texts for mark in _MARKUP) or any(text.endswith("{") for text in texts[:-1]):
        return False
    return not any(keyword.iskeyword(name) or _SPECIAL.fullmatch(name) for name in names)


def _filler(texts: list[str], names: list[str]) -> Callable[[dict[str, Any]], str]:
    """Return the function that puts the fields `names` between `texts`, both looped over in C."""
    pattern = "%s".join(text.replace("%", "%%") for text in texts)
    values = itemgetter(*names) if len(names) > 1 else None
    first = names[0]

    def fill(fields: dict[str, Any]) -> str:
        given = (fields[first],) if values is None else values(fields)
        for value in given:
            if type(value) not in _WRITTEN:
                given = tuple(map(written, given))
                break
        return pattern % given

    return fill


def columns_of(*templates: Template | None) -> frozenset[str] | None:
    """Return the columns that templates fill in; None if one of them does more."""
    found = [template.columns for template in templates if template is not None]
    return frozenset().union(*(one or () for one in found)) if None not in found else None


def written(value: Any) -> Any:
    """Return what stands for a value in a prompt: JSON for a list or an object. Raises ValueError for null."""
    if value is None:
        raise ValueError("null")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


_OF_NULL = frozenset({"default", "d", "tojson"})
"""Filters that say what to do with null. The others would write it as ``None``, ``NONE`` or 0 (Jinja2 3.1)."""


def _not_of_null(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that raises ValueError for null, and for a null in what it joins."""
    at = 1 if hasattr(function, "jinja_pass_arg") else 0  # Jinja2 passes a context to some, before the value
    joins = function.__name__.endswith("do_join")

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        value = args[at]
        if value is None or (joins and isinstance(value, list | tuple) and None in value):
            raise ValueError("null")
        return function(*args, **kwargs)

    return checked


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=written
    )
    # Jinja2's own is for HTML: it writes < as \u003c, which a model would see.
    environment.filters.update((name, _not_of_null(one)) for name, one in environment.filters.items() if name not in _OF_NULL)
    environment.filters["written"] = written
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    return environment
