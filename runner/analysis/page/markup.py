"""HTML from plain values: everything is escaped here, unless it was made here."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | None
"""What can stand in a page; what is not `Html` is text, and None a dash."""


def esc(content: Content) -> str:
    """As HTML."""
    if isinstance(content, Html):
        return content
    return '<span class="none">–</span>' if content is None else escape(str(content))


def tag(name: str, *content: Content, **attributes: str | bool | None) -> Html:
    """An element. Of attributes, ``class_`` is ``class`` and ``aria_label`` is ``aria-label``; False and None stand for none."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Html:
    """One after the other."""
    return Html("".join(map(esc, content)))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Content]], *, class_: str | None = None) -> Html:
    """A table that scrolls by itself when it is too wide. The first column heads the rows; numbers stand to the right."""
    head = join(tag("th", name, scope="col") for name in heads)
    body = join(tag("tr", tag("th", row[0], scope="row"), *map(_cell, row[1:])) for row in rows)
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body), class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(content: Content) -> Html:
    return tag("td", content, class_="number" if isinstance(content, int | float) or _looks_numeric(content) else None)


def _looks_numeric(content: Content) -> bool:
    return (
        isinstance(content, str) and content[:1].isdigit() and not any(letter.isalpha() for letter in content.replace("ms", ""))
    )
