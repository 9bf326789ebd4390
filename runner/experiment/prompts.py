"""Check the prompts of all rows before anything is paid: their columns, what they attach, and whether the model takes it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from runner.adapters import conversation_of
from runner.attachments import names_in
from runner.errors import ConfigError, DataError

if TYPE_CHECKING:
    from runner.experiment.parts import Parts


def check(parts: Parts) -> None:
    """Make the prompt of every row, and read its tools. If all rows have the columns of the prompt, the first row stands for all.

    Raises:
        DataError: a row lacks a column of the prompt, its conversation is malformed, or what it attaches cannot be used; the
            message says where the row stands.
        ConfigError: the model does not take what is attached.
    """
    lm, dataset = parts.lm, parts.dataset
    tools = parts.tools if parts.tools is not None and parts.tools.by_row else None
    api_base = lm.channel().connection.api_base
    columns = parts.adapter.columns
    alike = tools is None and columns is not None and columns.isdisjoint(dataset.gaps)
    for number, row in enumerate(islice(dataset, 1) if alike else dataset):
        try:
            if tools is not None:
                tools.check(row)
            messages = parts.adapter.format(row).messages or []
            if next(names_in(messages), None) is not None:
                from runner.lm.takes import refuse_untaken

                refuse_untaken(lm.model, lm.model_type, api_base, messages)
        except (DataError, ConfigError) as error:
            raise type(error)(f"{dataset.place(number)}: {error}") from None


def refuse_by_server(parts: Parts) -> None:
    """Ask the server, if it is llama.cpp's, what its model takes. Raises ConfigError if that is not what is attached.

    It answers an image that it cannot read with a status of 500, as if it had failed.
    """
    conversation = conversation_of(parts.adapter)
    connection = parts.lm.channel().connection
    if conversation is None or not conversation.attachments.kinds or not connection.api_base:
        return
    from runner.servers.listing import is_paid, modalities_of

    if is_paid(connection.api_base):
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
