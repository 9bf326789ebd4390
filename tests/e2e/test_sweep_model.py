"""A sweep over a real model: one server serves all cells, and each variant of it ends when no cell needs it any more."""

import pytest

from runner.providers import local
from runner.servers import server
from runner.sweeps.run import sweep

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("in_tmp", "with_weights")]

SMALL = ["model=smollm2", "execution.orchestrator=none", "data.limit=2", "sampling.max_tokens=8", "launch.parallel=2"]


@pytest.fixture
def servers(monkeypatch):
    """The servers that are started, and how many of them ran when each was."""
    started, start = [], server.start

    def counted(*arguments, **named):
        running = sum(one.process.alive() for one, _ in started)
        started.append((start(*arguments, **named), running))
        return started[-1][0]

    monkeypatch.setattr(local.server, "start", counted)
    return started


def test_all_cells_share_one_server(servers):
    result = sweep([*SMALL, "sampling.temperature=0,0.5,1", "sweep.concurrency=2"])
    assert result.manifest.status == "complete"
    assert len(servers) == 1
    assert not servers[0][0].process.alive()


def test_a_server_ends_with_its_last_cell(servers):
    result = sweep([*SMALL, "launch.context=512,1024", "sampling.temperature=0,1", "cache.mode=off", "sweep.concurrency=1"])
    assert [cell.status for cell in result.manifest.cells.values()] == ["complete"] * 4
    assert [running for _, running in servers] == [0, 0]
    assert not any(one.process.alive() for one, _ in servers)
