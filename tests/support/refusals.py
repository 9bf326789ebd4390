"""Refusals of real servers: who sent which status and body, where that was seen, and what it means.

They are lines of ``refusals.jsonl``. Bodies are retold with the codes and phrases that the servers use; names, numbers and ids
are made up. `runner.network.words` is tested against all of them. To add one: add a line with its source, then see whether the
rules judge it rightly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from runner import errors


class Seen(NamedTuple):
    """One refusal.

    Attributes:
        vendor: the provider or server.
        status: HTTP status.
        kind: the class of what it means.
        source: a page, a thread, a source file, or "measured" with the version.
        body: JSON as Python data, or text.
        wait_s: the seconds that the body asks to wait.
        told: words that the message for people must hold.
    """

    vendor: str
    status: int
    kind: type[errors.LMError]
    source: str
    body: Any
    wait_s: float | None = None
    told: str = ""

    @property
    def sent(self) -> bytes:
        """The body as it is sent."""
        return (self.body if isinstance(self.body, str) else json.dumps(self.body, ensure_ascii=False)).encode()


def _seen(line: str) -> Seen:
    row = json.loads(line)
    return Seen(**row | {"kind": getattr(errors, row["kind"])})


REFUSALS = [_seen(line) for line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]
