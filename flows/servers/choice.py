"""Decide which Prefect server a run uses."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.servers import kept


@dataclass(frozen=True)
class ServerChoice:
    """The server a run is to use.

    Attributes:
        kind: ``named`` by the user, ``kept`` by `ostinato server start`, or ``private``: to be started for the run.
        api_url: the API's address, ending in ``/api``; None for a private server, which has none yet.
        source: where the choice comes from, for messages.
    """

    kind: Literal["named", "kept", "private"]
    api_url: str | None
    source: str


def resolve() -> ServerChoice:
    """Decide which server to use: the one the user names, else the kept one, else a private one. Starts nothing.

    Raises:
        OrchestratorError: the kept server is running but does not answer.
    """
    if url := os.environ.get("PREFECT_API_URL"):
        return ServerChoice("named", url.rstrip("/"), "the environment variable PREFECT_API_URL")
    if choice := _from_profile():
        return choice
    if server := kept.running():
        return ServerChoice("kept", server.api_url, "`ostinato server start`")
    return ServerChoice("private", None, "a private server for the time of the run")


def _from_profile() -> ServerChoice | None:
    """The server that Prefect's active profile names. Read from its file, as importing Prefect costs more than a second."""
    default = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or default)
    try:
        content = tomllib.loads(file.read_text())
        name = os.environ.get("PREFECT_PROFILE") or content["active"]
        url = content["profiles"][name]["PREFECT_API_URL"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no profile names a server; Prefect itself complains about a file it cannot read
    return ServerChoice("named", str(url).rstrip("/"), f"Prefect's profile {name!r} ({file})")
