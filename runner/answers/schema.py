"""Check a JSON value against a JSON Schema."""

from __future__ import annotations

from typing import Any

from runner.errors import ConfigError

_SHOWN = 3
"""How many errors are told; a hundred of them would not help anybody."""
_LONGEST = 300


class Schema:
    """A JSON Schema (2020-12 unless its ``$schema`` says otherwise; a ``$ref`` to another document is not fetched).

    Args:
        schema: the schema.
        key: where the config holds it, for messages.

    Raises:
        ConfigError: it is not a valid JSON Schema.
    """

    def __init__(self, schema: dict[str, Any], key: str) -> None:
        from jsonschema import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry

        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            raise ConfigError(f"{key} is not a valid JSON Schema: at {error.json_path}: {error.message}") from error
        # The empty registry: by default jsonschema would fetch a $ref from the network.
        self._validator = kind(schema, registry=Registry())
        self._key = key

    def errors(self, value: Any) -> str:
        """Return the first errors of `value` in words; an empty text if it follows the schema.

        Raises:
            ConfigError: the schema refers to something outside it.
        """
        from referencing.exceptions import Unresolvable

        try:
            errors = sorted(self._validator.iter_errors(value), key=lambda error: error.json_path)
        except Unresolvable as error:
            raise ConfigError(f"{self._key}: the $ref {error.ref!r} does not point into the schema") from error
        return "; ".join(f"at {error.json_path}: {_short(error.message)}" for error in errors[:_SHOWN])


def _short(message: str) -> str:
    """Cut a message, which may quote a whole answer."""
    return message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}..."
