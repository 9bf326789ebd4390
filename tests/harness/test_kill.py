"""Wherever a run is killed, nothing that was finished is lost or asked again; `python -m tests.harness.kill` does hundreds."""

import pytest

from tests.harness import judged
from tests.harness.kill import KINDS, WAYS, Series


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_lost_and_nothing_finished_is_asked_again(way, seed, tmp_path):
    seen = Series(way, seed=seed, kills=4, folder=tmp_path / "series").play()
    assert seen.kills.total() > 1
    assert seen.kills.keys() <= KINDS.keys()
    assert seen.lost == 0


@pytest.mark.prefect
def test_nor_where_prefect_orchestrates(tmp_path):
    seen = Series("resume", seed=6, kills=1, folder=tmp_path / "series", orchestrator="prefect").play()
    assert (seen.kills.total(), seen.lost) == (1, 0)


def test_nor_is_a_judgement(tmp_path):
    seen = judged.play(tmp_path / "series", seed=1, kills=3)
    assert seen["kills"] > 1
