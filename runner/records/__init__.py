"""The record of a run on disk: one folder, written and read by the same code. A sweep's holds one for each of its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.system.first_use import on_first_use

if TYPE_CHECKING:
    from runner.records.files import FORMAT
    from runner.records.folder import RunFolder, find_run, list_runs
    from runner.records.summary import Summary
    from runner.records.sweep import SweepFolder, find_record, list_records, list_sweeps, open_record

_HOMES = {
    "find_record": "sweep",
    "find_run": "folder",
    "FORMAT": "files",
    "list_records": "sweep",
    "list_runs": "folder",
    "list_sweeps": "sweep",
    "open_record": "sweep",
    "RunFolder": "folder",
    "Summary": "summary",
    "SweepFolder": "sweep",
}

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

__getattr__ = on_first_use(__name__, _HOMES)
