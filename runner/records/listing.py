"""List records quickly: only the few fields that a list shows are read of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from runner.errors import RecordError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.records.folder import RunFolder

T = TypeVar("T")


class _Rows(msgspec.Struct, frozen=True):
    rows: int | None = None


class _Model(msgspec.Struct, frozen=True):
    requested: str | None = None


class _Mean(msgspec.Struct):
    mean: float | None = None


class _Manifest(msgspec.Struct):
    status: str | None = None
    data: _Rows = _Rows()
    model: _Model = _Model()
    tags: list[str] = []
    started_at: str | None = None


class _Summary(msgspec.Struct):
    model: str
    rows: int = 0
    ok: int = 0
    scores: dict[str, _Mean] = {}


class Glance(msgspec.Struct, frozen=True):
    """Hold what a list shows of a run.

    Attributes:
        status: as in the manifest, or ``unreadable``.
        model: the model; the one that was asked for if there is no summary yet.
        rows, ok: as in the summary; None: there is none.
        scores: the mean of each score.
        tags: given by ``--tag``.
        started_at: in UTC, ISO 8601.
    """

    status: str | None
    model: str | None = None
    rows: int | None = None
    ok: int | None = None
    scores: dict[str, float | None] = {}
    tags: list[str] = []
    started_at: str | None = None


_manifest = msgspec.json.Decoder(_Manifest)
_summary = msgspec.json.Decoder(_Summary)


def glance(run: RunFolder) -> Glance:
    """Read what a list shows of a run. Raises RecordError if its manifest or summary is broken."""
    manifest = _read(run.path / "manifest.json", _manifest)
    if manifest is None:
        raise RecordError(f"{run.path} is not a run folder: it has no manifest.json")
    summary = _read(run.path / "summary.json", _summary)
    if summary is None:
        return Glance(manifest.status, manifest.model.requested, manifest.data.rows, None, {}, manifest.tags, manifest.started_at)
    scores = {name: score.mean for name, score in summary.scores.items()}
    return Glance(manifest.status, summary.model, summary.rows, summary.ok, scores, manifest.tags, manifest.started_at)


def _read(file: Path, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Read a file; return None if it is not there."""
    try:
        return decoder.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise RecordError(f"{file} is broken: {error}") from None
