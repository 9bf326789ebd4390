"""Whenever a signal arrives, the command exits as it should, prints no noise, and loses nothing."""

import sys

import pytest

from tests.harness.anytime import NUMBERS, ROWS, Life, Moment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc shows when a process handles signals")


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_at_any_moment_loses_nothing(tmp_path, twice):
    life = Life(tmp_path / "life")
    starting = [Moment(reads=life.reads * sixth // 6) for sixth in range(6)]
    recording = [Moment(lines=ROWS * sixth // 6) for sixth in range(6)]
    for index, moment in enumerate([*starting, *recording]):
        number = NUMBERS[index % len(NUMBERS)]
        life.check(number, life.play(number, moment, twice=twice))
    left = life.finish()
    assert left.total() >= 1 + len(recording)  # the first run was left alone, and these had begun their records
