"""The content of a page: the parts of a run (one) or of a sweep (one per cell), read from their folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from runner.analysis.load import Run, entrant
from runner.analysis.ranking import Standing, rank
from runner.errors import RecordError
from runner.records import RunFolder, Summary, SweepFolder, open_record
from runner.reports.facts import CHARACTERS, SAMPLES, Facts
from runner.reports.text import brief, redacted
from runner.secrets import redact

if TYPE_CHECKING:
    from pathlib import Path


class Part(msgspec.Struct):
    """One run on the page: the run itself, or a cell of a sweep.

    Attributes:
        number: from 1, in the order of the sweep's manifest.
        id: of the cell, in the sweep's manifest.
        values: what the sweep set for this cell, by dotted key.
        status: as the manifest has it: ``pending`` cells have no run yet.
        summary: None while there is none.
        manifest: of the run; empty without one.
        overrides: the command line of the run.
        ids: the rows in the order of the data.
        run: its record; None without one.
        standing: where it stands among the cells; set by `gather`.
    """

    number: int
    id: str
    values: dict[str, Any]
    status: str
    problem: str | None
    folder: str | None
    summary: Summary | None
    manifest: dict[str, Any]
    overrides: list[str]
    ids: list[str]
    facts: Facts
    run: Run | None = None
    standing: Standing = Standing()

    @property
    def label(self) -> str:
        """Describe the cell in a few words."""
        return ", ".join(f"{key.rsplit('.', 1)[-1]}={brief(value, 40)}" for key, value in self.values.items()) or "the run"

    @property
    def config(self) -> dict[str, Any]:
        """Return the run's config, as plain data."""
        found = self.manifest.get("config")
        return found if isinstance(found, dict) else {}


class Subject(msgspec.Struct):
    """The subject of the page. Everything in it is cleaned of secrets, except the samples that `Facts` hold.

    Attributes:
        keys: the varied keys, in order; none for a run.
        primary: the name of the score that counts, or None.
        direction: ``maximize`` if higher values of it are better.
    """

    kind: Literal["run", "sweep"]
    name: str
    folder: str
    status: str
    started_at: str | None
    ended_at: str | None
    keys: list[str]
    primary: str | None
    parts: list[Part]
    direction: Literal["maximize", "minimize"] = "maximize"

    def lower_is_better(self, name: str) -> bool:
        """Return whether lower values of this score are better."""
        return name == self.primary and self.direction == "minimize"


def gather(path: Path) -> Subject:
    """Read a run folder or a sweep folder.

    Raises:
        RecordError: it is neither, or broken.
    """
    folder = open_record(path)
    manifest = folder.manifest()
    if isinstance(folder, SweepFolder):
        return _sweep(folder.path, redacted(manifest))
    return _run(_part(folder, _Cleaner()))


def alone(part: Part) -> Subject:
    """Return a cell of a sweep as the run that it is. Its samples are read again if the sweep's page has no room for all."""
    assert part.run is not None
    if part.facts.total > len(part.facts.shown):
        return gather(part.run.folder)
    return _run(msgspec.structs.replace(part, number=1, id="", values={}, standing=Standing()))


def _run(part: Part) -> Subject:
    assert part.run is not None
    manifest = part.run.manifest
    started, ended = manifest.get("started_at"), manifest.get("ended_at")
    primary = next(iter(part.summary.scores if part.summary else part.facts.scores), None)
    name = str(manifest.get("name") or part.run.folder.parent.name)
    return Subject("run", name, str(part.run.folder), part.status, started, ended, [], primary, [part])


