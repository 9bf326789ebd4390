"""An experiment that pretends, with the contract of runner.experiment; as a script, plays one through Prefect."""

import asyncio
import sys
import types
from pathlib import Path


class FakeSummary:
    def table(self):
        return [{"metric": "exact", "mean": 0.5, "stderr": 0.1, "n": 4}]

    def to_dict(self):
        return {"rows": 4}


class FakeExperiment:
    """`plays` is what `ask` does: "ok", "wait" (until it is cancelled), or an exception to raise. `launches` likewise."""

    shards = 1
    owed = 4
    needs_launch = True

    def __init__(self, folder, plays="ok", launches="ok", name="Demo.one"):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.overrides = ["sampling.temperature=0.5"]
        self.plays = plays
        self.launches = launches
        self.done = []

    async def launch(self):
        self.done.append("launch")
        if isinstance(self.launches, Exception):
            raise self.launches
        return {"model": "fake", "api_base": "http://127.0.0.1:1/v1", "wall_s": 0.0}

    async def ask(self):
        self.done.append("play")
        if isinstance(self.plays, Exception):
            raise self.plays
        if self.plays == "wait":
            await asyncio.Event().wait()
        return {"ok": 4, "errors": 0}

    async def kill(self):
        self.done.append("kill")

    def summarise(self):
        self.done.append("summarise")
        return FakeSummary()


def runner_experiment(*experiments):
    """A stand-in for the module runner.experiment.experiment that knows these experiments."""
    module = types.ModuleType("runner.experiment.experiment")
    found = {str(experiment.folder): experiment for experiment in experiments}
    module.attach = lambda folder: found[folder]
    return module


def tell(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder, plays):
    experiment = FakeExperiment(folder, plays)
    sys.modules["runner.experiment.experiment"] = runner_experiment(experiment)
    from flows.orchestrate import run_experiment
    from flows.servers import launch
    from tests.support.clock import PATIENCE_S

    launch.START_TIMEOUT_S = PATIENCE_S
    try:
        asyncio.run(run_experiment(experiment, notify=tell))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
