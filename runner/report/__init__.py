"""The report: a run or a sweep as one HTML file that needs no network."""

from runner.report.write import render, write_report

__all__ = ["render", "write_report"]
