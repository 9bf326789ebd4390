"""On a full disk nothing that is finished is lost, the command says what to do, and with space the run goes on."""

import os

import pytest

from tests.harness.full_disk import SCENES, possible, scene
from tests.support.command import Running


@pytest.mark.skipif(not possible(), reason="a file system of our own cannot be mounted here")
@pytest.mark.parametrize("name", SCENES)
def test_a_full_disk(name, in_tmp):
    failed = scene(name, in_tmp)
    assert not failed, failed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize(
    "words", [["run", "model=fake", "execution.orchestrator=none", "--json"], ["run", "--cfg", "job"], ["ls", "--json"]]
)
def test_results_that_cannot_be_written_are_an_error(words, in_tmp):
    with open("/dev/full", "wb") as full, Running(*words, stdout=full.fileno()) as running:  # noqa: PTH123
        done = running.wait()
    assert done.code == 1, done
    assert done.err == "error: the disk is full: the output could not be written; make space\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
def test_progress_that_cannot_be_written_stops_no_run(in_tmp):
    words = ["run", "model=fake", "execution.orchestrator=none", "--json", "--display", "plain"]
    with open("/dev/full", "wb") as full, Running(*words, stderr=full.fileno()) as running:  # noqa: PTH123
        done = running.wait()
    assert (done.code, done.json["status"]) == (0, "complete")
