"""The gate of a pipeline: whether a gain is large enough for the alias to move, whatever the rows that were left out hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.stats.stats import Paired


def plain(found: Paired) -> dict[str, Any]:
    """Return a difference as plain data: its mean, 95 % interval, p-value and number of rows."""
    return {"mean": found.mean, "ci": found.ci, "p": found.p, "n": found.n}


def exceeds(difference: dict[str, Any], min_gain: float) -> bool:
    """Return whether the lower bound of a gain exceeds `min_gain`; one row gives no bound."""
    return difference["ci"] is not None and difference["ci"][0] > min_gain


def turned(compared: dict[str, Any], min_gain: float) -> bool:
    """Return whether what was left out of one run can open a closed gate, or close an open one."""
    known = exceeds(compared["difference"], min_gain)
    return any(exceeds(case, min_gain) != known for case in compared.get("bounds") or ())


def bound_of(difference: dict[str, Any]) -> str:
    """Write the lower bound of a difference."""
    return "unknown (one row gives no interval)" if difference["ci"] is None else f"{difference['ci'][0]:+.3f}"
