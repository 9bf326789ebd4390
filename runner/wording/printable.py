"""Make text from elsewhere (models' answers, records, capsules) safe to show: without anything that a terminal would execute."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return `text` with every unprintable character escaped; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)
