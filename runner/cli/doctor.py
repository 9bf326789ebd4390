"""Run `ostinato doctor`: check versions, weights, ports, keys (by name only), Prefect and cache of this machine."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from runner.cli.options import add_json
from runner.errors import CacheError, OstinatoError
from runner.network.client import request
from runner.secrets import redact
from runner.system.paths import home, private, shipped_conf

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "AZURE_API_KEY", "MISTRAL_API_KEY", "GROQ_API_KEY",
    "TOGETHERAI_API_KEY", "OPENROUTER_API_KEY", "HF_TOKEN",
)  # fmt: skip
PREFECT_UI_PORT = 4200
ENOUGH_DISK = 10**9
_NAME = re.compile(r"^name: *([^\s#]+)", re.MULTILINE)


class Check(msgspec.Struct, frozen=True):
    """Hold the result of one check: `state` is ``ok``, ``note`` (worth knowing, not wrong) or ``problem``."""

    name: str
    state: Literal["ok", "note", "problem"]
    detail: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.description = "Check this machine and list what is missing. Names of keys are shown, never their values."
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Check. Return 0, or 1 if there is a problem."""
    checks = [*_versions(), _conf(), _home(), _cache(), *_weights(), *_models(), _keys(), _port(), _prefect()]
    if args.json:
        print(json.dumps({"checks": msgspec.to_builtins(checks)}))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{check.state:<8}{check.name:<{width}}  {check.detail}")
    return 1 if any(check.state == "problem" for check in checks) else 0


def _versions() -> Iterator[Check]:
    from runner.records.environment import environment

    found = environment()
    yield Check("python", "ok", f"{found['python']}, {found['cpus']} cores, {found['os']}")
    yield Check("packages", "ok", ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    if found["packages"].get("litellm") in ("1.82.7", "1.82.8"):
        yield Check("litellm", "problem", "this version was a malicious upload: reinstall, and change every key it could see")


def _conf() -> Check:
    folder = shipped_conf()
    there = (folder / "config.yaml").is_file()
    return Check(
        "configs", "ok" if there else "problem", str(folder) if there else f"{folder} does not exist; reinstall ostinato"
    )


def _home() -> Check:
    folder = home()
    try:
        free = shutil.disk_usage(private(folder)).free
    except OSError as error:
        return Check("home", "problem", f"{folder}: {error.strerror}; set OSTINATO_HOME to a folder you can write")
    room = f"{free / 1e9:.0f} GB free"
    if not os.access(folder, os.W_OK):
        return Check("home", "problem", f"{folder} cannot be written; set OSTINATO_HOME")
    return Check("home", "ok" if free > ENOUGH_DISK else "problem", f"{folder}, {room}")


def _cache() -> Check:
    from runner.cache import Cache

    cache = Cache(home() / "cache")
    try:
        if problems := cache.check():
            return Check("cache", "problem", f"{cache.folder}: {problems[0]}; `ostinato cache clear --yes` empties it")
        stats = cache.stats()
    except CacheError as error:
        return Check("cache", "problem", str(error))
    finally:
        cache.close()
    return Check("cache", "ok", f"{stats['entries']:,} answers, {stats['bytes'] / 1e6:.0f} MB")


def _weights() -> Iterator[Check]:
    from runner.models import weights
    from runner.servers import server

    if find_spec("xllamacpp") is None:
        yield Check("llama.cpp", "note", "not installed; models of this machine need it: pip install 'ostinato[local]'")
    else:
        yield Check("llama.cpp", "ok", server.chosen())
    for name in weights.REGISTERED:
        try:
            path = weights.find(name)
        except OstinatoError as error:
            yield Check(f"weights {name}", "problem", str(error))
            continue
        detail = str(path) if path else f"not here yet; fetched on first use, or now: ostinato models pull {name}"
        yield Check(f"weights {name}", "ok" if path else "note", detail)


def _models() -> Iterator[Check]:
    """Check the models that the options of the group `model` name, shipped ones and those of ./conf."""
    from runner.lm.capabilities import ending

    for folder in (Path("conf"), shipped_conf()):
        for file in sorted(folder.glob("model/*.yaml")):
            named = _NAME.search(file.read_text("utf-8", errors="replace"))
            if named and (ends := ending(named[1])):
                yield Check(f"model {file.stem}", "note", f"{file}: {ends}")


def _keys() -> Check:
    present = [name for name in KEYS if os.environ.get(name)]
    return Check("keys", "ok" if present else "note", ", ".join(present) or "none set; models of this machine need none")


def _port() -> Check:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", PREFECT_UI_PORT)) == 0
    return Check("ports", "ok", f"127.0.0.1:{PREFECT_UI_PORT} (Prefect's UI) is {'in use' if taken else 'free'}")


def _prefect() -> Check:
    try:
        choice = pkgutil.resolve_name("flows.servers.choice:resolve")()
    except ImportError as error:
        return Check("prefect", "note", f"not here ({error}); use execution.orchestrator=none")
    except OstinatoError as error:
        return Check("prefect", "problem", str(error))
    if choice.api_url is None:
        return Check("prefect", "ok", "no server is running or named: each run starts its own (or: ostinato server start)")
    where = f"{redact(choice.api_url)}, from {choice.source}"
    try:
        reply = request("GET", f"{choice.api_url}/health", timeout_s=5, limit=0)
    except (OSError, ValueError) as error:
        problem = str(error)
    else:
        if reply.ok:
            return Check("prefect", "ok", f"answers at {where}")
        problem = f"HTTP {reply.status} {reply.reason}".rstrip()
    return Check("prefect", "problem", f"does not answer at {where} ({problem}); start it, unset it, or use orchestrator=none")
