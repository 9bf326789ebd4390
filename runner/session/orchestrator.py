"""The orchestrators that ``execution.orchestrator`` names."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from runner.errors import OrchestratorError

Orchestrate = Callable[..., Coroutine[Any, Any, None]]
"""Run what is owed. Called with the run, sweep or pipeline and `notify`."""


def orchestrator(name: str, known: Mapping[str, str | None]) -> Orchestrate | None:
    """Load an orchestrator.

    Args:
        name: the value of ``execution.orchestrator``.
        known: where each orchestrator is found, as ``module:name``; None: it needs no code.

    Returns:
        The coroutine function; None where nothing is to be loaded.

    Raises:
        OrchestratorError: it is not installed.
    """
    target = known[name]
    if target is None:
        return None
    try:
        found: Orchestrate = pkgutil.resolve_name(target)
    except ImportError as error:
        raise OrchestratorError(
            f"execution.orchestrator={name} cannot be loaded ({error}); use execution.orchestrator=none"
        ) from None
    return found
