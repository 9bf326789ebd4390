"""Text from elsewhere (models' answers, records, capsules) made safe to show: nothing in it that a terminal would obey."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with all that cannot be printed written as an escape; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
