"""Read of a record what a run goes on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.batch.entries import status_of
from runner.errors import RecordError

if TYPE_CHECKING:
    from runner.records import RunFolder
    from runner.types import Sample


def recorded_overrides(record: RunFolder) -> list[str]:
    """Return the overrides that the run was begun with. Raises RecordError."""
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = yaml.load((record.path / "overrides.yaml").read_text("utf-8"), loader)  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError) as error:
        raise RecordError(f"{record.path / 'overrides.yaml'} cannot be read: {error}") from None
    return [str(override) for override in found or []]


def unscored(sample: Sample) -> Sample:
    """Give a sample whose scoring failed the status of its answer again, and return it."""
    if sample.error is not None and sample.error.code == "scoring":
        sample.status, sample.error = status_of(sample.finish_reason, empty=not sample.output), None
    return sample
