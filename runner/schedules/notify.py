"""Report a failure to a command or a webhook. Return the errors of those that could not be reached."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.network.client import request
from runner.secrets import from_env, redact

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S = 30.0


def notify(payload: dict[str, Any], *, command: Sequence[str] = (), webhook_env: str | None = None) -> list[str]:
    """Send `payload`, as one JSON object, to the command and the webhook that are named.

    Args:
        payload: plain JSON data.
        command: a program and its arguments, started in this folder without a shell. It reads the object from stdin.
        webhook_env: the environment variable that holds the http(s) URL to which the object is posted.

    Returns:
        One line per recipient that could not be notified, without secrets.
    """
    body = redact(json.dumps(payload)).encode()
    problems = []
    if command and (problem := _run(command, body)):
        problems.append(f"the command {command[0]} was not notified: {problem}")
    if webhook_env and (problem := _post(webhook_env, body)):
        problems.append(f"the webhook in {webhook_env} was not notified: {problem}")
    return [redact(problem) for problem in problems]


def _run(command: Sequence[str], body: bytes) -> str | None:
    try:
        done = subprocess.run(command, input=body, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it did not end within {TIMEOUT_S:.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"it ended with {done.returncode}: {said[-1] if said else ''}".rstrip(": ") if done.returncode else None


def _post(webhook_env: str, body: bytes) -> str | None:
    try:
        url = from_env(webhook_env, where="schedule.notify.webhook_env")
    except ConfigError as error:
        return str(error)
    if not url.startswith(("http://", "https://")):
        return "it is not an http:// or https:// URL"
    headers = {"Content-Type": "application/json", "User-Agent": "ostinato"}
    try:
        reply = request("POST", url, headers=headers, body=body, timeout_s=TIMEOUT_S, limit=0)
    except (OSError, ValueError) as error:  # ValueError: a malformed URL
        return f"{type(error).__name__}: {error}"
    return None if reply.ok else f"HTTP {reply.status} {reply.reason}".rstrip()
