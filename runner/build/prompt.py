"""Build the adapter with its prompt, and what finds the images and files of the rows, from a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner import adapters
from runner.adapters.conversation import Cell
from runner.adapters.templates import Template
from runner.attachments import Attachments, Kind
from runner.build.text import text_in
from runner.config import schema
from runner.config.schema.request import CODE, RECORDED
from runner.errors import ConfigError, DataError
from runner.network.client import downloaded
from runner.solvers.conversation import Conversation
from runner.solvers.user import Script, SimulatedUser, User
from runner.system.paths import expanded
from runner.tools import Functions, Toolbox, ToolServer, checked

if TYPE_CHECKING:
    from runner.adapters import Adapter


def adapter(config: schema.RunConfig) -> Adapter:
    """Build the adapter with its prompt.

    Raises:
        ConfigError: the adapter does not fit the model, or a prompt file cannot be read.
    """
    built_prompt, files = _prompt(config.prompt), attachments(config)
    built: Adapter
    match config.adapter:
        case schema.request.ChatAdapter() as chosen:
            local = isinstance(config.model, schema.model.LocalModel)
            literal = local if chosen.literal_tokens is None else chosen.literal_tokens
            built = adapters.chat_adapter(built_prompt, files, literal_tokens=literal)
        case schema.request.TextAdapter():
            if built_prompt.messages is not None:
                raise ConfigError("prompt.messages: adapter=text sends one text; write prompt.user, or use adapter=chat")
            built = adapters.TextAdapter(built_prompt)
        case schema.request.JsonAdapter() as chosen:
            literal = isinstance(config.model, schema.model.LocalModel)
            built = adapters.JsonAdapter(
                built_prompt,
                chosen.schema,
                retries=chosen.retries,
                send_schema=chosen.send_schema,
                literal_tokens=literal,
                repair=chosen.repair,
                attachments=files,
            )
    wanted = "text" if config.model.model_type == "text" else "chat"
    if built.model_type not in (None, wanted):
        fix = "adapter=text" if wanted == "text" else "model.model_type=text"
        raise ConfigError(f"adapter.kind: '{config.adapter.__struct_config__.tag}' does not fit model_type {wanted}; add {fix}")
    return built


def _prompt(config: schema.request.Prompt) -> adapters.Prompt:
    """Read the files of a prompt. Raises ConfigError."""
    messages = config.messages
    return adapters.Prompt(
        system=text_in(config.system_file, "prompt.system_file") if config.system_file else config.system,
        user=text_in(config.user_file, "prompt.user_file") if config.user_file else config.user or "",
        examples=[{"user": example.user, "assistant": example.assistant} for example in config.examples],
        messages=messages if messages is None or isinstance(messages, str) else [_message(one) for one in messages],
    )


def _message(config: schema.request.PromptMessage) -> adapters.MessageTemplate:
    content = config.content
    return adapters.MessageTemplate(config.role, content if isinstance(content, str) else [_part(part) for part in content])


def _part(config: schema.request.Part) -> adapters.PartTemplate:
    kinds: tuple[Kind, ...] = ("image", "audio", "file")
    for kind in kinds:
        if (source := getattr(config, kind)) is not None:
            return adapters.PartTemplate(kind, source, config.detail, config.name)
    return adapters.PartTemplate(None, config.text or "")


def conversation(config: schema.RunConfig, chosen: Adapter) -> Conversation | None:
    """Build what holds the conversation of a row; None if its prompt is asked once.

    Raises:
        ConfigError: the tools cannot be used, or there is nothing to converse in.
    """
    prompt = config.prompt
    box = _toolbox(prompt)
    simulated = prompt.simulated_user
    if box is None and not prompt.turns and simulated is None:
        return None
    if (kind := config.solver.__struct_config__.tag) != "plain":
        raise ConfigError(
            f"prompt: turns and tools are asked by the plain solver, and solver={kind} asks in its own way; keep one"
        )
    if config.model.model_type == "text":
        raise ConfigError("prompt: turns and tools are for chat models; use model.model_type=chat")
    turns = [Template(text, where=f"prompt.turns[{number}]") for number, text in enumerate(prompt.turns)]
    user: User = Script(turns)
    if simulated is not None:
        told = Template(simulated.prompt, where="prompt.simulated_user.prompt")
        user = SimulatedUser(told, turns=simulated.turns, stop=simulated.stop)
    return Conversation(chosen, box, tool_choice=prompt.tool_choice, user=user)


def _toolbox(prompt: schema.request.Prompt) -> Toolbox | None:
    server = prompt.tool_server
    if prompt.tools is None and server is None:
        return None
    given: list[dict[str, Any]] | Cell | None = None
    functions = None
    if isinstance(prompt.tools, list):
        try:
            given = checked(prompt.tools)
        except DataError as error:
            raise ConfigError(f"prompt.tools: {error}") from None
    elif prompt.tools is not None and CODE.fullmatch(prompt.tools):
        functions = Functions(prompt.tools, "prompt.tools")
    elif prompt.tools is not None:
        given = Cell(prompt.tools, "prompt.tools")
    results, table = prompt.tool_results, None
    if results is not None and CODE.fullmatch(results):
        functions, given = Functions(results, "prompt.tool_results"), functions.definitions if functions else given
    elif results is not None and results != RECORDED:
        table = Cell(results, "prompt.tool_results")
    return Toolbox(
        given,
        table=table,
        functions=functions,
        server=ToolServer(
            server.command,
            env=server.env,
            timeout_s=prompt.tool_timeout_s,
            cwd=None if server.cwd is None else expanded(server.cwd),
        )
        if server is not None
        else None,
        timeout_s=prompt.tool_timeout_s,
        max_turns=prompt.max_turns,
        recorded_only=results == RECORDED,
    )


def attachments(config: schema.RunConfig) -> Attachments | None:
    """Make what finds the images, sounds and files of the rows; None if the prompt cannot have any."""
    if config.prompt.messages is None:
        return None
    if config.prompt.files is not None:
        return Attachments(expanded(config.prompt.files), fetch=downloaded)
    path = getattr(config.data, "path", None) or "."
    first = expanded(path if isinstance(path, str) else path[0])
    if "://" in str(path):  # data from elsewhere is kept by content, beside nothing
        return Attachments(Path(), fetch=downloaded)
    while any(mark in first.name for mark in "*?["):
        first = first.parent
    return Attachments(first if first.is_dir() else first.parent, fetch=downloaded)
