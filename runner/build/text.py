"""Read the text files that a config names."""

from __future__ import annotations

from runner.errors import ConfigError
from runner.system.paths import expanded


def text_in(path: str, key: str) -> str:
    """Read a text file that the config names under `key`.

    Raises:
        ConfigError: the file cannot be read, or is not UTF-8.
    """
    try:
        return expanded(path).read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path}: not UTF-8 at byte {error.start}") from None
