"""Tags: words that a run or a sweep is found by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runner.errors import ConfigError
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAG = re.compile(r"[\w.:/@+-]{1,64}")


def checked_tags(tags: Sequence[str], where: str = "tags") -> list[str]:
    """Return the tags, each once.

    Args:
        tags: words of letters, digits and ``._:/@+-``, of at most 64 characters.
        where: where they were given, for messages.

    Raises:
        ConfigError: one is not such a word, or looks like a secret; or they are one text instead of a list.
    """
    if isinstance(tags, str):
        raise ConfigError(f'{where} are a list: tags=["baseline"]')
    for tag in tags:
        if not isinstance(tag, str) or not _TAG.fullmatch(tag) or redact(tag) != tag:
            raise ConfigError(f"{where} {redact(str(tag))!r}: give a word of letters, digits and ._:/@+- (at most 64)")
    return list(dict.fromkeys(tags))
