"""Strengths from pairwise comparisons: the model of Bradley & Terry (1952), with intervals, where it has a solution."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runner.stats.distributions import t_critical
from runner.stats.intervals import LEVEL, Interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

_STEPS, _CLOSE = 200, 1e-12
_Matrix = list[list[float]]


class Game(NamedTuple):
    """One comparison: `result` is 1 if `one` won, 0 if `other` did, 0.5 for a tie. Games of one unit (a row) belong together."""

    one: str
    other: str
    result: float
    unit: Hashable = None


class Strength(msgspec.Struct, frozen=True):
    """Where a player stands among those of its group.

    Attributes:
        player: its name.
        log_odds: its strength: the log odds that it wins against an average player of the group. Their mean is 0.
        interval: of `log_odds`; None if there are too few units.
        games, points: its games within the group, and what it has won of them; ties are half a point.
    """

    player: str
    log_odds: float
    interval: Interval | None
    games: int
    points: float


class Table(msgspec.Struct, frozen=True):
    """The result of comparisons.

    Attributes:
        groups: players whose strengths can be compared with each other, strongest first. The strengths of two groups cannot.
        remarks: which players have no number, and which groups cannot be compared, and why.
    """

    groups: list[list[Strength]]
    remarks: list[str]


def bradley_terry(games: Sequence[Game], level: float = LEVEL) -> Table:
    """Estimate strengths by maximum likelihood, with a tie as half a win for either side.

    The maximum exists only where every player can be reached from every other by a chain of wins (Ford 1957, "Solution of a
    ranking problem from binary comparisons"). So it is taken within each such group; a player who won or lost every game, and
    groups that never met, are said in `remarks`, and not given the number that a regulariser would make.

    The maximum is found by Newton's method. Intervals are by Student's t with standard errors that are robust to the units (the
    sandwich of White 1982 with the factor G / (G - 1) for G units), since games of one row are not independent.

    Args:
        games: the comparisons; a game whose unit is None is a unit by itself.
        level: confidence level of the intervals.
    """
    beats: dict[str, set[str]] = {player: set() for game in games for player in (game.one, game.other)}
    for game in games:
        if game.result > 0:
            beats[game.one].add(game.other)
        if game.result < 1:
            beats[game.other].add(game.one)
    groups = _strongly_connected(beats)
    tables = [_estimated(group, games, level) for group in groups if len(group) > 1]
    return Table(tables, list(_remarks(groups, beats, games)))


def _reached(start: str, edges: Mapping[str, Iterable[str]]) -> set[str]:
    seen, open_ = {start}, [start]
    while open_:
        new = set(edges[open_.pop()]) - seen
        seen |= new
        open_ += new
    return seen


def _strongly_connected(beats: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups in which every player reaches every other by a chain of wins, in order of their first player."""
    reached = {player: _reached(player, beats) for player in beats}
    groups: list[list[str]] = []
    for player in beats:
        if not any(player in group for group in groups):
            groups.append([other for other in reached[player] if player in reached[other]])
    order = list(beats)
    return [sorted(group, key=order.index) for group in groups]


def _remarks(groups: Sequence[Sequence[str]], beats: Mapping[str, set[str]], games: Sequence[Game]) -> Iterable[str]:
    lost_to: dict[str, set[str]] = {player: {other for other in beats if player in beats[other]} for player in beats}
    met = {player: beats[player] | lost_to[player] for player in beats}
    number = {player: sum(player in (game.one, game.other) for game in games) for player in beats}
    for group in groups:
        (player, *others) = group
        if others:
            continue
        if not lost_to[player]:
            yield f"{player} won all of its games ({number[player]:,}), so its strength has no upper end; it has no number"
        elif not beats[player]:
            yield f"{player} lost all of its games ({number[player]:,}), so its strength has no lower end; it has no number"
        else:
            yield f"{player} won all games against some players and lost all against the others; it has no number"
    unseen = set(beats)
    parts = []
    while unseen:
        part = _reached(next(one for one in beats if one in unseen), met)
        parts.append(", ".join(one for one in beats if one in part))
        unseen -= part
    if len(parts) > 1:
        yield f"these groups never met, so they cannot be compared: {'; '.join(parts)}"
    for one in groups:
        for other in groups:
            if one is not other and len(one) > 1 and len(other) > 1 and any(beats[player] & set(other) for player in one):
                yield f"{', '.join(one)} won all games against {', '.join(other)}, so the two groups cannot be compared"


def _estimated(group: Sequence[str], games: Sequence[Game], level: float) -> list[Strength]:
    """Return the strengths within one group, strongest first."""
    inside = [game for game in games if game.one in group and game.other in group]
    place = {player: index for index, player in enumerate(group)}
    strengths = _maximum(inside, place)
    errors, units = _errors(inside, place, strengths)
    found = []
    for player, index in place.items():
        own = [game for game in inside if player in (game.one, game.other)]
        points = math.fsum(game.result if game.one == player else 1 - game.result for game in own)
        margin = t_critical(level, units - 1) * errors[index] if units > 1 else None
        at = strengths[index]
        found.append(Strength(player, at, None if margin is None else (at - margin, at + margin), len(own), points))
    return sorted(found, key=lambda one: -one.log_odds)


def _maximum(games: Sequence[Game], place: Mapping[str, int]) -> list[float]:
    """Return the strengths, with mean 0, by Newton's method with steps that are halved until the likelihood rises."""
    size = len(place)
    at = [0.0] * size
    for _ in range(_STEPS):
        slope, curve = _derivatives(games, place, at)
        step = _solved(_with_mean(curve), slope)
        before = _likelihood(games, place, at)
        scale = 1.0
        while _likelihood(games, place, [one + scale * change for one, change in zip(at, step, strict=True)]) < before - 1e-9:
            scale /= 2
        at = [one + scale * change for one, change in zip(at, step, strict=True)]
        if max(map(abs, step)) < _CLOSE:
            break
    middle = math.fsum(at) / size
    return [one - middle for one in at]


def _chance(game: Game, place: Mapping[str, int], at: Sequence[float]) -> float:
    """Return the chance that `one` wins."""
    return 1 / (1 + math.exp(at[place[game.other]] - at[place[game.one]]))


def _likelihood(games: Sequence[Game], place: Mapping[str, int], at: Sequence[float]) -> float:
    chances = [(game.result, _chance(game, place, at)) for game in games]
    return math.fsum(result * math.log(p) + (1 - result) * math.log1p(-p) for result, p in chances)


def _derivatives(games: Sequence[Game], place: Mapping[str, int], at: Sequence[float]) -> tuple[list[float], _Matrix]:
    """Return the slope of the log likelihood, and its curvature with the sign changed."""
    size = len(place)
    slope, curve = [0.0] * size, [[0.0] * size for _ in range(size)]
    for game in games:
        i, j, p = place[game.one], place[game.other], _chance(game, place, at)
        slope[i] += game.result - p
        slope[j] -= game.result - p
        for row, column, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            curve[row][column] += sign * p * (1 - p)
    return slope, curve


def _with_mean(curve: _Matrix) -> _Matrix:
    """Return the curvature plus that of the mean strength, which games leave open: it can be inverted then."""
    return [[value + 1 / len(curve) for value in row] for row in curve]


def _errors(games: Sequence[Game], place: Mapping[str, int], at: Sequence[float]) -> tuple[list[float], int]:
    """Return the standard error of each strength, and the number of units."""
    size = len(place)
    _, curve = _derivatives(games, place, at)
    inverse = [_solved(_with_mean(curve), [float(row == column) for row in range(size)]) for column in range(size)]
    slopes: dict[Hashable, list[float]] = {}
    for number, game in enumerate(games):
        unit = slopes.setdefault(("game", number) if game.unit is None else ("unit", game.unit), [0.0] * size)
        rest = game.result - _chance(game, place, at)
        unit[place[game.one]] += rest
        unit[place[game.other]] -= rest
    units = len(slopes)
    if units < 2:  # noqa: PLR2004
        return [0.0] * size, units
    spread = [
        math.fsum(math.fsum(a * b for a, b in zip(row, slope, strict=True)) ** 2 for slope in slopes.values()) for row in inverse
    ]
    return [math.sqrt(units / (units - 1) * one) for one in spread], units


def _solved(matrix: _Matrix, right: Sequence[float]) -> list[float]:
    """Return x with `matrix` x = `right`, by Gauss's elimination with pivots."""
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for row in range(column + 1, size):
            factor = rows[row][column] / rows[column][column]
            rows[row] = [one - factor * other for one, other in zip(rows[row], rows[column], strict=True)]
    found = [0.0] * size
    for row in reversed(range(size)):
        known = math.fsum(rows[row][column] * found[column] for column in range(row + 1, size))
        found[row] = (rows[row][size] - known) / rows[row][row]
    return found
