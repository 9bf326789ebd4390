"""Whenever a signal comes, the command ends as it should, says nothing strange, and nothing is lost."""

import sys

import pytest

from tests.harness.anytime import NUMBERS, Life

SIGNALS = 12

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when a process is ready for signals")


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_signal_at_any_time(tmp_path, twice):
    life = Life(tmp_path / "life")
    parts = life.measure()
    for index in range(SIGNALS):
        number, made = NUMBERS[index % len(NUMBERS)], index >= SIGNALS // 2
        after_s = parts[made] * (index % (SIGNALS // 2)) / (SIGNALS // 2)
        life.check(number, life.play(number, after_s, made=made, twice=twice))
    assert (
        sum(life.finish().values()) >= 2 + SIGNALS // 2
    )  # the first two were left alone, and half of the others had made a folder
