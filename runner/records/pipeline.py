"""The pipeline folder: a manifest of stages, each with a hash of its inputs and its result."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from runner.errors import RecordError
from runner.records.files import FORMATS, Folder, pretty

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PipelineStatus = Literal["running", "complete", "incomplete", "failed", "interrupted"]

_NAME = re.compile(r"^pipeline-\d{8}-\d{6}-[0-9a-f]{6}(-\d+)?$")


class StageRecord(msgspec.Struct, kw_only=True):
    """One stage. `key` is a hash of all its inputs, so a stage that is done under the same key is not repeated.

    Attributes:
        status: its state.
        key: SHA-256, in hex.
        started_at: its last start, UTC, ISO 8601.
        wall_s: seconds that it took, over all sittings.
        result: its result, as plain data.
        problem: why it failed, or None.
    """

    key: str
    status: Literal["running", "done", "failed", "interrupted"] = "running"
    started_at: str | None = None
    wall_s: float = 0.0
    result: dict[str, Any] = {}
    problem: str | None = None


class PipelineManifest(msgspec.Struct, kw_only=True):
    """The stages of a pipeline, and its progress.

    `digest` identifies its config; `source` is the run that it learns from, if any.
    """

    name: str
    digest: str
    status: PipelineStatus
    started_at: str
    cwd: str
    ended_at: str | None = None
    source: str | None = None
    overrides: list[str] = []
    stages: dict[str, StageRecord] = {}
    environment: dict[str, Any] = {}
    format: int = FORMATS["pipeline"]
    kind: str = "pipeline"


class PipelineFolder(Folder):
    """One pipeline on disk, ``runs/<experiment>/pipeline-<YYYYMMDD-HHMMSS>-<hash6>/``.

    Files: ``config.yaml`` (resolved), ``manifest.json``, ``run.log``. Its runs are beside it, like any run of the experiment.
    """

    kind: ClassVar[str] = "pipeline"

    @classmethod
    def create(cls, runs_dir: Path, manifest: PipelineManifest, *, config: str) -> PipelineFolder:
        """Make the folder. Raises RecordError."""
        files: dict[str, str | bytes] = {"config.yaml": config, "manifest.json": pretty(msgspec.to_builtins(manifest))}
        return cls._make(runs_dir.absolute() / manifest.name, manifest.digest[:6], files, prefix="pipeline-")

    @classmethod
    def paths_of(cls, runs_dir: Path, name: str, digest: str = "") -> Iterator[Path]:
        """Yield the folders of an experiment's pipelines, the newest first; with `digest`, only those that are named by it."""
        for path in sorted((runs_dir.absolute() / name).glob(f"pipeline-*-{digest[:6]}*/manifest.json"), reverse=True):
            if _NAME.match(path.parent.name):
                yield path.parent

    def read(self) -> PipelineManifest:
        """Read the manifest. Raises RecordError if it is broken."""
        try:
            return msgspec.convert(self.manifest(), PipelineManifest)
        except msgspec.ValidationError as error:
            raise RecordError(f"{self.path / 'manifest.json'}: {error}") from None

    def write(self, manifest: PipelineManifest) -> None:
        """Replace the manifest. Raises RecordError."""
        self.replace("manifest.json", pretty(msgspec.to_builtins(manifest)))
