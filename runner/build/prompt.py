"""Build the adapter with its prompt, and what finds the images and files of the rows, from a config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner import adapters, plugins
from runner.attachments import Attachments, Kind
from runner.build.text import text_in
from runner.config import schema
from runner.errors import ConfigError
from runner.system.paths import expanded

if TYPE_CHECKING:
    from runner.adapters import Adapter
    from runner.solvers.conversation import Conversation


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
        case schema.request.PluginAdapter() as chosen:
            built = plugins.add("adapter", chosen.name, chosen.params, built_prompt).made
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
    """Build what holds the conversation of a row; None if its prompt is asked once. Raises ConfigError as `conversing`."""
    prompt = config.prompt
    if prompt.tools is None and prompt.tool_server is None and not prompt.turns and prompt.simulated_user is None:
        return None
    from runner.build.turns import conversing

    return conversing(config, chosen)


def attachments(config: schema.RunConfig) -> Attachments | None:
    """Make what finds the images, sounds and files of the rows; None if the prompt cannot have any."""
    if config.prompt.messages is None:
        return None
    from runner.network.client import downloaded

    if config.prompt.files is not None:
        return Attachments(expanded(config.prompt.files), fetch=downloaded)
    path = getattr(config.data, "path", None) or "."
    first = expanded(path if isinstance(path, str) else path[0])
    if "://" in str(path):  # data from elsewhere is kept by content, beside nothing
        return Attachments(Path(), fetch=downloaded)
    while any(mark in first.name for mark in "*?["):
        first = first.parent
    return Attachments(first if first.is_dir() else first.parent, fetch=downloaded)
