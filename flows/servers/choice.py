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
    """The server that a run uses.

    Attributes:
        kind: ``named`` by the user, ``kept`` by `ostinato server start`, or ``private``: started for the run.
        api_url: the URL of its API, ending in ``/api``; None for a private server, which is not started yet.
        source: where the choice was made, for messages.
    """

    kind: Literal["named", "kept", "private"]
    api_url: str | None
    source: str


def resolve() -> ServerChoice:
    """Choose the server that the user names, else the kept one, else a private one. Starts nothing.

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
    """Return the server of Prefect's active profile. It is read from its file, as importing Prefect takes more than a second."""
    default = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or default)
    try:
        content = tomllib.loads(file.read_text())
        name = os.environ.get("PREFECT_PROFILE") or content["active"]
        url = content["profiles"][name]["PREFECT_API_URL"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no profile names a server; Prefect itself reports a file that it cannot read
    return ServerChoice("named", str(url).rstrip("/"), f"Prefect's profile {name!r} ({file})")
