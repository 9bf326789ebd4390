"""The report: a run or a sweep as one HTML file that needs no network."""

from runner.reports.write import render, report

__all__ = ["render", "report"]
