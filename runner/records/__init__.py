"""The record of a run on disk: one folder, written and read by the same code. A sweep's holds one for each of its cells."""

from runner.records.files import FORMAT
from runner.records.folder import RunFolder, find_run, list_runs
from runner.records.summary import Summary
from runner.records.sweep import SweepFolder, find_record, list_records, list_sweeps, open_record

__all__ = [
    "FORMAT",
    "RunFolder",
    "Summary",
    "SweepFolder",
    "find_record",
    "find_run",
    "list_records",
    "list_runs",
    "list_sweeps",
    "open_record",
]
