"""Run `ostinato ft ls`, `show`, `cancel` and `rm`: list jobs, stop them, delete them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from runner.cli.display import aligned
from runner.cli.finetune.follow import outcome
from runner.cli.options import add_json
from runner.errors import FinetuneError

if TYPE_CHECKING:
    import argparse

    from runner.finetune.jobs.ledger import JobFolder, State


def configure(parser: argparse.ArgumentParser, action: str) -> None:
    """Declare the action's arguments."""
    parser.set_defaults(action=action)
    if action in ("show", "cancel"):
        parser.add_argument("job", nargs="?", default="latest", metavar="JOB", help="its id, or a prefix of it (default: latest)")
    if action == "rm":
        parser.add_argument("jobs", nargs="+", metavar="JOB", help="their ids, or prefixes of them")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Run the action. Return 0.

    Raises:
        FinetuneError: there is no such job, or it cannot be stopped or deleted.
    """
    from runner.finetune.jobs.ledger import find

    match args.action:
        case "ls":
            return _list(as_json=args.json)
        case "show":
            return _show(find(args.job), as_json=args.json)
        case "cancel":
            return _cancel(find(args.job), as_json=args.json)
    return _remove([find(name) for name in args.jobs], as_json=args.json)


def _list(*, as_json: bool) -> int:
    from runner.finetune.jobs.ledger import listed

    jobs = [(job, _state(job)) for job in listed()]
    if as_json:
        print(
            json.dumps({"jobs": [{**_what(job), **outcome(job, state), "created_at": state.created_at} for job, state in jobs]})
        )
        return 0
    rows = [("JOB", "STATUS", "PROVIDER", "BASE", "ROWS", "STEPS", "LOSS", "CREATED")]
    for job, state in jobs:
        found = outcome(job, state)
        loss = "-" if found["loss"] is None else f"{found['loss']:.4g}"
        steps = "-" if found["steps"] is None else f"{found['steps']:,}"
        created = (state.created_at or "-")[:19]
        rows.append(
            (
                job.spec.job,
                str(state.status),
                job.spec.provider,
                job.spec.base.name,
                f"{job.spec.data.rows:,}",
                steps,
                loss,
                created,
            )
        )
    if not jobs:
        print("there are no training jobs; `ostinato ft run` makes one", file=sys.stderr)
        return 0
    print("\n".join(aligned(rows)))
    return 0


def _show(job: JobFolder, *, as_json: bool) -> int:
    state = _state(job)
    found = {**_what(job), **outcome(job, state), "hyper": job.spec.hyper, "remote": state.remote}
    found |= {"created_at": state.created_at, "started_at": state.started_at, "ended_at": state.ended_at}
    found |= {"checkpoints": job.checkpoints(), "pid": running.pid if (running := job.running()) else None}
    if as_json:
        print(json.dumps({**found, "metrics": job.metrics(), "events": job.events(), "result": job.result()}))
        return 0
    from runner.cli.display import print_table

    hyper = ", ".join(f"{name} {_short(value)}" for name, value in job.spec.hyper.items() if value is not None)
    facts = [
        (name, _short(value)) for name, value in found.items() if value not in (None, {}, []) and name not in ("hyper", "job")
    ]
    print_table(f"{job.spec.job}: {state.status}", [*facts, ("hyper", hyper)])
    return 0


def _cancel(job: JobFolder, *, as_json: bool) -> int:
    from runner.experiment.training import attach

    state = job.state()
    if not state.status.final:
        state = attach(job).cancel()
    print(json.dumps(outcome(job, state)) if as_json else f"{job.spec.job} {state.status}")
    return 0


def _remove(jobs: list[JobFolder], *, as_json: bool) -> int:
    for job in jobs:
        status = _state(job).status
        if not status.final:
            raise FinetuneError(f"{job.spec.job} is {status}; stop it first: ostinato ft cancel {job.spec.job}")
    for job in jobs:
        job.remove()
    names = [job.spec.job for job in jobs]
    print(json.dumps({"removed": names}) if as_json else "\n".join(names))
    return 0


def _state(job: JobFolder) -> State:
    """Return the state of a job; that of a job on this machine is brought up to date first."""
    from runner.experiment.training import attach

    here = job.spec.provider in ("local", "command") and job.running() is not None
    return attach(job).step() if here else job.state()


def _what(job: JobFolder) -> dict[str, Any]:
    spec = job.spec
    return {
        "provider": spec.provider,
        "base": msgspec.to_builtins(spec.base)["name"],
        "format": spec.train_data_format,
        "rows": spec.data.rows,
        "valid_rows": spec.data.valid_rows,
    }


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:196]} ..."  # noqa: PLR2004
