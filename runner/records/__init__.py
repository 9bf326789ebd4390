"""The record of a run on disk: one folder, written and read by the same code."""

from runner.records.folder import FORMAT, RunFolder, find_run, list_runs
from runner.records.manifest import Summary, environment

__all__ = ["FORMAT", "RunFolder", "Summary", "environment", "find_run", "list_runs"]
