"""Keep secrets and paths of this machine out of capsules."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.errors import RecordError
from runner.secrets import holds_secret, is_secret, remember
from runner.system.paths import home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from runner.config.schema import RunConfig

_PATH = re.compile(r"(?<![\w/.])/(?:[\w.@+-]+/)+(?P<last>[\w.@+-]+)")
_ENV = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_CONTENT = ("config.prompt", "config.adapter", "config.scoring", "config.solver.params", "config.sampling", "data.ids", "texts")
"""Parts of the manifest that the user wrote, in which paths are not looked for."""


class Places:
    """Paths on this machine, and the names that replace them.

    Args:
        known: names for absolute paths, in addition to those of this user's folders.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        own = {str(home()): "$OSTINATO_HOME", str(Path.home()): "~", tempfile.gettempdir(): "$TMPDIR"}
        places = {path: name for path, name in {**own, **known}.items() if len(path) > 1 and Path(path).is_absolute()}
        self._names = dict(sorted(places.items(), key=lambda pair: -len(pair[0])))  # the longest first: one may contain another
        self._places = re.compile("|".join(rf"(?<![\w/.]){re.escape(path)}(?=\W|$)" for path in self._names))

    def moved(self, value: Any) -> Any:
        """Return JSON data in which the paths are replaced."""
        if isinstance(value, dict):
            return {key: self.moved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.moved(item) for item in value]
        return self._places.sub(lambda found: self._names[found[0]], value) if isinstance(value, str) else value

    def named_in(self, text: str) -> bool:
        """Return whether a text contains one of the paths."""
        return self._places.search(text) is not None


def short(text: str) -> str:
    """Return `text` with each absolute path reduced to its last part."""
    return _PATH.sub(lambda found: found["last"], text)


def remember_keys(config: RunConfig) -> None:
    """Register the keys in this machine's environment as secrets."""
    named: set[str | None] = set()
    for model in (config.model, *(own.model for own in build.named(config).values())):
        named.add(getattr(model, "api_key_env", None))
        for value in getattr(model, "headers", {}).values():
            named |= set(_ENV.findall(value))
    for name, value in os.environ.items():
        if name in named or is_secret(name, value):
            remember(value)


def refuse_secrets(folder: Path, names: Sequence[str]) -> None:
    """Raise RecordError if one of the files holds a secret."""
    for name in names:
        with (folder / name).open(encoding="utf-8", errors="replace", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if holds_secret(line):
                    raise RecordError(
                        f"this run cannot be packed: line {number} of {name} holds what is, or looks like, a secret; "
                        "take it out of the data, prompts or scorers, and run it again"
                    )


def refuse_places(folder: Path, names: Sequence[str], places: Places) -> None:
    """Raise RecordError if JSON, except for what users and models wrote, contains a path of this machine. The last check."""
    for name in names:
        for path, text in _leaves(msgspec.json.decode((folder / name).read_bytes())):
            if not path.startswith(_CONTENT) and places.named_in(text):
                raise RecordError(f"this run cannot be packed: {name}: {path} holds a path of this machine: {text[:200]}")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    elif isinstance(value, str):
        yield path, value
