"""The JSON adapter: the answer must be JSON that follows a schema, and the model may be asked again when it is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from runner.adapters.chat import ChatAdapter
from runner.adapters.prompt import Formatted, ParseError
from runner.errors import ConfigError

if TYPE_CHECKING:
    from runner.adapters.prompt import Prompt
    from runner.types import Row

_FENCE = re.compile(r"```(?:json)?\s(.*?)```", re.DOTALL | re.IGNORECASE)
_SHOWN = 3
"""How many of a schema's complaints are passed on; a model that got everything wrong is not helped by a hundred."""


class JsonAdapter:
    """Messages in, JSON out, validated against a schema.

    The answer is JSON when its whole text is, or the first ``` fence in it. The prompt is sent as written: it should say what
    the JSON holds, also because OpenAI's ``json_object`` wants the word JSON in it.

    Args:
        prompt: what to send.
        schema: the JSON Schema (2020-12 unless its ``$schema`` says otherwise; a ``$ref`` to another document is not fetched).
        retries: how often to ask again, with the bad answer and what is wrong with it. Default 1.
        send_schema: what the server is told: ``json_schema`` (default; servers constrain the answer with it; strict where
            every object in it forbids additional properties and requires all its own, as OpenAI's strict mode wants),
            ``json_object`` (JSON of any shape) or ``none``.
        literal_tokens: as in `ChatAdapter`.

    Raises:
        ConfigError: the schema is none, or a template has a syntax error.
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
    ) -> None:
        from jsonschema import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry

        if retries < 0:
            raise ConfigError(f"adapter.retries is {retries}: give 0 or more")
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ConfigError(f"adapter.schema is no JSON Schema: at {error.json_path}: {error.message}") from error
        # The empty registry: by default jsonschema would fetch a $ref from the network.
        self._validator = kind(schema, registry=Registry())
        self._chat = ChatAdapter(prompt, literal_tokens=literal_tokens)
        self._schema = schema
        self._retries = retries
        self._send_schema = send_schema
        self._asked_once = 1 + (prompt.system is not None) + 2 * len(prompt.examples)
        """How many messages the first request has; each re-ask adds two."""

    def params(self) -> dict[str, Any]:
        """Return the ``response_format`` in OpenAI's form, if any."""
        if self._send_schema == "none":
            return {}
        if self._send_schema == "json_object":
            return {"response_format": {"type": "json_object"}}
        schema = {"name": "answer", "schema": self._schema, "strict": _is_closed(self._schema)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}

    def format(self, row: Row) -> Formatted:
        """Make the messages of `row`."""
        return self._chat.format(row)

    def parse(self, text: str) -> Any:
        """Return the JSON in `text`.

        Raises:
            ParseError: it holds none, or not what the schema wants.
            ConfigError: the schema refers to something that is not in it.
        """
        from referencing.exceptions import Unresolvable

        value = _json_in(text)
        try:
            errors = sorted(self._validator.iter_errors(value), key=lambda error: error.json_path)
        except Unresolvable as error:
            raise ConfigError(f"adapter.schema: the $ref {error.ref!r} points to nothing inside the schema") from error
        if errors:
            raise ParseError("; ".join(f"at {error.json_path}: {_short(error.message)}" for error in errors[:_SHOWN]))
        return value

    def reask(self, formatted: Formatted, text: str, error: ParseError) -> Formatted | None:
        """Return the messages with the bad answer and what is wrong with it added, or None after `retries` of them."""
        messages = formatted.messages or []
        if (len(messages) - self._asked_once) // 2 >= self._retries:
            return None
        wish = f"That answer cannot be used: {error}. Answer again with nothing but JSON that follows the schema."
        return Formatted([*messages, self._chat.message("assistant", text), self._chat.message("user", wish)])


def _json_in(text: str) -> Any:
    fence = _FENCE.search(text)
    for candidate in (text, fence[1]) if fence else (text,):
        try:
            return msgspec.json.decode(candidate)
        except (ValueError, RecursionError) as error:
            reason = str(error).removeprefix("JSON is malformed: ")
    raise ParseError(f"not JSON ({reason})")


def _is_closed(schema: Any) -> bool:
    """Say whether every object in `schema` forbids other properties and requires its own."""
    if isinstance(schema, list):
        return all(map(_is_closed, schema))
    if not isinstance(schema, dict):
        return True
    if (schema.get("type") == "object" or "properties" in schema) and (
        schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(schema.get("properties", ()))
    ):
        return False
    return all(map(_is_closed, schema.values()))


def _short(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:297]}..."  # noqa: PLR2004 - a message may quote a whole answer
