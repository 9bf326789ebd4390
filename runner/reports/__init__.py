"""The report: a run or a sweep as one HTML file that needs no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.reports.write import render, report

_HOMES = {
    "render": "write",
    "report": "write",
}

__all__ = ["render", "report"]

__getattr__ = on_first_use(__name__, _HOMES)
