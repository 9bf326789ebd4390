"""Calibrations and labels of a run: the file that its config names is checked before anything is asked; labels come later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from runner.analysis.calibration import NAMES, corrections, read_calibration, remarks_on, settings_of
from runner.analysis.labels import settings_in
from runner.analysis.load import Run
from runner.config.load import dump
from runner.config.schema.scored import Scored
from runner.config.schema.scoring import SeveralScoring
from runner.errors import ConfigError
from runner.experiment.files import rooted
from runner.records import RunFolder
from runner.records.labels import add_labels
from runner.reports import report
from runner.system.paths import expanded
from runner.wording.differences import differences
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.analysis.calibration import Calibration
    from runner.config.schema import RunConfig
    from runner.records.labels import Label


def calibration_of(config: RunConfig) -> Calibration | None:
    """Read the file ``scoring.calibration``; None without one.

    Raises:
        ConfigError: it cannot be read, is of a score that this config does not have, or the run
            stops early, by a test that knows the raw scores alone.
    """
    scoring = config.scoring
    if not isinstance(scoring, Scored) or scoring.calibration is None:
        return None
    found = read_calibration(expanded(scoring.calibration))
    own = scoring.scorers.get(found.score.partition(".")[0]) if isinstance(scoring, SeveralScoring) else scoring
    if own is None:
        names = list(scoring.scorers) if isinstance(scoring, SeveralScoring) else []
        raise ConfigError(
            f"scoring.calibration: {scoring.calibration} is of the score '{found.score}'{suggest(found.score, names) or ';'} "
            f"this config has {', '.join(names)}"
        )
    if config.expect.stop_early:
        raise ConfigError("expect.stop_early: its test knows raw scores alone; leave it out, or scoring.calibration")
    return found


def calibration_remarks(config: RunConfig) -> list[str]:
    """Return how the settings of the judge differ from the calibrated ones. Raises ConfigError as `calibration_of`."""
    found = calibration_of(config)
    if found is None:
        return []
    own = settings_of(settings_in(dump(config)["scoring"], found.score))
    changes = differences(found.judge.get("scoring", {}), own, names=NAMES)
    return [f"scoring.calibration: the judge is not the one that was calibrated: {change}" for change in changes]


def label_run(folder: Path, labels: Sequence[Label]) -> list[Label]:
    """Put labels beside a run's record, and write its summary and its report again, with the scores that they correct.

    Returns:
        All labels of the run.

    Raises:
        RecordError: another process uses the run, or it cannot be written.
        ConfigError: the calibration that the run names cannot be read.
    """
    from runner.config.compose import read_run

    record = RunFolder.open(folder)
    record.lock()
    try:
        found = add_labels(record, labels)
        summary = record.summary()
        if summary is not None:
            config = rooted(read_run(record.config_file), record.manifest())
            calibration = calibration_of(config)
            scores = corrections(record, summary.scores, calibration, found)
            remarks = remarks_on(calibration, Run(record), scores)
            record.write_summary(msgspec.structs.replace(summary, corrected=scores, calibration=remarks))
    finally:
        record.close()
    report(folder)
    return found
