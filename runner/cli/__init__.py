"""Run the command `ostinato`: find the verb, import its module, and turn errors into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING

from runner.errors import OstinatoError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS: dict[str, tuple[str, str]] = {
    "init": ("runner.cli.init", "make a folder with an experiment, from a file of your own or an example"),
    "run": ("runner.cli.run", "play an experiment, or a sweep (-m): overrides in Hydra's grammar, key=value"),
    "resume": ("runner.cli.resume", "resume a run or a sweep that was interrupted"),
    "retry": ("runner.cli.retry", "ask the failed rows of a run again"),
    "validate": ("runner.cli.validate", "check a config, its data and its prompts, and send nothing"),
    "config": ("runner.cli.config", "list and show the config groups and their options"),
    "schema": ("runner.cli.schema", "print the JSON Schema of config files, for editors"),
    "ls": ("runner.cli.ls", "list runs and sweeps"),
    "diff": ("runner.cli.diff", "show in which keys the configs of two runs differ"),
    "explain": ("runner.cli.explain", "say what a key of the config means, and which runs set it"),
    "show": ("runner.cli.show", "show a run with its summary and rows, or a sweep"),
    "report": ("runner.cli.report", "write one HTML page of a run or a sweep: plots, errors, every sample"),
    "score": ("runner.cli.score", "score a run's answers again, without asking the model"),
    "labels": ("runner.cli.labels", "draw answers to be labelled by people, and take in their labels"),
    "calibrate": ("runner.cli.calibrate", "measure how often a judge errs, by labels, and correct its mean score"),
    "compare": ("runner.cli.compare", "compare runs row by row: differences, their significance, and the rows that flipped"),
    "power": ("runner.cli.power", "say how many rows or repeats a comparison needs to find a difference"),
    "export": ("runner.cli.export", "write a run or a sweep as CSV, Parquet, JSON lines, Markdown or JUnit XML"),
    "import": ("runner.cli.importing", "take over runs and configs of inspect_ai, lm-eval, promptfoo and OpenAI"),
    "proxy": ("runner.cli.proxy", "serve any program in OpenAI's format, under a config: cache, limits, budget, record"),
    "reproduce": ("runner.cli.reproduce", "play a run or a capsule again, and show what has changed"),
    "pack": ("runner.cli.pack", "pack a run into one file, a capsule, that plays again anywhere"),
    "cache": ("runner.cli.cache", "inspect the response cache, and clear it"),
    "models": ("runner.cli.models", "fetch, list and delete weights"),
    "ft": ("runner.cli.ft", "fine-tune: run, ls, show, logs, attach, cancel, rm"),
    "pipeline": ("runner.cli.pipeline", "train a model, compare it with its base, and register it if it is significantly better"),
    "launch": ("runner.cli.launch", "start a local model server that outlives the command"),
    "ps": ("runner.cli.ps", "list the model servers that `launch` started"),
    "kill": ("runner.cli.kill", "stop model servers that `launch` started"),
    "schedule": ("flows.schedules.cli", "play an experiment at set times: apply, ls, pause, resume, run-now, rm"),
    "serve": ("flows.schedules.serve", "play scheduled experiments until it is stopped"),
    "server": ("flows.servers.cli", "start and stop a Prefect server, whose UI shows all runs"),
    "completion": ("runner.cli.completion", "print the script that completes commands in bash, zsh or fish"),
    "doctor": ("runner.cli.doctor", "check this machine: versions, weights, ports, keys, Prefect, cache"),
}
"""Map each verb to its module and its summary, in the order in which a newcomer needs them.

The module has `configure(parser)` and `main(args) -> exit code`.
"""

EXIT_CODES = (
    "exit codes: 0 ok, 1 error, 2 usage or config, 3 incomplete (rows failed or owed) or undecided (too few rows to tell), "
    "100 a threshold failed, 130 interrupted"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code: see `EXIT_CODES`."""
    if "_ARGCOMPLETE" in os.environ:
        from runner.cli.completion import complete

        complete(VERBS)
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if words[0] in ("-V", "--version"):
        from runner import __version__

        print(f"ostinato {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        from runner.wording.suggest import suggest

        print(f"error: there is no verb '{verb}'{suggest(verb, VERBS) or ';'} `ostinato --help` lists them", file=sys.stderr)
        return 2
    return _guarded(verb, rest)


def _guarded(verb: str, words: list[str]) -> int:
    from runner.cli import dotenv  # here, because `--help` needs nothing of it
    from runner.secrets import redact

    warnings.showwarning = _show_warning
    code = 0
    try:
        dotenv.read()
        code = _dispatch(verb, words)
        sys.stdout.flush()  # here, where a closed pipe can still be handled
    except OstinatoError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader (head, less) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered would be written again at exit
        print(f"error: the disk is full: {error.filename or 'the output'} could not be written; make space", file=sys.stderr)
        return 1
    return code


def _dispatch(verb: str, words: list[str]) -> int:
    import argparse

    target, summary = VERBS[verb]
    try:
        module = importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name not in (target, target.partition(".")[0]):
            raise
        raise OstinatoError(f"`ostinato {verb}` needs the package {target.partition('.')[0]}, which is not installed") from None
    parser = argparse.ArgumentParser(prog=f"ostinato {verb}", description=summary)
    module.configure(parser)
    if getattr(module, "PASSES_ON", False) and "--" in words:  # argparse takes positionals in one go, before or after options
        words, passed_on = words[: words.index("--")], words[words.index("--") + 1 :]
        parser.set_defaults(args=passed_on)
    # overrides and options may be mixed, as in Hydra
    parse = parser.parse_intermixed_args if getattr(module, "TAKES_OVERRIDES", False) else parser.parse_args
    code: int = module.main(parse(words))
    return code


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    """Print a warning without the line of code that raised it."""
    from runner.secrets import redact

    print(f"warning: {redact(str(message))}", file=sys.stderr)


def _usage() -> str:
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:<{width}}{summary}" for verb, (_, summary) in VERBS.items())
    return f"""usage: ostinato VERB [...]

Language-model experiments declared in YAML that can be played again exactly.

{verbs}

Begin with `ostinato init --from FILE`, a file of your own questions, or with `ostinato run`, which plays an example.
`ostinato VERB --help` says more. {EXIT_CODES}"""
