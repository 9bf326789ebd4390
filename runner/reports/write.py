"""Make the page of a folder, and write it whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RecordError
from runner.records import find_record
from runner.reports.document import document
from runner.reports.gather import Subject, alone, gather
from runner.reports.markup import join
from runner.reports.rows import Rows
from runner.reports.sections import sections
from runner.system import files

if TYPE_CHECKING:
    from typing import Any

    from runner.reports.gather import Part
    from runner.types import Sample

PAGE = "report.html"
"""The name of the page, in the folder that it is of."""


def report(run: str | Path, out: str | Path | None = None, *, runs_dir: str | Path = "runs") -> Path:
    """Write the report of a run or a sweep: one HTML file with its summary, plots, errors and samples, which needs no network.

    Args:
        run: the folder of a run or a sweep, or its name as `load` takes it (``latest``, an experiment, a prefix).
        out: the file to write; None: ``report.html`` in the folder.
        runs_dir: where runs are.

    Returns:
        The file that was written, as an absolute path.

    Raises:
        RecordError: there is no such record, or the file cannot be written.
    """
    folder = find_record(str(run), Path(runs_dir)).path
    return _write((Path(out) if out else folder / PAGE).absolute(), render(folder))


def report_cells(sweep: Path) -> None:
    """Write the page of a sweep, and those of its cells that have none yet. The record is read once for all of them.

    Args:
        sweep: the folder of the sweep.

    Raises:
        RecordError: it is not one, or a file cannot be written.
    """
    subject = gather(sweep)
    _write(sweep / PAGE, _page(subject))
    for part in subject.parts:
        if part.folder is not None and not (page := Path(part.folder) / PAGE).exists():
            _write(page, _page(alone(part)), sync=False)


def _write(page: Path, content: str, *, sync: bool = True) -> Path:
    try:
        files.write(page, content, sync=sync)
    except OSError as error:
        raise RecordError(f"{page} cannot be written: {error.strerror}") from None
    return page


def render(folder: Path) -> str:
    """Return the page as text. Raises RecordError if the folder is not a record."""
    return _page(gather(folder))


def _page(subject: Subject) -> str:
    return document(f"{subject.name}: {subject.status}", join(sections(subject)), _data(subject))


def _data(subject: Subject) -> dict[str, Any]:
    """Return the input of the sample browser."""
    rows = Rows()
    for index, part in enumerate(subject.parts):
        for sample in _in_data_order(part):
            rows.add(sample, index, part.run.folder if part.run is not None else None)
    scores = list(dict.fromkeys(name for part in subject.parts for name in part.facts.scores))
    parts = [f"#{part.number} {part.label}" for part in subject.parts] if subject.kind == "sweep" else []
    return {
        "format": 1,
        "scores": scores,
        "parts": parts,
        "messages": rows.messages,
        "images": rows.images,
        "samples": rows.samples,
    }


def _in_data_order(part: Part) -> list[Sample]:
    place = {row: index for index, row in enumerate(part.ids)}
    return sorted(part.facts.shown, key=lambda sample: (place.get(sample.id, len(place)), sample.repeat))
