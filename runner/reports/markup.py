"""HTML from plain values: everything is escaped, except what was made here."""

from __future__ import annotations

import functools
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | float | None
"""Content of a page: text is escaped unless it is `Html`, and None is a dash."""


def esc(content: Content) -> str:
    """Return content as HTML."""
    if isinstance(content, Html):
        return content
    return '<span class="none">–</span>' if content is None else escape(str(content))


def tag(name: str, *content: Content, **attributes: str | bool | None) -> Html:
    """Return an element. ``class_`` is written ``class``, and ``aria_label`` ``aria-label``; False and None are left out."""
    written = ""
    for key, value in attributes.items():
        if value is not None and value is not False:
            written += f" {_attribute(key)}" if value is True else f' {_attribute(key)}="{escape(str(value))}"'
    return Html(f"<{name}{written}>{''.join(map(esc, content))}</{name}>")


@functools.cache
def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def join(content: Iterable[Content]) -> Html:
    """Return the pieces, one after the other."""
    return Html("".join(map(esc, content)))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Content]], *, class_: str | None = None) -> Html:
    """Return a table that scrolls on its own. The first column heads the rows; columns of numbers are right-aligned."""
    lines = list(rows)
    numeric = [any(map(_is_figure, column)) and all(map(_fits_figures, column)) for column in zip(*lines, strict=True)]
    classes = ["number" if one else None for one in (numeric or [False] * len(heads))]
    head = join(tag("th", name, scope="col", class_=side) for name, side in zip(heads, classes, strict=True))
    body = join(_line(line, classes) for line in lines)
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body), class_=class_)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _line(line: Sequence[Content], classes: Sequence[str | None]) -> Html:
    cells = [tag("td", content, class_=side) for content, side in zip(line[1:], classes[1:], strict=True)]
    return tag("tr", tag("th", line[0], scope="row", class_=classes[0]), *cells)


_FIGURE = re.compile(r"[±$-]? ?[\d,]+(\.\d+)?(e-?\d+)?( ?%| m?s)?")


def _is_figure(content: Content) -> bool:
    return isinstance(content, int | float) or (isinstance(content, str) and bool(_FIGURE.fullmatch(content)))


def _fits_figures(content: Content) -> bool:
    return content is None or _is_figure(content)


def section(anchor: str, title: str, *content: Content) -> Html:
    """Return a section with its heading."""
    head = tag("h2", title, id=f"{anchor}-title")
    return tag("section", head, *content, id=anchor, aria_labelledby=f"{anchor}-title")


def tile(name: str, value: str, more: str = "", *, lead: bool = False) -> Html:
    """Return one number of a summary: its name, its value, and a note."""
    content = [tag("div", name, class_="name"), tag("div", value, class_="value"), tag("div", more, class_="more")]
    return tag("div", *content, class_="tile lead" if lead else "tile")
