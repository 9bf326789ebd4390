"""Check the conversations of all rows before anything is paid: their form, what they attach, and whether the model takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.adapters import conversation_of
from runner.attachments import names_in
from runner.errors import ConfigError, DataError
from runner.lm.takes import refuse_untaken
from runner.servers.listing import is_paid, modalities_of

if TYPE_CHECKING:
    from runner.experiment.parts import Parts


def check(parts: Parts) -> bool:
    """Make the messages of every row, and read its tools. Return whether rows have any of them; plain prompts are not looked at.

    Raises:
        DataError: a row's conversation is malformed, or what it attaches cannot be used; the message says where the row stands.
        ConfigError: the model does not take what is attached.
    """
    lm, tools = parts.lm, parts.tools
    api_base = lm.channel().connection.api_base
    if conversation_of(parts.adapter) is None and (tools is None or not tools.by_row):
        return False
    for number, row in enumerate(parts.dataset):
        try:
            if tools is not None:
                tools.check(row)
            messages = parts.adapter.format(row).messages or []
            if next(names_in(messages), None) is not None:
                refuse_untaken(lm.model, lm.model_type, api_base, messages)
        except (DataError, ConfigError) as error:
            raise type(error)(f"{parts.dataset.place(number)}: {error}") from None
    return True


def refuse_by_server(parts: Parts) -> None:
    """Ask the server, if it is llama.cpp's, what its model takes. Raises ConfigError if that is not what is attached.

    It answers an image that it cannot read with a status of 500, as if it had failed.
    """
    conversation = conversation_of(parts.adapter)
    connection = parts.lm.channel().connection
    if conversation is None or not conversation.attachments.kinds or not connection.api_base or is_paid(connection.api_base):
        return
    headers = {"Authorization": f"Bearer {connection.api_key}"} if connection.api_key else {}
    takes = modalities_of(connection.api_base, headers | connection.headers)
    if takes is None:
        return
    for kind in sorted(conversation.attachments.kinds - takes):
        raise ConfigError(
            f"{parts.lm.model}: the server at {connection.api_base} takes {' and '.join(['text', *sorted(takes)])} "
            f"(its /props), and the prompt attaches {kind}; serve a model that takes it (llama.cpp: --mmproj)"
        )
