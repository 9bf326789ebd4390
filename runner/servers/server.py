"""Start one model server as a child process on 127.0.0.1, with its own key, and wait until it answers.

Three programs can serve: llama.cpp, vLLM and SGLang.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from runner.errors import ConfigError, LaunchError
from runner.models import served
from runner.network.client import request
from runner.servers import llamacpp, machine, prefixes
from runner.system import processes
from runner.wording.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_S = 0.05
_HOST = "127.0.0.1"

_KEY_ENV = {"llamacpp": llamacpp.KEY_ENV, "vllm": "VLLM_API_KEY", "sglang": "OSTINATO_SERVER_KEY"}

# SGLang takes its key only as an argument, which every user of the machine could read; so it is added inside the process.
_SGLANG = (
    "import os, runpy, sys; sys.argv += ['--api-key', os.environ.pop('OSTINATO_SERVER_KEY')]; "
    "runpy.run_module('sglang.launch_server', run_name='__main__', alter_sys=True)"
)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to serve a model: the keys of ``launch_kwargs``.

    Attributes:
        backend: the program that serves the model.
        context: the tokens of one request, prompt and answer together.
        parallel: requests answered at the same time; others wait. By default as many as cores and memory are good for, at most
            `concurrency` (llama.cpp: see `runner.servers.machine`); vLLM and SGLang decide themselves.
        concurrency: requests that are asked for at the same time; None: unknown.
        threads: CPU threads (llama.cpp only); by default all physical cores of this process, at most 8.
        port: TCP port; 0: any free port.
        timeout_s: seconds to wait for the server's first answer.
        args: more command-line arguments (vLLM and SGLang only).
    """

    backend: Literal["llamacpp", "vllm", "sglang"] = "llamacpp"
    context: Annotated[int, msgspec.Meta(ge=1)] = 2048
    parallel: Annotated[int, msgspec.Meta(ge=1)] | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    args: tuple[str, ...] = ()

    @classmethod
    def of(cls, launch_kwargs: Mapping[str, Any]) -> Settings:
        """Check a dict of settings.

        Raises:
            ConfigError: an unknown key, a wrong type, or a value out of range.
        """
        for key in launch_kwargs:
            if key not in cls.__struct_fields__:
                raise ConfigError(f"launch_kwargs: unknown key {key!r}{did_you_mean(key, cls.__struct_fields__)}")
        try:
            settings = msgspec.convert(dict(launch_kwargs), cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"launch_kwargs: {error}") from error
        if settings.args and settings.backend == "llamacpp":
            raise ConfigError("launch_kwargs: args are for vllm and sglang; llamacpp takes none")
        return settings


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        identity: the identity of its weights (see `identity`).
        settings: the settings it was started with.
        api_base: the base URL of requests, ``http://127.0.0.1:PORT/v1``.
        api_key: the key that it requires.
        process: its process.
    """

    identity: str
    settings: Settings
    api_base: str
    api_key: str
    process: processes.Process

    def __repr__(self) -> str:
        return f"Server({self.identity}, {self.api_base}, {self.process})"


def identity(model: str, backend: str, args: Sequence[str] = ()) -> str:
    """Return the identity of the weights: ``sha256:...`` of a GGUF file; backend and name where the backend fetches them itself.

    `args` may change the answers (by quantisation, for example), so they are part of it.

    Raises:
        ConfigError: no such weights.
        LaunchError: the weights are not pinned, so they must be read, and cannot be fetched.
    """
    return served.digest(model) if backend == "llamacpp" else " ".join([f"{backend}:{model}", *args])


def start(
    model: str, settings: Settings, *, folder: Path, stem: str = "server", wanted: Callable[[], bool] = lambda: True
) -> Server:
    """Start a server and wait until it answers. Fetch the weights first if they are not on this machine.

    Args:
        model: a name of `served` for llama.cpp, a Hugging Face repository or folder for the others.
        settings: how to serve it.
        folder: an existing folder, for the log ``<stem>.log``.
        stem: the name of this server's files in `folder`.
        wanted: called while the server starts; if it returns False, the start is given up.

    Returns:
        The server. Its process ends with this one unless it is kept.

    Raises:
        ConfigError: no such weights.
        LaunchError: the program is not installed, the port is taken, or the server ended, did not answer in time, or is no
            longer wanted. The message has the end of its log.
    """
    if settings.port and not _is_free(settings.port):
        raise LaunchError(f"cannot serve {model}: port {settings.port} on {_HOST} is taken; use port 0 for any free port")
    which, key = identity(model, settings.backend), secrets.token_urlsafe(24)
    ready = folder / f"{stem}.ready"
    ready.unlink(missing_ok=True)
    if settings.backend == "llamacpp":
        if not importlib.util.find_spec("xllamacpp"):
            raise LaunchError("llama.cpp's server is not installed: pip install 'ostinato[local]'")
        files = served.pull(model)
        settings = _fitted(settings, Path(files.gguf))
        cmd, env = _llamacpp(model, files, settings, ready)
        address = None
    else:
        port = settings.port or processes.free_port()
        cmd, env = _vllm(model, settings, port) if settings.backend == "vllm" else _sglang(model, settings, port)
        address = f"http://{_HOST}:{port}"
    process = processes.start(cmd, log=folder / f"{stem}.log", env={**os.environ, **env, _KEY_ENV[settings.backend]: key})
    try:
        api_base = _wait(process, key, settings.timeout_s, address, ready, wanted)
    except LaunchError as error:
        process.stop()
        tail = process.log_tail().replace(key, "***") or "(empty)"
        raise LaunchError(f"cannot serve {model} with {settings.backend}: {error}. The end of its log:\n{tail}") from None
    except BaseException:  # Ctrl-C included: nothing may be left running
        process.stop()
        raise
    finally:
        ready.unlink(missing_ok=True)
    return Server(which, settings, api_base, key, process)


def answers(api_base: str, api_key: str, timeout_s: float = 2.0) -> bool:
    """Return whether a server answers at this address and accepts this key. Proxies are not used."""
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        return request("GET", f"{api_base}/models", headers=headers, timeout_s=timeout_s, proxies=False, limit=0).ok
    except OSError:
        return False


def share(api_base: str, api_key: str, requests: list[dict[str, Any]]) -> str | None:
    """Have a server evaluate what the prompts of these requests have in common once for all.

    Args:
        api_base: the base URL of requests.
        api_key: the key that the server requires.
        requests: the bodies of some requests.

    Returns:
        What requests name in the field `prefixes.FIELD`; None if the server shares nothing.
    """
    body = json.dumps({"requests": requests}).encode()
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    try:
        reply = request(
            "POST", api_base.removesuffix("/v1") + prefixes.PATH, headers=headers, body=body, timeout_s=600, proxies=False
        )
        return str(json.loads(reply.body)["id"]) if reply.ok else None
    except (OSError, ValueError, KeyError):
        return None


def _wait(
    process: processes.Process, key: str, timeout_s: float, address: str | None, ready: Path, wanted: Callable[[], bool]
) -> str:
    """Wait for the first answer. Return the base URL of requests."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not process.alive():
            raise LaunchError("the server ended while it was starting")
        if not wanted():
            raise LaunchError("it is no longer wanted")
        if address is None and ready.is_file():
            address = ready.read_text(encoding="utf-8")
        if address is not None and answers(f"{address}/v1", key):
            return f"{address}/v1"
        time.sleep(_POLL_S)
    raise LaunchError(f"no answer within {timeout_s:g} s (timeout_s)")


