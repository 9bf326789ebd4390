"""Charts as inline SVG: points with intervals and lines through them, and bars. Each has a description in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.reports.markup import Content, Html, join, table, tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.reports.axes import Axis

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 52
SHAPES = 4
"""The number of markers (series differ by more than their colour), and of colours."""
COLOURS = 8


class Point(msgspec.Struct):
    """A point of a chart: `x` as its axis takes it, the interval around `y` (None: unknown), and its description in words."""

    x: Any
    y: float
    low: float | None
    high: float | None
    name: str


class Series(msgspec.Struct):
    """Points of one name; `line` joins them by a line, `number` chooses colour and marker."""

    name: str
    points: list[Point]
    number: int = 0
    line: bool = True


class Words(msgspec.Struct):
    """A chart without its picture: a heading, a sentence, names of the axes, and the numbers as a table."""

    title: str
    about: str
    x: str
    y: str
    heads: list[str]
    rows: list[list[Content]]


def plot(words: Words, x: Axis, y: Axis, series: Sequence[Series], *, front: Sequence[Point] = ()) -> Html:
    """Draw points with their intervals; `front`, from left to right, is joined by steps."""
    steps = _steps(front, x, y) if len(front) > 1 else ""
    body = join([*_grid(x, y, words), steps, *(_series(one, x, y) for one in series)])
    legend = _legend(series) if len(series) > 1 else ""
    return _figure(words, body, legend, x)


def bars(words: Words, x: Axis, y: Axis, heights: Sequence[tuple[float, float, int, str]], number: int = 0) -> Html:
    """Draw bars, each from one value of `x` to another, with its height and its description; `number` chooses the colour."""
    drawn = []
    for low, high, height, name in heights:
        left, right, top = _x(x, low), _x(x, high), _y(y, height)
        shape = tag("title", name)
        drawn.append(
            tag(
                "rect",
                shape,
                x=f"{left + 1:.1f}",
                y=f"{top:.1f}",
                width=f"{max(1, right - left - 2):.1f}",
                height=f"{_y(y, 0) - top:.1f}",
            )
        )
    return _figure(words, join([*_grid(x, y, words), tag("g", *drawn, class_=f"bars s{number % COLOURS}")]), "", x)


def _figure(words: Words, body: Html, legend: Html | str, x: Axis) -> Html:
    told = f"{words.about} The figures are in the table below."
    picture = tag(
        "svg", tag("title", words.title), tag("desc", told), body,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{words.title}. {told}",
    )  # fmt: skip
    key = _key(x)
    figures = tag("details", tag("summary", "Figures"), table(words.title, words.heads, words.rows))
    caption = tag("figcaption", tag("h3", words.title), tag("p", words.about))
    return tag("figure", caption, picture, legend, key, figures, class_="chart")


def _grid(x: Axis, y: Axis, words: Words) -> Iterator[Html]:
    for value, name in y.ticks:
        at = f"{_y(y, value):.1f}"
        yield tag("line", x1=str(LEFT), x2=str(WIDTH - RIGHT), y1=at, y2=at, class_="grid")
        yield tag("text", name, x=str(LEFT - 8), y=at, dy=".35em", class_="tick end")
    floor = HEIGHT - BOTTOM
    yield tag("line", x1=str(LEFT), x2=str(WIDTH - RIGHT), y1=str(floor), y2=str(floor), class_="axis")
    shortened = _short_names(x)
    for index, (value, name) in enumerate(x.ticks):
        at = f"{LEFT + (WIDTH - LEFT - RIGHT) * x.at(name) if x.names else _x(x, value):.1f}"
        yield tag("line", x1=at, x2=at, y1=str(floor), y2=str(floor + 5), class_="axis")
        yield tag("text", shortened[index] if shortened else name, x=at, y=str(floor + 19), class_="tick middle")
    yield tag("text", words.x, x=str((LEFT + WIDTH - RIGHT) / 2), y=str(HEIGHT - 8), class_="name middle")
    yield tag(
        "text", words.y, x="13", y=str((TOP + floor) / 2), class_="name middle", transform=f"rotate(-90 13 {(TOP + floor) / 2})"
    )


def _short_names(x: Axis) -> list[str] | None:
    """Return the labels of categories: their names if all fit, else A, B, C, which a list explains."""
    if not x.names:
        return None
    room = (WIDTH - LEFT - RIGHT) / len(x.names) / 7.5
    if all(len(name) <= room for name in x.names):
        return x.names
    return [_letter(index) if room >= 2 or index % 5 == 0 else "" for index in range(len(x.names))]  # noqa: PLR2004


def _key(x: Axis) -> Html | str:
    written = _short_names(x)
    if not x.names or written == x.names:
        return ""
    items = [tag("li", tag("b", _letter(index)), " ", name) for index, name in enumerate(x.names)]
    return tag("ul", *items, class_="key")


def _letter(index: int) -> str:
    return chr(65 + index) if index < 26 else f"{chr(64 + index // 26)}{chr(65 + index % 26)}"  # noqa: PLR2004 - A to Z


def _series(series: Series, x: Axis, y: Axis) -> Html:
    points = [(_x(x, point.x), _y(y, point.y), point) for point in series.points]
    line = ""
    if series.line and len(points) > 1:
        line = tag("polyline", points=" ".join(f"{left:.1f},{top:.1f}" for left, top, _ in points), class_="line")
    bars_ = [tag("path", d=_whisker(left, point, y), class_="whisker") for left, _, point in points if point.low is not None]
    dots = [tag("path", tag("title", point.name), d=_marker(series.number, left, top)) for left, top, point in points]
    return tag("g", line, *bars_, *dots, class_=f"series s{series.number % COLOURS}")


def _whisker(left: float, point: Point, y: Axis) -> str:
    assert point.low is not None
    assert point.high is not None
    top, bottom = _y(y, min(point.high, y.high)), _y(y, max(point.low, y.low))
    return f"M{left:.1f} {top:.1f}V{bottom:.1f}M{left - 4:.1f} {top:.1f}h8M{left - 4:.1f} {bottom:.1f}h8"


def _marker(number: int, left: float, top: float, size: float = 5) -> str:
    """Return the path of a circle, square, triangle or diamond around a place."""
    match (number + number // COLOURS) % SHAPES:
        case 0:
            return f"M{left - size:.1f} {top:.1f}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z"
        case 1:
            return f"M{left - 4.5:.1f} {top - 4.5:.1f}h9v9h-9z"
        case 2:
            return f"M{left:.1f} {top - 6:.1f}l5.5 10h-11z"
        case _:
            return f"M{left:.1f} {top - 6:.1f}l6 6l-6 6l-6 -6z"


def _steps(front: Sequence[Point], x: Axis, y: Axis) -> Html:
    first, *rest = front
    path = f"M{_x(x, first.x):.1f} {_y(y, first.y):.1f}" + "".join(f"H{_x(x, one.x):.1f}V{_y(y, one.y):.1f}" for one in rest)
    return tag("path", d=path, class_="front")


def _legend(series: Sequence[Series]) -> Html:
    return tag("ul", *(tag("li", _sign(one), one.name) for one in series), class_="legend")


def _sign(series: Series) -> Html:
    marker = tag("path", d=_marker(series.number, 8, 8))
    return tag("svg", marker, viewBox="0 0 16 16", class_=f"series s{series.number % COLOURS}", aria_hidden="true")


def _x(axis: Axis, value: Any) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * axis.at(value)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * axis.at(value)
