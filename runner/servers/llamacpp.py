"""Serve one GGUF file with llama.cpp, as a child process. The only module that imports xllamacpp.

`prefixes` serves in front of it where the system can (Linux). It imports nothing of Ostinato and is run by its path
(``python -P .../llamacpp.py``), so that a folder called ``runner`` in the working directory cannot be mistaken for this
package. The API key comes in the environment, never in the arguments, which every user of the machine can read. llama.cpp gives
the same error for every failed start; the reason is on stderr, which is the log that the parent keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

KEY_ENV = "OSTINATO_SERVER_KEY"
"""The environment variable that holds the API key that the server requires."""

_WARNINGS = 2  # llama.cpp's verbosity: errors and warnings, no line per request


def main(argv: list[str] | None = None) -> None:
    """Serve until a signal ends the process.

    SIGTERM has no handler on purpose: the default action ends the process at once, whereas shutting the server down
    while it answers a request hangs.

    Args:
        argv: the arguments, by default those of the command.
    """
    args = _parser().parse_args(argv)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.model_alias = {args.alias}
    params.hostnames = ["127.0.0.1"]
    prefixes, shares = _prefixes(), hasattr(os, "memfd_create")
    params.port = 0 if shares else args.port
    params.api_keys = [os.environ[KEY_ENV]]
    params.n_ctx = args.context * args.parallel  # llama.cpp divides the window among the slots
    params.n_parallel = args.parallel
    params.fit_params = False  # never silently a smaller window than asked for when memory is short
    params.cpuparams.n_threads = args.threads
    params.cpuparams_batch.n_threads = args.threads
    params.n_ubatch = args.batch
    # Reusing the prefix of an earlier request changes the last bits of the logits, so an answer would depend on which rows
    # came before. Measured at temperature 0, one request at a time: of 24 prompts sent twice, 24 had the same answer again
    # without reuse and 23 with it; and of 48 answers only about 32 were the same with and without. So prefixes are shared
    # otherwise: see `prefixes`.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    if args.adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(args.adapter, 1.0)]
    params.ui = False
    params.endpoint_slots = False
    if shares:
        params.slot_save_path = prefixes.FOLDER
    params.verbosity = _WARNINGS
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp could not serve {args.model}: {error}")
    if shares:
        front = prefixes.Front(int(server.listening_address.rpartition(":")[2]), os.environ[KEY_ENV], args.parallel)
        asyncio.run(_share(front, args))
    _write_atomically(Path(args.ready), server.listening_address)
    while True:
        signal.pause()


async def _share(front: Any, args: argparse.Namespace) -> None:
    """Serve in front of llama.cpp, so that requests share the beginnings of their prompts, until a signal ends the process."""
    listening = await front.start(args.port)
    port = listening.sockets[0].getsockname()[1]
    _write_atomically(Path(args.ready), f"http://127.0.0.1:{port}")
    await listening.serve_forever()


def _prefixes() -> ModuleType:
    """Load the module beside this one by its path, as this one was."""
    spec = importlib.util.spec_from_file_location("prefixes", Path(__file__).with_name("prefixes.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["prefixes"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp", description="Serve one GGUF file on 127.0.0.1.")
    parser.add_argument("--model", required=True, help="the GGUF file")
    parser.add_argument("--adapter", help="a LoRA adapter to it, as GGUF")
    parser.add_argument("--alias", required=True, help="the name the server answers with")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--context", type=int, required=True, help="tokens per slot")
    parser.add_argument("--parallel", type=int, required=True, help="slots: requests answered at the same time")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="prompt tokens evaluated in one step")
    parser.add_argument("--ready", required=True, help="the file that gets the address once the server listens")
    return parser


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