def _llamacpp(model: str, files: served.Served, settings: Settings, ready: Path) -> tuple[list[str], dict[str, str]]:
    values = {
        "model": files.gguf,
        "alias": served.alias(model),
        "port": settings.port,
        "context": settings.context,
        "parallel": settings.parallel,
        "threads": settings.threads,
        "batch": machine.batch(settings.context),
        "ready": ready,
        **({"adapter": files.adapter} if files.adapter else {}),
    }
    cmd = [sys.executable, "-P", llamacpp.__file__, *(part for key, value in values.items() for part in (f"--{key}", str(value)))]
    # llama.cpp's threads spin while they wait for each other. When another program needs a core, that costs more than it gains:
    # 16 short prompts took 15.3 s on two cores, one of them busy, and 9.9 s with threads that sleep (4.3 and 5.2 s on idle ones).
    return cmd, {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}


def chosen() -> str:
    """Say what llama.cpp uses of this machine by default."""
    context, threads, free = Settings().context, machine.threads(), machine.free_memory()
    memory = "" if free is None else f", {free / 1e9:.1f} GB of memory free"
    return (
        f"{threads} thread{'s' * (threads > 1)} (launch.threads), up to {machine.slots(threads)} requests at once "
        f"(launch.parallel), {machine.batch(context)} prompt tokens at a time{memory}"
    )


def _fitted(settings: Settings, gguf: Path) -> Settings:
    """Return settings of llama.cpp whose slots and threads follow this machine, where they are not set."""
    threads = settings.threads or machine.threads()
    if (slots := settings.parallel) is None:
        window, free = machine.window_bytes(gguf, settings.context), machine.free_memory()
        slots = machine.slots(threads, concurrency=settings.concurrency, window=window, free=free)
    return msgspec.structs.replace(settings, threads=threads, parallel=slots)


def _vllm(model: str, settings: Settings, port: int) -> tuple[list[str], dict[str, str]]:
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which("vllm", path=here)
    if program is None:
        raise LaunchError("vLLM is not installed: pip install vllm (it needs a GPU), or use backend llamacpp")
    cmd = [program, "serve", model, "--served-model-name", model, "--host", _HOST, "--port", str(port)]
    at_once = ["--max-num-seqs", str(settings.parallel)] if settings.parallel else []
    return [*cmd, "--max-model-len", str(settings.context), *at_once, *settings.args], {}


def _sglang(model: str, settings: Settings, port: int) -> tuple[list[str], dict[str, str]]:
    if not importlib.util.find_spec("sglang"):
        raise LaunchError("SGLang is not installed: pip install 'sglang[all]' (it needs a GPU), or use backend llamacpp")
    cmd = [sys.executable, "-P", "-c", _SGLANG, "--model-path", model, "--served-model-name", model, "--host", _HOST]
    at_once = ["--max-running-requests", str(settings.parallel)] if settings.parallel else []
    return [*cmd, "--port", str(port), "--context-length", str(settings.context), *at_once, *settings.args], {}


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections in TIME_WAIT do not matter
        try:
            listener.bind((_HOST, port))
        except OSError:
            return False
        return True