def _sweep(path: Path, manifest: dict[str, Any]) -> Subject:
    cells = manifest.get("cells")
    if not isinstance(cells, dict):
        raise RecordError(f"{path / 'manifest.json'} is broken: a sweep has cells")
    share, clean = max(1, len(cells)), _Cleaner()
    room = _Room(max(1, SAMPLES // share), max(1, CHARACTERS // share))
    parts = [_cell(path, clean, (number, id_), cell, room) for number, (id_, cell) in enumerate(cells.items(), 1)]
    scores = [name for part in parts if part.summary for name in part.summary.scores]
    primary = manifest.get("primary") or next(iter(scores), None)
    direction: Literal["maximize", "minimize"] = "minimize" if manifest.get("direction") == "minimize" else "maximize"
    entrants = [entrant(part.id, part.run, primary) for part in parts]
    standings = rank(entrants, primary or "", lower_is_better=direction == "minimize")
    for part in parts:
        part.standing = standings[part.id]
    return Subject(
        kind="sweep",
        name=str(manifest.get("name") or path.parent.name),
        folder=str(path),
        status=str(manifest.get("status")),
        started_at=manifest.get("started_at"),
        ended_at=manifest.get("ended_at"),
        keys=[str(key) for key in manifest.get("keys") or ()],
        primary=primary,
        parts=parts,
        direction=direction,
    )


def _cell(path: Path, clean: _Cleaner, name: tuple[int, str], cell: dict[str, Any], room: _Room) -> Part:
    """Read a cell. If its folder cannot be read, the page says so and shows the other cells."""
    values, status, problem = cell.get("values") or {}, str(cell.get("status")), cell.get("problem")
    run = cell.get("run")
    if run:
        try:
            return _part(RunFolder.open(_inside(path, str(run))), clean, name, values, status, problem, room)
        except RecordError as error:
            problem = problem or str(redacted(str(error)))
    return Part(*name, values, status, problem, None, None, {}, [], [], Facts([], most=0))


def _inside(path: Path, run: str) -> Path:
    """Return the cell's folder. Raises RecordError if the manifest points outside the sweep's own."""
    folder = (path / run).resolve()
    if not folder.is_relative_to(path.resolve()):
        raise RecordError(f"{path / 'manifest.json'} is broken: {run} is not a folder of this sweep")
    return folder


class _Room(NamedTuple):
    """How much of a run the page shows."""

    samples: int = SAMPLES
    characters: int = CHARACTERS


def _part(
    record: RunFolder,
    clean: _Cleaner,
    name: tuple[int, str] = (1, ""),
    values: dict[str, Any] | None = None,
    status: str | None = None,
    problem: str | None = None,
    room: _Room = _Room(),  # noqa: B008 - it is immutable
) -> Part:
    run = Run(record)
    manifest, summary = run.manifest, run.summary
    ids = (manifest.get("data") or {}).get("ids") or []
    cleaned = clean({key: value for key, value in manifest.items() if key != "data"})
    plain = summary and msgspec.convert(redacted(summary.to_dict()), Summary)
    return Part(
        number=name[0],
        id=name[1],
        values=values or {},
        status=status or (summary.status if summary else str(manifest.get("status"))),
        problem=problem or (plain.problem if plain else None),
        folder=str(record.path),
        summary=plain,
        manifest=cleaned,
        overrides=[str(override) for override in redacted(_overrides(record))],
        ids=ids,
        facts=Facts(record.samples(), most=room.samples, characters=room.characters),
        run=run,
    )


class _Cleaner:
    """Clean manifests of secrets. What the cells of a sweep share, most of their configs, is cleaned once."""

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}

    def __call__(self, value: Any, depth: int = 2) -> Any:
        """Return JSON data without secrets. Objects above `depth` levels are made anew; others may be those of earlier calls."""
        if isinstance(value, dict) and depth:
            return {redact(key): self(one, depth - 1) for key, one in value.items()}
        if not isinstance(value, dict | list):
            return redacted(value)
        key = msgspec.json.encode(value)
        if key not in self._known:
            self._known[key] = redacted(value)
        return self._known[key]


def _overrides(record: RunFolder) -> list[str]:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = yaml.load((record.path / "overrides.yaml").read_text("utf-8"), loader)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []  # a page without them still says the rest
    return found if isinstance(found, list) else []
