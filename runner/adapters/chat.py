"""The chat adapter: system message, examples and the user's turn, as chat messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from runner.adapters.prompt import Formatted
from runner.adapters.templates import Template, columns_of

if TYPE_CHECKING:
    from runner.adapters.prompt import ParseError, Prompt
    from runner.types import Message, Row


class ChatAdapter:
    """Messages in, text out.

    Args:
        prompt: the templates and examples.
        literal_tokens: write ``<|`` as ``< |`` in every message, so that text such as ``<|im_end|>`` in a row stays text.
            llama.cpp's server parses control tokens in user messages, so that a row could end its own turn. Applied to whole
            messages, since two columns can form a token together. Default False: messages are sent unchanged.

    Raises:
        ConfigError: a template has a syntax error.
    """

    model_type: Literal["chat"] = "chat"

    def __init__(self, prompt: Prompt, *, literal_tokens: bool = False) -> None:
        self._literal_tokens = literal_tokens
        self._user = Template(prompt.user, where="prompt.user")
        self._system = None if prompt.system is None else Template(prompt.system, where="prompt.system")
        self._examples = [self.message(role, example[role]) for example in prompt.examples for role in ("user", "assistant")]
        self._head: list[Message] | None = None
        """The messages before the user's turn, if they are the same for every row."""
        if self._system is None:
            self._head = self._examples
        elif self._system.constant is not None:
            self._head = [self.message("system", self._system.constant), *self._examples]

    @property
    def columns(self) -> frozenset[str] | None:
        """The columns of the templates; None if one of them does more than fill columns in."""
        return columns_of(self._user, self._system)

    def params(self) -> dict[str, Any]:
        """Return no parameters."""
        return {}

    def format(self, row: Row) -> Formatted:
        """Return the messages of `row`."""
        user = self.message("user", self._user.render(row))
        if self._head is not None:
            return Formatted([*self._head, user])
        assert self._system is not None
        return Formatted([self.message("system", self._system.render(row)), *self._examples, user])

    def parse(self, text: str) -> Any:  # noqa: ARG002 - Adapter
        """Return None: the text is the answer."""
        return None

    def reask(self, formatted: Formatted, text: str, error: ParseError) -> Formatted | None:  # noqa: ARG002 - Adapter
        """Return None: any text is accepted."""
        return None

    def message(self, role: str, content: str) -> Message:
        """Return a message, with control tokens broken up if `literal_tokens` is set."""
        return {"role": role, "content": self.literal(content)}

    def literal(self, text: str) -> str:
        """Return a text, with control tokens broken up if `literal_tokens` is set."""
        return text.replace("<|", "< |") if self._literal_tokens else text
