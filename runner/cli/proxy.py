"""Run `ostinato proxy`: an endpoint on loopback that gives any program the cache, limits, budget and record of a config."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from runner.cli.options import add_config, add_json, composed, count, shorten

if TYPE_CHECKING:
    import argparse

    from runner.config.schema import RunConfig
    from runner.proxy.serve import Address

TAKES_OVERRIDES = True


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = (
        "Serve chat completions, completions and responses in OpenAI's format on 127.0.0.1, under a config: cache, limits, "
        "budget. Each request is a row of a record; the header X-Ostinato-Row names it. Ctrl-C ends it in good order."
    )
    add_config(parser)
    parser.add_argument("--port", type=count, default=0, metavar="PORT", help="the port (default: a free one)")
    parser.add_argument("--key-env", metavar="NAME", help="the variable with the key that programs send (default: a random key)")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Serve. Return 0.

    Raises:
        OstinatoError: it cannot begin, or the record cannot be written.
    """
    from runner.cli.display import print_summary
    from runner.proxy.serve import serve
    from runner.secrets import from_env

    key = from_env(args.key_env, where="--key-env") if args.key_env else None
    config = composed(args).config()

    def ready(address: Address) -> None:
        if args.json:
            print(json.dumps({"url": address.url, "key": address.key, "run": str(address.run)}), flush=True)
        else:
            print(f"OPENAI_BASE_URL={address.url}\nOPENAI_API_KEY={address.key}", flush=True)
            print(_told(config), file=sys.stderr, flush=True)

    done = serve(config, args.overrides, port=args.port, key=key, ready=ready)
    if done.summary is None or done.folder is None:
        print("nothing was asked: there is no record", file=sys.stderr)
    elif args.json:
        print(json.dumps(done.summary.to_dict()))
    else:
        print_summary(done.summary, shorten(done.folder))
    return 0


def _told(config: RunConfig) -> str:
    """Say which model is served, and what a request gets that does not say it itself."""
    sampling = config.sampling
    given = {name: value for name in sampling.__struct_fields__ if (value := getattr(sampling, name)) is not None}
    given.pop("repeats")
    filled = ", ".join(f"{name} {value}" for name, value in given.items())
    told = f"; where a request says nothing: {filled} (sampling.NAME=null: nothing)" if filled else ""
    return f"serving {config.model.name}{told}; Ctrl-C ends it"
