"""A small language that selects rows and samples: ``score.exact == 1 and status == "ok"``. It is evaluated, never executed.

Comparisons ``== != < <= > >=``; ``in`` and ``not in`` with a list (``status in ["ok", "truncated"]``) or a string (``"Paris" in
output``); ``and``, ``or``, ``not`` and parentheses; strings in either kind of quotes, numbers, ``true``, ``false``, ``null``.
null is neither less nor greater than anything. Comparing a string with a number is an error, not false.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.errors import ConfigError, DataError
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])
      | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<name>[A-Za-z_][\w]*(?:\.[\w-]+)*)
      | (?P<sign>==|!=|<=|>=|<|>|\(|\)|\[|\]|,)
    )""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "true", "false", "null"}
_CONSTANTS = {"true": True, "false": False, "null": None}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_DEPTH = 50


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


class Where:
    """A parsed expression.

    Args:
        text: the expression.
        names: the known fields; one that ends with ``.`` stands for all that start with it.

    Raises:
        ConfigError: it is not a valid expression; the message shows where.
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        self.text = text
        self._names = names
        self._tokens = self._split()
        self._next = 0
        self._matches = self._either(0)
        if self._peek().kind != "end":
            raise self._wrong(self._peek().at, f"'{self._peek().text}' is not expected here; join conditions with `and` or `or`")

    def matches(self, fields: Mapping[str, Any]) -> bool:
        """Return whether `fields` satisfy the expression.

        Raises:
            DataError: two values cannot be compared, or `fields` lack a name of a group (``score.x``).
        """
        return bool(self._matches(fields))

    # --- reading

    def _split(self) -> list[_Token]:
        found, at = [], 0
        while self.text[at:].strip():
            match = _TOKEN.match(self.text, at)
            if match is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                raise self._wrong(at, _strange(self.text[at:]))
            kind = str(match.lastgroup)
            word = match[kind]
            found.append(_Token(word if kind == "sign" or word in _WORDS else kind, word, match.start(kind)))
            at = match.end()
        return [*found, _Token("end", "the end", len(self.text.rstrip()))]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *kinds: str) -> _Token | None:
        token = self._tokens[self._next]
        if token.kind not in kinds:
            return None
        self._next += 1
        return token

    def _need(self, kind: str, what: str) -> _Token:
        if (token := self._take(kind)) is None:
            raise self._wrong(self._peek().at, f"{what} is missing before {_shown(self._peek())}")
        return token

    def _either(self, depth: int) -> Callable[[Mapping[str, Any]], bool]:
        parts = [self._both(depth)]
        while self._take("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else lambda fields: any(part(fields) for part in parts)

    def _both(self, depth: int) -> Callable[[Mapping[str, Any]], bool]:
        parts = [self._negated(depth)]
        while self._take("and"):
            parts.append(self._negated(depth))
        return parts[0] if len(parts) == 1 else lambda fields: all(part(fields) for part in parts)

    def _negated(self, depth: int) -> Callable[[Mapping[str, Any]], bool]:
        if depth > _DEPTH:
            raise self._wrong(self._peek().at, "is nested too deeply")
        if self._take("not"):
            inner = self._negated(depth + 1)
            return lambda fields: not inner(fields)
        if self._take("("):
            inside = self._either(depth + 1)
            self._need(")", "a closing parenthesis")
            return inside
        return self._comparison()

    def _comparison(self) -> Callable[[Mapping[str, Any]], bool]:
        left = self._value()
        sign = self._take(*_COMPARISONS)
        if sign is not None:
            right = self._value()
            return lambda fields: self._compare(sign, left(fields), right(fields), fields)
        token = self._peek()
        wanted = not self._take("not")
        if self._take("in"):
            among = self._several() if self._peek().kind == "[" else self._value()
            return lambda fields: self._among(token, left(fields), among(fields), fields) is wanted
        raise self._wrong(token.at, f"a comparison (== != < <= > >= in) is missing before {_shown(token)}")

    def _value(self) -> Callable[[Mapping[str, Any]], Any]:
        token = self._take("number", "text", "name", "true", "false", "null")
        if token is None:
            raise self._wrong(self._peek().at, f"a value or a field is missing before {_shown(self._peek())}")
        if token.kind == "name":
            return self._field(token)
        constant = self._constant(token)
        return lambda _: constant

    def _several(self) -> Callable[[Mapping[str, Any]], list[Any]]:
        self._need("[", "a list")
        items = []
        while not self._take("]"):
            token = self._take("number", "text", "true", "false", "null")
            if token is None:
                raise self._wrong(self._peek().at, "a list contains strings, numbers, true, false and null, separated by commas")
            items.append(self._constant(token))
            if self._peek().kind != "]":
                self._need(",", "a comma or a closing bracket")
        return lambda _: items

    @staticmethod
    def _constant(token: _Token) -> Any:
        if token.kind == "text":
            return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), token.text[1:-1])
        if token.kind == "number":
            return float(token.text) if re.search(r"[.eE]", token.text) else int(token.text)
        return _CONSTANTS[token.kind]

    def _field(self, token: _Token) -> Callable[[Mapping[str, Any]], Any]:
        name = token.text
        group = f"{name.partition('.')[0]}."
        if name not in self._names and not (group in self._names and len(name) > len(group)):
            shown = sorted(f"{known}NAME" if known.endswith(".") else known for known in self._names)
            hint = suggest(name, self._names) or ";"
            raise self._wrong(token.at, f"there is no field '{name}'{hint} fields are {', '.join(shown)}; a string needs quotes")

        def value(fields: Mapping[str, Any]) -> Any:
            if name in fields:
                return fields[name]
            there = ", ".join(sorted(known for known in fields if known.startswith(group))) or "none"
            raise DataError(self._pointed(token.at, f"there is no {name} in {_which(fields)}; there is {there}"))

        return value

    # --- comparing

    def _compare(self, sign: _Token, left: Any, right: Any, fields: Mapping[str, Any]) -> bool:
        if left is None or right is None:
            return {"==": left is right, "!=": left is not right}.get(sign.text, False)
        if _kind(left) != _kind(right):
            raise self._unlike(sign, left, right, fields)
        if sign.text not in ("==", "!=") and _kind(left) not in ("a number", "a string"):
            raise self._unlike(sign, left, right, fields)
        return bool(_COMPARISONS[sign.text](left, right))

    def _among(self, token: _Token, left: Any, among: Any, fields: Mapping[str, Any]) -> bool:
        if among is None:
            return False
        if isinstance(among, list):
            return any(_kind(item) == _kind(left) and item == left for item in among)
        if isinstance(among, str) and (isinstance(left, str) or left is None):
            return left is not None and left in among
        raise self._unlike(token, left, among, fields)

    def _unlike(self, token: _Token, left: Any, right: Any, fields: Mapping[str, Any]) -> DataError:
        where = f" (in {_which(fields)})" if "id" in fields else ""
        return DataError(
            self._pointed(token.at, f"compares {_kind(left)}, {_short(left)}, with {_kind(right)}, {_short(right)}{where}")
        )

    def _wrong(self, at: int, what: str) -> ConfigError:
        return ConfigError(self._pointed(at, what))

    def _pointed(self, at: int, what: str) -> str:
        flat = re.sub(r"\s", " ", self.text)
        return f"where: {what}\n  {flat}\n  {' ' * at}^"


def _which(fields: Mapping[str, Any]) -> str:
    return f"id {fields['id']!r}" if "id" in fields else "this row"


def _strange(rest: str) -> str:
    if rest[0] in "\"'":
        return "a string without its closing quote"
    if rest[0] == "=":
        return "`=` is not a comparison; write =="
    return f"'{rest.split(maxsplit=1)[0][:20]}' cannot stand here"


def _shown(token: _Token) -> str:
    return token.text if token.kind == "end" else f"'{token.text}'"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]}..."  # noqa: PLR2004


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return {str: "a string", type(None): "null", list: "a list"}.get(type(value), "an object")
