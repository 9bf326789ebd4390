"""The sweep folder: a manifest of cells, the command line, a table, and one run folder per cell in ``cells/``."""

from __future__ import annotations

import contextlib
import re
import shutil
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from runner.errors import RecordError
from runner.records.files import FORMATS, Folder, pretty
from runner.records.folder import RUN_NAME, RunFolder, age, folders_named, named_folder, pick
from runner.records.summary import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

CELLS = "cells"
_NAME = re.compile(r"^sweep-\d{8}-\d{6}-[0-9a-f]{6}(-\d+)?$")


class CellRecord(msgspec.Struct, kw_only=True):
    """One cell in the manifest: its values by dotted key, its run folder (relative to the sweep's), and that run's status."""

    values: dict[str, Any]
    run: str | None = None
    status: Literal["pending"] | RunStatus = "pending"
    problem: str | None = None


class SweepManifest(msgspec.Struct, kw_only=True):
    """The cells of a sweep, and its progress.

    Attributes:
        digest: hash of the base config, the varied keys and the sweeper: a sweep with the same digest resumes in this folder.
        keys: the varied keys, dotted, in order.
        primary: the score that cells are ranked by; None if nothing is scored.
        problem: what stopped the last sitting; None if nothing did.
        tags: given by ``--tag``; the runs of all cells have them.
        cells: by the first 12 digits of the hash of their effective config.
    """

    format: int = FORMATS["sweep"]
    kind: str = "sweep"
    name: str
    status: RunStatus
    digest: str
    sweeper: str
    keys: list[str]
    primary: str | None
    direction: Literal["maximize", "minimize"]
    started_at: str
    ended_at: str | None = None
    problem: str | None = None
    cwd: str
    cells: dict[str, CellRecord] = {}
    tags: list[str] = []


