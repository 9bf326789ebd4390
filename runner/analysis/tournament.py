"""Strengths of runs whose answers were compared in pairs (``scoring.kind: pairwise``), over all of their comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.analysis.load import Run
from runner.errors import RecordError
from runner.records import find_run
from runner.stats.bradley_terry import Game, Table, bradley_terry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PLAYERS = 3
"""Fewer players need no table: the score of their comparison says it all."""


def strengths(runs: Sequence[Run], runs_dir: Path, level: float = 0.95) -> dict[str, Table]:
    """Return the table of Bradley and Terry for each pairwise score of the runs, over all runs that were compared in it.

    A game is one answer against another to the same row. All games of a row (or cluster of rows) are one unit.

    Args:
        runs: runs, some of which were scored against another run (``scoring.against``).
        runs_dir: where those are.
        level: confidence level of the intervals.

    Returns:
        Nothing for scores in which fewer than `PLAYERS` runs were compared, or whose other answers come from a column.
    """
    games: dict[str, list[Game]] = {}
    for run in runs:
        for score, other in _opponents(run, runs_dir):
            games.setdefault(score, []).extend(_games(run, score, other))
    return {
        score: bradley_terry(played, level)
        for score, played in games.items()
        if len({player for game in played for player in (game.one, game.other)}) >= PLAYERS
    }


def _opponents(run: Run, runs_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield each pairwise score of a run, and the name of the run that it was compared with."""
    scoring = run.config.get("scoring") or {}
    scorers: Mapping[str, Any] = scoring.get("scorers") or {} if scoring.get("kind") == "several" else {"pairwise": scoring}
    for score, settings in scorers.items():
        if isinstance(settings, dict) and settings.get("kind") == "pairwise" and settings.get("against"):
            try:
                yield score, Run(find_run(str(settings["against"]), runs_dir)).name
            except RecordError:  # the other run is gone; its name is what the config says
                yield score, str(settings["against"])


def _games(run: Run, score: str, other: str) -> Iterator[Game]:
    for mark in run.marks():
        result = mark.scores.get(score)
        if result is not None and 0 <= result <= 1:
            unit = ("row", mark.id) if mark.cluster is None else ("cluster", mark.cluster)
            yield Game(run.name, other, result, unit)
