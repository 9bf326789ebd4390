"""Sixteen processes on one cache, some of them killed: no process fails, no answer is lost, none is paid twice by one process."""

from tests.harness.chaos import ChaosServer, Dice
from tests.harness.crowd import crowd, openings


def test_sixteen_processes_share_a_cache_and_some_are_killed(tmp_path):
    with ChaosServer(Dice(1, 0, calm=0), latency_s=0.02) as server:
        counted = crowd(tmp_path, server, processes=16, questions=80, kills=4)
    assert counted["questions"] == 80
    assert counted["killed"] > 0
    assert counted["requests"] < counted["answers"]


def test_sixteen_processes_open_a_new_folder_at_the_same_instant(tmp_path):
    openings(tmp_path, processes=16, folders=10)
