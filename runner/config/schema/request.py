"""Declare `sampling`, `prompt` and `adapter`: what is asked, and in which form."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from runner.config.schema.base import Config, Count, Kind, Positive, Seconds, Text
from runner.config.schema.model import Model

COLUMN = re.compile(r"\s*\{\{\s*[A-Za-z_]\w*(?:\.\w+)*\s*\}\}\s*")
"""Fits the name of a column as a template: the value itself is meant, not its text."""


class Sampling(Config, frozen=True, kw_only=True):
    """Hold sampling parameters. None: the parameter is not sent, so the provider's default applies."""

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = 0.0
    max_tokens: Positive | None = 1000
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    seed: int | None = None
    stop: list[str] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeats: Positive = 1


class Example(Config, frozen=True, kw_only=True):
    """Show the model one example (shot) before the question. Its text is literal."""

    user: str
    assistant: str


class Part(Config, frozen=True, kw_only=True):
    """Hold one part of a message: a text, an image, a sound or a file. Each is a template, or the column that holds it."""

    text: str | None = None
    image: str | None = None
    audio: str | None = None
    file: str | None = None
    detail: Literal["auto", "low", "high"] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        given = [kind for kind in ("text", "image", "audio", "file") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a part is one of text, image, audio and file, not {' and '.join(given) or 'none'} of them")
        if self.detail is not None and self.image is None:
            raise ValueError("detail is for images")
        if self.name is not None and self.file is None:
            raise ValueError("name is for files")


class PromptMessage(Config, frozen=True, kw_only=True):
    """Hold one message of a prompt. Its content is a template, or a list of parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class ToolServer(Config, frozen=True, kw_only=True):
    """Start a server of tools that speaks MCP over its standard input and output (the extra ``mcp``)."""

    command: Annotated[list[Text], Meta(min_length=1)]
    env: list[Text] = []
    cwd: Text | None = None


class SimulatedUser(Config, frozen=True, kw_only=True):
    """Have a model play the user, who goes on after each answer. `prompt` is a template: who the user is, and what for."""

    model: Model
    sampling: Sampling = Sampling()
    prompt: Text
    turns: Positive = 5
    stop: Text = "DONE"


_QUESTION = "{{ question }}"
CODE = re.compile(r"[^{}]+\.py(?::[A-Za-z_]\w*(?:\s*,\s*[A-Za-z_]\w*)*)?")
"""Fits a Python file, perhaps with the names of some of its functions."""
RECORDED = "recorded"
"""Stands for the results in the record alone, as capsules have them."""


class Prompt(Config, frozen=True, kw_only=True):
    """Say what the model is asked. `system`, `user` and the content of `messages` are templates: ``{{ column }}``."""

    system: str | None = None
    user: str | None = _QUESTION
    system_file: str | None = None
    user_file: str | None = None
    examples: list[Example] = []
    messages: list[PromptMessage] | str | None = None
    files: str | None = None
    turns: list[Text] = []
    simulated_user: SimulatedUser | None = None
    tools: list[dict[str, Any]] | str | None = None
    tool_choice: Text | None = None
    tool_results: Text | None = None
    tool_server: ToolServer | None = None
    tool_timeout_s: Seconds = 30.0
    max_turns: Positive = 10

    def __post_init__(self) -> None:
        self._check_tools()
        if self.turns and self.simulated_user is not None:
            raise ValueError("turns and simulated_user are both given; keep one")
        if self.messages is not None:
            self._check_messages(self.messages)
        elif self.user_file is None and not self.user:
            raise ValueError("user is empty; say what to ask, for example prompt.user='{{ question }}'")
        if self.system is not None and self.system_file is not None:
            raise ValueError("system and system_file are both given; keep one")

    def _check_tools(self) -> None:
        if self.tools is None and self.tool_server is None:
            for name in ("tool_choice", "tool_results"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is given, and there are no tools; name some: tools=tools.py, or a list of them")
        if self.tools in ([], ""):
            raise ValueError("tools is empty; name some, or leave it null")
        for name in ("tools", "tool_results"):
            given = getattr(self, name)
            if isinstance(given, str) and not (COLUMN.fullmatch(given) or CODE.fullmatch(given) or given == RECORDED):
                raise ValueError(
                    f"{name} is {given!r}; give a column, '{{{{ {name} }}}}', or a Python file: tools.py, tools.py:one,two"
                )
        if self.tools == RECORDED:
            raise ValueError("tools is 'recorded'; only results can be")

    def _check_messages(self, messages: list[PromptMessage] | str) -> None:
        given = [name for name in ("system", "system_file", "user_file", "examples") if getattr(self, name)]
        given += ["user"] if self.user not in (_QUESTION, None, "") else []
        if given:
            raise ValueError(f"messages and {given[0]} are both given; write all of the prompt as messages, or none")
        if not messages:
            raise ValueError("messages is empty; give [{role: user, content: '{{ question }}'}], or a column: '{{ messages }}'")
        if isinstance(messages, str):
            if COLUMN.fullmatch(messages) is None:
                raise ValueError(f"messages is {messages!r}; name the column that holds the conversation: '{{{{ messages }}}}'")
        elif messages[-1].role != "user":
            raise ValueError(f"messages ends with the role {messages[-1].role}; the last message is the user's")


class ChatAdapter(Kind, frozen=True, kw_only=True, tag="chat"):
    """Send the prompt as chat messages."""

    literal_tokens: bool | None = None


class TextAdapter(Kind, frozen=True, kw_only=True, tag="text"):
    """Send the prompt as one text to continue. The model needs ``model_type: text``."""


class JsonAdapter(Kind, frozen=True, kw_only=True, tag="json"):
    """Expect JSON that matches a schema. If an answer does not, the model is asked again, up to `retries` times."""

    schema: dict[str, Any] = {}
    retries: Count = 1
    send_schema: Literal["json_schema", "json_object", "none"] = "json_schema"
    repair: bool = False


class PluginAdapter(Kind, frozen=True, kw_only=True, tag="plugin"):
    """Format prompts and parse answers by an adapter of an installed package (entry point group ``ostinato.adapters``)."""

    name: Text
    params: dict[str, Any] = {}


Adapter: TypeAlias = ChatAdapter | TextAdapter | JsonAdapter | PluginAdapter
