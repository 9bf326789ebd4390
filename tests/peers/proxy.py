"""Ask litellm's proxy, in front of the loopback server, for every answer of `tests/support/answers.py`.

    python -m tests.peers.proxy [--env FOLDER] [--version 1.106.2]

It makes an environment of its own with ``litellm[proxy]`` (minutes, and some 500 MB; kept in FOLDER), starts the proxy with a
master key, asks through both transports, and compares what they read with what is read from the server itself, thinking parted.
It exits with 1 if an answer differs and `DIFFERENCES` does not say why. Outside CI.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from runner.answers import without_thinking
from runner.errors import LMError
from runner.transport import DirectTransport, LiteLLMTransport
from runner.types import Connection, Request, Response
from tests.support.answers import CASES
from tests.support.server import Raw, Server

START_S = 180.0
"""Seconds that the proxy may take to start; it imports for 10 to 60."""

ALWAYS = {
    "id": "the proxy makes ids of its own",
    "created": "the proxy's own clock",
    "model": "the proxy's name for the group of models",
    "system_fingerprint": "the proxy leaves it out",
    "usage": "the proxy counts what is missing as zero",
}
"""Fields that may differ in every answer, and why."""
_FAILS = "the proxy's litellm cannot convert it, and answers 500"
_NESTED = "the server stands for a proxy, and the proxy drops the fields of a second one"
DIFFERENCES = {
    "half a surrogate pair": _FAILS,
    "content as a number": _FAILS,
    "content as an object": _FAILS,
    "a log probability of minus infinity": _FAILS,
    "a text completion with a number as id": _FAILS,
    "a text completion with a float as created": _FAILS,
    "no choices field": _FAILS,
    "thinking as an object": _FAILS,
    "parts (Mistral)": _FAILS,
    "parts with a summary (Databricks)": _FAILS,
    "two parts of text": _FAILS,
    "parts of other kinds (Mistral's references)": _FAILS,
    "texts as parts": _FAILS,
    "a part that is all thinking": _FAILS,
    "an empty list of parts": _FAILS,
    "a refusal as a part": _FAILS,
    "log probabilities with nulls": "OpenAI's SDK, with which litellm reads both, adds nulls",
    "thinking in the text": "the proxy cuts it out, and leaves the white space around both parts",
    "a failed text completion": "the proxy makes a stop of it, and does not hide the truth anywhere",
    "a finish reason that litellm's proxy has hidden": _NESTED,
    "a failure that litellm's proxy has hidden": _NESTED,
    "an error that litellm's proxy has hidden": _NESTED,
    "an error without a code": "the proxy takes it for a bad request",
    "an error beside an answer": "the proxy takes it for a bad request",
}
"""Why answers differ in their choices, or are errors, by the case's name (litellm 1.108.7)."""


def environment(folder: Path, version: str | None) -> Path:
    """Make the environment unless it is there, and return its ``litellm`` command."""
    command = folder / "bin" / "litellm"
    if not command.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        wanted = f"litellm[proxy]=={version}" if version else "litellm[proxy]"
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", wanted], check=True)
    return command


@contextmanager
def proxy(command: Path, upstream: str, key: str, *, upstream_key: str = "none"):
    """Run the proxy in front of `upstream`, and yield its address."""
    reached = {"api_base": upstream, "api_key": upstream_key, "max_retries": 0}
    models = [
        {"model_name": "any", "litellm_params": {"model": "openai/any", **reached}},
        {"model_name": "any-text", "litellm_params": {"model": "text-completion-openai/any", **reached}},
    ]
    settings = {"model_list": models, "router_settings": {"num_retries": 0, "disable_cooldowns": True}}
    with started(command, settings, key) as (address, _):
        yield address


@contextmanager
def started(command: Path, settings: dict[str, object], key: str):
    """Run the proxy with these settings, and yield its address and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder) / "config.yaml", Path(folder) / "log"
        config.write_text(json.dumps(settings))  # JSON is YAML
        variables = {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
        with log.open("wb") as output:
            arguments = [command, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
            running = subprocess.Popen(arguments, env=os.environ | variables, stdout=output, stderr=output)
        try:
            wait_for(f"http://127.0.0.1:{port}/health/liveliness", running, log)
            yield f"http://127.0.0.1:{port}", running.pid
        finally:
            running.terminate()
            running.wait(30)


def wait_for(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    """Return once `url` answers."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and running.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"the proxy did not start:\n{log.read_text(errors='replace')[-3000:]}")


async def read(transport, connection, suffix):
    """Ask for every case, and return what was read, by the case's name."""

    async def one(case):
        text = case.kind == "text"
        said = {"prompt": case.name} if text else {"messages": [{"role": "user", "content": case.name}]}
        request = Request(model=f"openai/any{suffix if text else ''}", model_type="text" if text else "chat", **said)
        try:
            return await transport.acomplete(request, connection)
        except LMError as error:
            return error

    answers = [await one(case) for case in CASES]
    await transport.aclose()
    return dict(zip([case.name for case in CASES], answers, strict=True))


def differences(direct, other):
    """Return the fields in which two answers differ; ``error`` if one of them is an error of another class."""
    if not isinstance(direct, Response) or not isinstance(other, Response):
        return set() if type(direct) is type(other) else {"error"}
    direct, other = without_thinking(direct), without_thinking(other)
    return {name for name in Response.__struct_fields__ if getattr(direct, name) != getattr(other, name)} - set(ALWAYS)


def shown(answer) -> str:
    """Return an answer for people."""
    return repr(answer.choices) if isinstance(answer, Response) else f"{type(answer).__name__}: {answer}"


def main() -> int:
    """Run it, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "ostinato-litellm-proxy")
    parser.add_argument("--version", help="of litellm; default: the newest")
    given = parser.parse_args()
    command = environment(given.env.absolute(), given.version)
    cases, key, unexpected = {case.name: case for case in CASES}, f"sk-{secrets.token_hex(12)}", 0
    with Server(lambda call: Raw(cases[call.question].sent)) as server, proxy(command, server.url, key) as address:
        plain = asyncio.run(read(DirectTransport(), Connection(api_base=server.url, api_key="none"), ""))
        behind = Connection(api_base=f"{address}/v1", api_key=key)
        for transport in (DirectTransport(), LiteLLMTransport()):
            found = asyncio.run(read(transport, behind, "-text"))
            for name, answer in found.items():
                differ = differences(plain[name], answer)
                if differ and name not in DIFFERENCES:
                    unexpected += 1
                    told = f"{shown(plain[name])}\n    {shown(answer)}"
                    print(f"{type(transport).__name__}: {name}: {', '.join(sorted(differ))}\n    {told}")  # noqa: T201 - a command
    print(f"{len(CASES)} answers, {unexpected} unexpected differences")  # noqa: T201 - a command
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
