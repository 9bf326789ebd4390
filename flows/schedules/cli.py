"""`ostinato schedule apply|ls|pause|resume|run-now|rm`: play experiments at their times."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from flows.connection import connected
from flows.schedules import deployments
from flows.schedules.times import SHOWN
from flows.servers import kept
from flows.servers.choice import resolve
from runner.cli.options import add_config
from runner.errors import ConfigError, OrchestratorError
from runner.wording.numbers import count

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TAKES_OVERRIDES = True

_EPILOG = """
A schedule carries the config and the files that it names, as they are now, but no secrets: `ostinato serve` reads those from its
environment. Change a file, and apply it again. Data at an address (https://, s3://, hf://) is fetched again for each run.
Where the schedule was applied, its runs are recorded in this folder; elsewhere in OSTINATO_HOME/schedules/played/NAME.

A run that was not completed has failed. It is retried schedule.retries times, in the same record; then one JSON object is
written to the stdin of schedule.notify.command and posted to the URL in schedule.notify.webhook_env:
  {"format": 1, "event": "failed" or "crashed", "schedule": name, "what": kind, "flow_run": id, "due": time or null,
   "tries": count, "folder": where it works, "run": the record's folder or null, "problem": text, "at": time}
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Play an experiment at set times, on a Prefect server: `ostinato serve` plays what is due."
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    actions = {
        "apply": "check the config that the overrides compose to, and create or replace its schedule (schedule.cron=... etc.)",
        "ls": "list schedules",
        "pause": "start no more runs of NAME; a current one continues",
        "resume": "start runs of NAME again",
        "run-now": "request a run of NAME at once",
        "rm": "remove NAME; its records stay",
    }
    told = "; ".join(f"{action}: {what}" for action, what in actions.items())
    parser.add_argument("action", choices=[*actions], help=told)
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Run the action. Returns 0.

    Raises:
        ConfigError, DataError: the config is wrong, or there is no such schedule.
        OrchestratorError: no server is available.
    """
    if args.action == "apply":
        return _apply(args)
    if args.action == "ls":
        return _ls(as_json=args.json)
    if len(args.overrides) != 1:
        raise ConfigError(f"name one schedule: ostinato schedule {args.action} NAME")
    (name,) = args.overrides
    ways: dict[str, Callable[[str], Coroutine[Any, Any, str | None]]] = {
        "pause": deployments.pause,
        "resume": deployments.resume,
        "run-now": deployments.run_now,
        "rm": deployments.remove,
    }
    done = {"pause": "paused", "resume": "resumed", "run-now": "asked for", "rm": "removed"}[args.action]
    found = _ask(ways[args.action](name))
    if args.json:
        print(json.dumps({"schedule": name, "done": done, **({"flow_run": found} if found else {})}))
    else:
        print(f"{done}: {name}")
    return 0


def _apply(args: argparse.Namespace) -> int:
    from runner.schedules.job import Job

    job, content = Job.prepare(args.overrides, config_name=args.config_name, config_dir=args.config_dir)
    plan = _ask(deployments.apply(job, content), start=True)
    (facts,) = [known for known in _ask(deployments.listed()) if known["name"] == job.name]
    if args.json:
        print(json.dumps({**facts, "dates": [date.isoformat() for date in plan.dates], "remarks": plan.remarks}))
        return 0
    player = "ostinato serve" if job.schedule.pool is None else f"prefect worker start --pool {job.schedule.pool}"
    print(f"applied: {job.name} ({facts['when']}), config {job.config_hash[:6]}; `{player}` plays it")
    print(f"carries: {count(len(content.sizes), 'file')}, {len(content.packed):,} bytes packed")
    last = " (the last)" if len(plan.dates) < SHOWN else ""
    print(f"next: {', '.join(date.isoformat(' ', 'seconds') for date in plan.dates)}{last}")
    for remark in plan.remarks:
        print(f"remark: {remark}", file=sys.stderr)
    return 0


def _ls(*, as_json: bool) -> int:
    found = _ask(deployments.listed())
    if as_json:
        print(json.dumps({"schedules": found}))
    elif found:
        for known in found:
            state = f"failed ({known['problem']})" if known["problem"] else _state(known)
            last = f"last {known['last']} {known['last_state']}" if known["last"] else "not played yet"
            print(f"{known['name']}  {known['what']}  {known['when']}  {state}  next {known['next'] or '-'}  {last}")
    else:
        print("no schedules; `ostinato schedule apply` makes one", file=sys.stderr)
    return 0


def _state(known: dict[str, Any]) -> str:
    return "paused" if not known["active"] else "ended" if known["ended"] else "active"


def _ask(asked: Coroutine[Any, Any, Any], *, start: bool = False) -> Any:
    """Call the server that runs use. With `start`, start a kept one if there is none."""
    try:
        choice = resolve()
        if choice.api_url is None:
            if not start:
                raise OrchestratorError("no Prefect server is running; `ostinato serve` or `ostinato server start` starts one")
            print("Starting the Prefect server that keeps the schedules ...", file=sys.stderr)
            kept.start()
            choice = resolve()
        with connected(choice):
            return asyncio.run(asked)
    finally:
        asked.close()
