"""Whenever a signal comes, the command ends as it should, says nothing strange, and nothing is lost."""

import sys

import pytest

from tests.harness.anytime import NUMBERS, Life

SIGNALS = 12

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when a process is ready for signals")


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_at_any_time(tmp_path, twice):
    life = Life(tmp_path / "life")
    length = life.measure()
    for index in range(SIGNALS):
        number = NUMBERS[index % len(NUMBERS)]
        life.check(number, life.play(number, length * index / SIGNALS, twice=twice))
    assert sum(life.finish().values()) >= 3  # the one that was measured, the first one, and those that came to a folder
