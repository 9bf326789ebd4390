"""Calibrations and labels of a run: the file that its config names is checked before anything is asked; labels come later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.config.load import dump
from runner.config.schema.scored import Scored
from runner.config.schema.scoring import SeveralScoring
from runner.errors import ConfigError
from runner.experiment.files import rooted
from runner.records import RunFolder
from runner.records.labels import add_labels, read_labels
from runner.system.paths import expanded
from runner.wording.differences import differences
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from runner.analysis.calibration import Calibration
    from runner.config.schema import RunConfig
    from runner.records.labels import Label
    from runner.types import Corrected


def calibration_of(config: RunConfig) -> Calibration | None:
    """Read the file ``scoring.calibration``; None without one.

    Raises:
        ConfigError: it cannot be read, is of a score that this config does not have, or the run
            stops early, by a test that knows the raw scores alone.
    """
    scoring = config.scoring
    if not isinstance(scoring, Scored) or scoring.calibration is None:
        return None
    from runner.analysis.calibration import read_calibration

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
    from runner.analysis.calibration import NAMES, settings_of
    from runner.analysis.labels import settings_in

    own = settings_of(settings_in(dump(config)["scoring"], found.score))
    changes = differences(found.judge.get("scoring", {}), own, names=NAMES)
    return [f"scoring.calibration: the judge is not the one that was calibrated: {change}" for change in changes]


def corrected_scores(record: RunFolder, names: Iterable[str], calibration: Calibration | None) -> dict[str, Corrected]:
    """Return the corrected means of a run's scores, by the labels beside its record or by a calibration; {} without either."""
    labels = read_labels(record.path)
    if not labels and calibration is None:
        return {}
    from runner.analysis.calibration import corrections

    return corrections(record, names, calibration, labels)


def judge_remarks(
    record: RunFolder, calibration: Calibration | None, found: Mapping[str, Corrected], scorers: Mapping[str, Any] | None = None
) -> list[str]:
    """Return what is to be said of corrected scores; `scorers`: facts about them (None: as the manifest records them)."""
    if calibration is None:
        return []
    from runner.analysis.calibration import remarks_on
    from runner.analysis.load import Run

    return remarks_on(calibration, Run(record), found, scorers)


def label_run(folder: Path, labels: Sequence[Label]) -> list[Label]:
    """Put labels beside a run's record, and write its summary and its report again, with the scores that they correct.

    Returns:
        All labels of the run.

    Raises:
        RecordError: another process uses the run, or it cannot be written.
        ConfigError: the calibration that the run names cannot be read.
    """
    from runner.config.compose import read_run
    from runner.reports import report

    record = RunFolder.open(folder)
    record.lock()
    try:
        found = add_labels(record, labels)
        summary = record.summary()
        if summary is not None:
            config = rooted(read_run(record.config_file), record.manifest())
            calibration = calibration_of(config)
            scores = corrected_scores(record, summary.scores, calibration)
            remarks = judge_remarks(record, calibration, scores)
            record.write_summary(msgspec.structs.replace(summary, corrected=scores, calibration=remarks))
    finally:
        record.close()
    report(folder)
    return found
