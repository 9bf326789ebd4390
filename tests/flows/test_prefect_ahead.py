"""What goes on before the server of a run is up, and the schema that makes its database."""

import asyncio
import re
import sqlite3
import subprocess
import sys

import pytest

import flows.orchestrate
from flows.ahead import ahead, taken
from flows.servers import schema
from runner.errors import LaunchError, OrchestratorError
from tests.flows.play_fake import FakeExperiment
from tests.support.clock import wait_until
from tests.support.command import REPOSITORY


class Doomed:
    """A private server that does not start: it ends once rows are asked."""

    api_url = ui_url = "http://127.0.0.1:9"

    def __init__(self, experiment):
        self.experiment = experiment

    async def ready(self):
        await asyncio.to_thread(wait_until, lambda: "play" in self.experiment.done, "the play stage")
        raise OrchestratorError("it ended instead of starting")

    def stop(self):
        self.experiment.done.append("stopped")


async def test_rows_are_asked_before_the_server_is_up_and_given_up_if_it_does_not_start(clean, tmp_path, monkeypatch):
    experiment = FakeExperiment(tmp_path / "doomed", plays="wait")
    monkeypatch.setattr(flows.orchestrate, "PrivateServer", lambda tasks: Doomed(experiment))
    with pytest.raises(OrchestratorError, match="instead of starting"):
        await flows.orchestrate.run_experiment(experiment, notify=lambda _: None)
    assert experiment.done == ["launch", "play", "kill", "stopped"]


async def test_a_stage_that_is_under_way_is_waited_for_and_one_that_failed_is_begun_again(tmp_path):
    experiment = FakeExperiment(tmp_path / "run", launches=LaunchError("no such program"))
    folder = str(experiment.folder)
    async with ahead(experiment):
        with pytest.raises(LaunchError):
            await taken(folder, "launch", experiment.launch)
        experiment.launches = "ok"
        await taken(folder, "launch", experiment.launch)
        assert await taken(folder, "ask", experiment.ask) == {"ok": 4, "errors": 0}
    assert experiment.done == ["launch", "launch", "play"]
    async with ahead(experiment):
        assert await taken(folder, "launch", experiment.launch)
        assert await taken(folder, "ask", experiment.ask)
    assert experiment.done == ["launch", "launch", "play", "launch", "play"]


@pytest.mark.slow
def test_the_schema_is_what_prefects_own_migrations_make():
    done = subprocess.run(
        [sys.executable, "-m", "tests.flows.schema"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert clauses(done.stdout) == clauses(schema.SCHEMA.read_text("utf-8"))


def clauses(sql):
    """The clauses of all statements; the order of a table's constraints varies."""
    return sorted(clause.strip() for clause in re.split("[,\n]", sql))


def test_a_database_is_made_from_the_schema_unless_prefect_does_not_know_it(tmp_path, monkeypatch):
    database = tmp_path / "prefect.db"
    known, heads = schema._revisions()
    monkeypatch.setattr(schema, "_revisions", lambda: (known - heads, set()))
    assert (schema.prepared(database), database.exists()) == (False, False)
    monkeypatch.setattr(schema, "_revisions", lambda: (known | {"later"}, {"later"}))
    assert (schema.prepared(database), database.exists()) == (False, True)  # a newer Prefect migrates from there
    monkeypatch.undo()
    assert schema.prepared(database)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prefect.db"]
    with sqlite3.connect(database) as made:
        made.execute("UPDATE alembic_version SET version_num = 'earlier'")
    made.close()
    assert not schema.prepared(database)
