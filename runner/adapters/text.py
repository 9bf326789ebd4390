"""The text adapter: one prompt for a model that continues text (the completions API)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from runner.adapters.prompt import Formatted
from runner.adapters.templates import Template, columns_of

if TYPE_CHECKING:
    from runner.adapters.prompt import ParseError, Prompt
    from runner.types import Row


class TextAdapter:
    """Text in, its continuation out.

    The prompt is the system text, each example, and the user's text, with a blank line between them. An example is its user's
    text, one space unless that text ends in white space, and its answer. A model that continues the user's text therefore
    continues it as the examples do. Nothing is added after the user's text.

    Args:
        prompt: the templates and examples.

    Raises:
        ConfigError: a template has a syntax error.
    """

    model_type: Literal["text"] = "text"

    def __init__(self, prompt: Prompt) -> None:
        self._user = Template(prompt.user, where="prompt.user")
        self._system = None if prompt.system is None else Template(prompt.system, where="prompt.system")
        self._examples = "".join(_example(pair["user"], pair["assistant"]) for pair in prompt.examples)

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the templates; None if one of them does more than fill columns in."""
        return columns_of(self._user, self._system)

    def params(self) -> dict[str, Any]:
        """Return no parameters."""
        return {}

    def format(self, row: Row) -> Formatted:
        """Return the prompt of `row`."""
        body = self._examples + self._user.render(row)
        system = "" if self._system is None else self._system.render(row)
        return Formatted(prompt=f"{system}\n\n{body}" if system else body)

    def parse(self, text: str) -> Any:  # noqa: ARG002 - Adapter
        """Return None: the text is the answer."""
        return None

    def reask(self, formatted: Formatted, text: str, error: ParseError) -> Formatted | None:  # noqa: ARG002 - Adapter
        """Return None: any text is accepted."""
        return None


def _example(user: str, answer: str) -> str:
    gap = "" if user[-1:].isspace() else " "
    return f"{user}{gap}{answer}\n\n"