class SweepFolder(Folder):
    """One sweep on disk, ``runs/<experiment>/sweep-<YYYYMMDD-HHMMSS>-<hash6>/``.

    Files: ``sweep.yaml`` (command line and base config), ``manifest.json``, ``table.csv``, ``table.parquet``, ``run.log``, and
    ``cells/``, with an ordinary run folder per cell.
    """

    kind: ClassVar[str] = "sweep"

    @classmethod
    def create(cls, runs_dir: Path, manifest: SweepManifest, *, asked: str) -> SweepFolder:
        """Make the folder, and point ``latest`` at it. Raises RecordError."""
        files: dict[str, str | bytes] = {"sweep.yaml": asked, "manifest.json": pretty(msgspec.to_builtins(manifest))}
        made = cls._make(runs_dir.absolute() / manifest.name, manifest.digest[:6], files, prefix="sweep-")
        made.point_latest()
        return made

    @classmethod
    def find(cls, runs_dir: Path, name: str, digest: str) -> SweepFolder | None:
        """Return the newest sweep of this experiment with this digest; None if there is none."""
        for path in sorted((runs_dir.absolute() / name).glob(f"sweep-*-{digest[:6]}*/manifest.json"), reverse=True):
            folder = cls.open(path.parent)  # without a manifest: its process was killed while making it
            if folder.read().digest == digest:
                return folder
        return None

    def read(self) -> SweepManifest:
        """Read the manifest. Raises RecordError if it is broken."""
        try:
            return msgspec.convert(self.manifest(), SweepManifest)
        except msgspec.ValidationError as error:
            raise RecordError(f"{self.path / 'manifest.json'}: {error}") from None

    def write(self, manifest: SweepManifest) -> None:
        """Replace the manifest. Raises RecordError."""
        self.replace("manifest.json", pretty(msgspec.to_builtins(manifest)))

    def asked(self) -> dict[str, Any]:
        """Read ``sweep.yaml``. Raises RecordError."""
        import yaml

        try:
            found = yaml.safe_load((self.path / "sweep.yaml").read_text("utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RecordError(f"{self.path / 'sweep.yaml'} cannot be read: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("overrides"), list):
            raise RecordError(f"{self.path / 'sweep.yaml'} is broken: it has no list of overrides")
        return found

    def write_asked(self, asked: str) -> None:
        """Replace ``sweep.yaml``. Raises RecordError."""
        self.replace("sweep.yaml", asked)

    def write_table(self, name: str, content: str | bytes) -> None:
        """Replace ``table.csv`` or ``table.parquet``. Raises RecordError."""
        self.replace(name, content)

    def name_runs(self, cells: Mapping[str, CellRecord]) -> None:
        """Name the runs that a killed process had not named yet, as their manifests say; delete those that have sent nothing."""
        named = {self.path / cell.run for cell in cells.values() if cell.run is not None}
        for folder in (self.path / CELLS).glob("*"):
            if not RUN_NAME.match(folder.name) or folder in named:
                continue
            if not any((folder / name).exists() for name in ("samples.jsonl", "spending.jsonl")):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with contextlib.suppress(RecordError):  # of an earlier version, or by hand: it stays as it is
                cell = cells.get(str(RunFolder.open(folder).manifest().get("cell")))
                if cell is not None and cell.run is None:
                    cell.run, cell.status = f"{CELLS}/{folder.name}", "interrupted"

    def forget_lost(self, cells: Iterable[CellRecord]) -> None:
        """Make cells pending whose runs are lost, and open those whose end is: a power failure leaves files empty, or none."""
        for cell in cells:
            if cell.run is None:
                continue
            folder = self.path / cell.run
            if any(_is_lost(folder / name) for name in ("manifest.json", "config.yaml")):
                cell.run, cell.status = None, "pending"
            elif cell.status == "complete" and _is_lost(summary := folder / "summary.json"):
                summary.unlink(missing_ok=True)
                cell.status = "interrupted"

    def run_of(self, cell: CellRecord) -> RunFolder | None:
        """Return the run folder of a cell; None if it has none, or it cannot be read."""
        if cell.run is None:
            return None
        try:
            return RunFolder.open(self.path / cell.run)
        except RecordError:
            return None


def _is_lost(file: Path) -> bool:
    """Return whether a file has no content. One that cannot be read now may have some."""
    try:
        return not file.read_bytes().strip(b"\0\n ")
    except FileNotFoundError:
        return True
    except OSError:
        return False


def list_sweeps(runs_dir: Path) -> list[SweepFolder]:
    """Return every sweep below `runs_dir`, oldest first."""
    return [SweepFolder(path) for path in sorted(folders_named(runs_dir, _NAME), key=_sitting)]


def list_records(runs_dir: Path) -> list[RunFolder | SweepFolder]:
    """Return every run and every sweep below `runs_dir`, oldest first; a sweep counts from when it was last played."""
    dated: list[tuple[tuple[str, int], RunFolder | SweepFolder]]
    dated = [(age(path), RunFolder(path)) for path in folders_named(runs_dir, RUN_NAME)]
    dated += [(_sitting(path), SweepFolder(path)) for path in folders_named(runs_dir, _NAME)]
    return [record for _, record in sorted(dated, key=itemgetter(0))]


def find_record(text: str, runs_dir: Path) -> RunFolder | SweepFolder:
    """Find the run or the sweep that `text` names, as `find_run` does. Raises RecordError if there is none, or several."""
    there = named_folder(text, runs_dir)
    return open_record(there if there is not None else pick(text, runs_dir, _folders(list_records(runs_dir))).path)


def open_record(path: Path) -> RunFolder | SweepFolder:
    """Open the run or the sweep in the folder `path`. Raises RecordError if it is neither."""
    sweep = Folder(path).manifest().get("kind") == SweepFolder.kind
    return SweepFolder.open(path) if sweep else RunFolder.open(path)


def _folders(records: Sequence[Folder]) -> Sequence[Folder]:
    return records


def _sitting(path: Path) -> tuple[str, int]:
    """Return the sort key for the time a sweep was last played."""
    changed = (path / "manifest.json").stat()
    return datetime.fromtimestamp(changed.st_mtime).astimezone().strftime("%Y%m%d-%H%M%S"), changed.st_mtime_ns
