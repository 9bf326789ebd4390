"""Run `ostinato launch`: start a model server that outlives the command."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from runner.cli.options import add_json
from runner.cli.progress import fetching
from runner.models import served
from runner.servers import kept, server

if TYPE_CHECKING:
    import argparse


PASSES_ON = True
"""Pass the words after ``--`` on to the server's own command."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    default = server.Settings()
    parser.description = "Start a model server that runs until `ostinato kill`. Runs that need the same model use it."
    parser.add_argument("model", nargs="?", default="smollm2", metavar="MODEL", help="what to serve (default: smollm2)")
    parser.add_argument("--backend", choices=["llamacpp", "vllm", "sglang"], default=default.backend, help="default: %(default)s")
    parser.add_argument("--context", type=int, default=default.context, help="tokens per request (default: %(default)s)")
    parser.add_argument("--parallel", type=int, help="requests answered at once (default: two per thread, if memory allows)")
    parser.add_argument("--threads", type=int, help="CPU threads, llamacpp only (default: the physical cores, at most 8)")
    parser.add_argument("--port", type=int, default=default.port, help="default: a free one")
    parser.add_argument(
        "--timeout", type=float, default=default.timeout_s, help="seconds to wait until it answers (default: %(default)g)"
    )
    add_json(parser)
    parser.usage = f"{parser.prog} [MODEL] [options] [-- ARGS]"
    parser.epilog = "ARGS are further arguments of vllm or sglang."
    parser.set_defaults(args=[])


def main(args: argparse.Namespace) -> int:
    """Start the server, or find it running. Print its URL on stdout, and how to use it on stderr. Return 0.

    Raises:
        ConfigError: there is no such model, or a setting is wrong.
        LaunchError: the server could not be started.
    """
    settings = server.Settings.of(
        {
            "backend": args.backend,
            "context": args.context,
            "parallel": args.parallel,
            "threads": args.threads,
            "port": args.port,
            "timeout_s": args.timeout,
            "args": args.args,
        }
    )
    if settings.backend == "llamacpp":
        with fetching(args.model) as progress:
            served.pull(args.model, progress=progress)
    known, started = kept.keep(args.model, settings)
    if args.json:
        shown = {"name": known.name, "model": known.model, "api_base": known.api_base, "pid": known.pid, "started": started}
        print(json.dumps({**shown, "record": str(kept.record_of(known.name))}))
        return 0
    print(known.api_base)
    wire = served.alias(known.model) if settings.backend == "llamacpp" else known.model
    reuse = "model=smollm2" if known.model == "smollm2" else f"LM('local/{known.model}')"
    hints = [
        f"{known.name} is {'up' if started else 'up already'} (pid {known.pid}).",
        f"  {reuse} uses it from now on; nothing to set.",
        f"  As any server: export SERVER_KEY=$(ostinato ps --key {known.name}), then",
        f"                 model=server model.name={wire} model.api_base={known.api_base} model.api_key_env=SERVER_KEY",
        f"  End it:        ostinato kill {known.name}",
    ]
    print("\n".join(hints), file=sys.stderr)
    return 0
