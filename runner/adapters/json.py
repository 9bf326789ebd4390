"""The JSON adapter: the answer must be JSON that follows a schema; the model may be asked to correct it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner.adapters.conversation import chat_adapter
from runner.adapters.prompt import Formatted, ParseError, Repaired
from runner.answers.repair import available, repaired
from runner.answers.schema import Schema
from runner.answers.values import NOTHING, values
from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.adapters.prompt import Prompt
    from runner.attachments import Attachments
    from runner.types import Row


class JsonAdapter:
    """Messages in, JSON out, validated against a schema.

    The JSON is the whole text of the answer, or the last value in it that follows the schema: in a fence of any language, which
    need not be closed, or outside of one, with prose before and after. The model is asked again only if nothing follows the
    schema. The prompt is sent as written. It should describe the JSON, also because OpenAI's ``json_object`` requires the word
    JSON in it.

    Args:
        prompt: the templates and examples.
        schema: the JSON Schema (2020-12 unless its ``$schema`` says otherwise; a ``$ref`` to another document is not fetched).
        retries: how often to ask for a correction, with the invalid answer and its errors. Default 1.
        repair: if nothing follows the schema, repair the last part that is almost JSON (needs json-repair, the extra ``repair``),
            before asking again. A repair that would change a value is refused. Default False.
        send_schema: the ``response_format`` of requests: ``json_schema`` (default; servers constrain the answer; strict if
            every object in it forbids additional properties and requires all its own, as OpenAI's strict mode demands),
            ``json_object`` (JSON of any shape) or ``none``.
        literal_tokens: as in `ChatAdapter`.
        attachments: finds the images, sounds and files of `Prompt.messages`.

    Attributes:
        chat: the adapter that makes the messages.

    Raises:
        ConfigError: the schema is not a valid JSON Schema, a template has a syntax error, or json-repair is not installed.
    """

    model_type: Literal["chat"] = "chat"

    def __init__(
        self,
        prompt: Prompt,
        schema: dict[str, Any],
        *,
        retries: int = 1,
        send_schema: Literal["json_schema", "json_object", "none"] = "json_schema",
        literal_tokens: bool = False,
        repair: bool = False,
        attachments: Attachments | None = None,
    ) -> None:
        if retries < 0:
            raise ConfigError(f"adapter.retries is {retries}: give 0 or more")
        self._follows = Schema(schema, "adapter.schema")
        self.chat = chat_adapter(prompt, attachments, literal_tokens=literal_tokens)
        self._schema = schema
        self._retries = retries
        self._send_schema = send_schema
        self._repair = repair
        if repair:
            available()

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the messages."""
        return self.chat.columns

    def params(self) -> dict[str, Any]:
        """Return the ``response_format`` in OpenAI's form, if any."""
        if self._send_schema == "none":
            return {}
        if self._send_schema == "json_object":
            return {"response_format": {"type": "json_object"}}
        schema = {"name": "answer", "schema": _spelled_out(self._schema), "strict": _is_closed(self._schema)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def format(self, row: Row) -> Formatted:
        """Return the messages of `row`."""
        return self.chat.format(row)

    def parse(self, text: str) -> Any:
        """Return the JSON in `text`; `Repaired` if it had to be repaired.

        Raises:
            ParseError: there is no JSON, or none that follows the schema.
            ConfigError: the schema refers to something outside it.
        """
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError) as error:
            reasons = [f"not JSON ({str(error).removeprefix('JSON is malformed: ')})"]
        else:
            if not (wrong := self._follows.errors(value)):
                return value
            if not isinstance(value, str):
                raise ParseError(wrong)
            text, reasons = value, [wrong]  # perhaps JSON that was encoded twice
        found = list(reversed(values(text)))
        for part in found:
            if part.value is not NOTHING:
                if not (wrong := self._follows.errors(part.value)):
                    return part.value
                reasons.append(wrong)
        for part in found if self._repair else ():
            if part.value is NOTHING and (value := repaired(part.text)) is not NOTHING and not self._follows.errors(value):
                return Repaired(value)
        raise ParseError(reasons[1] if len(reasons) > 1 else reasons[0])

    def reask(self, formatted: Formatted, text: str, error: ParseError) -> Formatted | None:
        """Return the messages with the invalid answer and its errors added, or None after `retries` corrections."""
        if formatted.corrections >= self._retries:
            return None
        wish = f"That answer cannot be used: {error}. Answer again with nothing but JSON that follows the schema."
        said = [self.chat.message("assistant", text), self.chat.message("user", wish)]
        return Formatted([*(formatted.messages or []), *said], corrections=formatted.corrections + 1)


def _is_closed(schema: Any) -> bool:
    """Return whether every object in `schema` forbids other properties and requires its own."""
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if (schema.get("type") == "object" or "properties" in schema) and (
        schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(schema.get("properties", ()))
    ):
        return False
    return all(map(_is_closed, schema.values()))


_ANY = {"type": ["object", "array", "string", "number", "boolean", "null"]}
_SAYS_NOTHING = frozenset({"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"})
_NAMED, _LISTED = ("properties", "$defs", "definitions"), ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties")


def _spelled_out(schema: Any) -> Any:
    """Return the schema with each part that allows any JSON naming the types. llama.cpp takes ``{}`` for "an object"."""
    if not isinstance(schema, dict):
        return schema
    if schema.keys() <= _SAYS_NOTHING:
        return {**schema, **_ANY}
    spelled = dict(schema)
    for name in schema.keys() & set(_NAMED):
        if isinstance(schema[name], dict):
            spelled[name] = {key: _spelled_out(part) for key, part in schema[name].items()}
    for name in schema.keys() & set(_LISTED):
        if isinstance(schema[name], list):
            spelled[name] = [_spelled_out(part) for part in schema[name]]
    for name in schema.keys() & set(_SINGLE):
        spelled[name] = _spelled_out(schema[name])
    return spelled
