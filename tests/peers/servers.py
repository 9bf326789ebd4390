"""Play real runs on servers that are not ours: `transformers serve`, and litellm's proxy in front of the embedded llama.cpp.

    python -m tests.peers.servers [--env FOLDER] [transformers] [proxy]

It makes an environment for each in FOLDER (minutes, some gigabytes for transformers), and needs the extras `local` and `finetune`
for the weights and for saving them as transformers reads them. Each run asks 12 capitals, is played again from the cache, and
is replayed. It exits with 1 if one of these goes wrong. Outside CI.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tests.peers.proxy import environment, proxy, wait_for
from tests.support.command import REPOSITORY

ROWS = 12
SERVING = ["transformers[serving]==5.24.0", "torch==2.13.0"]


def ostinato(*words: str, cwd: Path, **variables: str) -> dict:
    """Run the command, and return what it says as JSON."""
    command = [sys.executable, "-m", "runner", *words, "--json"]
    given = {**os.environ, "PYTHONPATH": str(REPOSITORY), **variables}
    done = subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"ostinato {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def played(name: str, folder: Path, model: list[str], **variables: str) -> bool:
    """Play a run, again from the cache, and as a replay. Print what came of it, and return whether all is well."""
    words = ["run", *model, f"data.limit={ROWS}", "execution.orchestrator=none"]
    first = ostinato(*words, cwd=folder, **variables)
    again = ostinato(*words, cwd=folder, **variables)
    replayed = ostinato(*words, "cache.mode=replay", cwd=folder, **variables)
    seen = {key: first[key] for key in ("rows", "ok", "truncated", "requests", "usage", "cost_usd", "scores") if key in first}
    print(f"{name}: {json.dumps(seen)}")  # noqa: T201 - a command
    finished = first["rows"] == ROWS and first["errors"] == first["owed"] == 0 and first["usage"]["prompt_tokens"] > 0
    kept = again["cache_hits"] == replayed["cache_hits"] == ROWS and again["requests"] == replayed["requests"] == 0
    return finished and kept


@contextmanager
def transformers_serve(env: Path, weights: Path, folder: Path):
    """Run `transformers serve` with smollm2, and yield its address and the model's name there."""
    import torch

    from runner.system.processes import free_port
    from tests.finetune.folders import save

    command = env / "bin" / "transformers"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", env], check=True)
        subprocess.run([env / "bin" / "python", "-m", "pip", "install", "--quiet", *SERVING], check=True)
    model = save(weights, folder / "smollm2", torch.float32)
    port, log = free_port(), folder / "serve.log"
    with log.open("wb") as output:
        arguments = [command, "serve", "--host", "127.0.0.1", "--port", str(port)]
        running = subprocess.Popen(arguments, stdout=output, stderr=output, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    try:
        wait_for(f"http://127.0.0.1:{port}/health", running, log)
        yield f"http://127.0.0.1:{port}/v1", str(model)
    finally:
        running.terminate()
        running.wait(30)


def on_transformers(env: Path, folder: Path) -> bool:
    """Play on `transformers serve`."""
    from runner.models import weights

    with transformers_serve(env / "transformers", Path(weights.pull("smollm2")), folder) as (address, name):
        model = ["model=server", f"model.api_base={address}", f"model.name={name}", "model.software=transformers"]
        return played("transformers serve", folder, [*model, "limits.max_concurrency=1", "sampling.seed=null"])


def on_proxy(env: Path, folder: Path) -> bool:
    """Play through litellm's proxy, in front of a kept llama.cpp server."""
    command, key = environment(env / "proxy", None), f"sk-{secrets.token_hex(12)}"
    kept = ostinato("launch", "smollm2", cwd=folder)
    try:
        upstream_key = json.loads(Path(kept["record"]).read_text())["api_key"]
        with proxy(command, kept["api_base"], key, upstream_key=upstream_key) as address:
            model = ["model=server", f"model.api_base={address}/v1", "model.name=any", "model.api_key_env=PROXY_KEY"]
            return played("litellm's proxy before llama.cpp", folder, model, PROXY_KEY=key)
    finally:
        subprocess.run([sys.executable, "-m", "runner", "kill", kept["name"]], check=True)


SERVERS = {"transformers": on_transformers, "proxy": on_proxy}


def main() -> int:
    """Play on the servers that are named, or on all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "ostinato-peers")
    parser.add_argument("names", nargs="*", choices=[*SERVERS, []], metavar="SERVER", help="transformers, proxy (default: both)")
    given = parser.parse_args()
    well = True
    for name in given.names or SERVERS:
        with tempfile.TemporaryDirectory() as folder:
            well &= SERVERS[name](given.env.absolute(), Path(folder))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
