"""Tables as CSV, from columns: most columns of a record are the same in all rows, and are written once per part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.analysis.flat import to_json
from runner.secrets import is_clean, redact, redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FORMULA = frozenset("=+-@\t\r\n")
"""First characters that make a spreadsheet take a cell for a formula."""

_QUOTED = ',"\r\n'
"""Characters that a cell is quoted for."""


def csv_lines(parts: Iterable[dict[str, list[Any]]], *, exact: bool) -> Iterator[str]:
    """Yield lines, several at a time, ended as in RFC 4180; unknown is empty, lists and objects are JSON text.

    What looks like a secret is masked.

    Args:
        parts: some rows each, as columns that are the same in all parts.
        exact: leave text as it is. Otherwise a ``'`` precedes text that a spreadsheet would run as a formula.
    """
    header = True
    for part in parts:
        if header:
            yield ",".join(_quoted(list(part))) + "\r\n"
            header = False
        rows = zip(*(_quoted(_texts(values, exact=exact)) for values in part.values()), strict=True)
        yield "".join([",".join(row) + "\r\n" for row in rows])


def in_columns(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, list[Any]]]:
    """Yield rows as one table with the columns of the first; nothing if there are none."""
    known = list(rows)
    if known:
        yield {name: [row.get(name) for row in known] for name in known[0]}


def _texts(values: list[Any], *, exact: bool) -> list[str]:
    """Return values as text, a column of one value with one look."""
    first = values[0]
    if first is None and values.count(None) == len(values):
        return [""] * len(values)
    kinds = set(map(type, values))
    if len(kinds) == 1 and first == values[-1] and 1 < len(values) == values.count(first):
        return _texts([first], exact=exact) * len(values)
    if kinds == {int}:
        return list(map(str, values))
    if kinds == {str}:
        return _clean(values, exact=exact)
    if kinds == {msgspec.Raw}:
        texts = [str(value, "utf-8") for value in values]
        if is_clean("".join(texts)):
            return ["" if text == "null" else text for text in texts]
        values = list(map(msgspec.json.decode, values))
    return ["" if value is None else _text(value, exact=exact) for value in values]


def _text(value: Any, *, exact: bool) -> str:
    return _clean([value], exact=exact)[0] if isinstance(value, str) else to_json(redacted(value))


def _clean(texts: list[str], *, exact: bool) -> list[str]:
    """Return texts without secrets and, unless they shall be exact, without formulas."""
    if not is_clean("".join(texts)):
        texts = list(map(redact, texts))
    if exact or not any(text[:1] in _FORMULA for text in texts):
        return texts
    return [f"'{text}" if text[:1] in _FORMULA and not _is_number(text) else text for text in texts]


def _quoted(texts: list[str]) -> list[str]:
    whole = "".join(texts)
    if not any(sign in whole for sign in _QUOTED):
        return texts
    return ['"' + text.replace('"', '""') + '"' if any(sign in text for sign in _QUOTED) else text for text in texts]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
