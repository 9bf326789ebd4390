"""Build the solver from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import solvers
from runner.config import schema

if TYPE_CHECKING:
    from runner.solvers import Solver


def solver(config: schema.RunConfig) -> Solver | None:
    """Build the solver; None is the plain one, which fills in the prompt and asks once. Runs the user's file.

    Raises:
        ConfigError: the file or the function does not exist, cannot be run, or does not take its arguments.
    """
    match config.solver:
        case schema.solver.PythonSolver() as chosen:
            bounds = solvers.Bounds(chosen.max_requests, config.limits.deadline_s)
            return solvers.Python(chosen.function, chosen.params, chosen.models, bounds)
        case schema.solver.DspySolver() as chosen:
            bounds = solvers.Bounds(chosen.max_requests, config.limits.deadline_s)
            return solvers.Dspy(chosen.module, chosen.params, chosen.program, chosen.output, bounds)
        case schema.solver.CommandSolver() as chosen:
            bounds = solvers.Bounds(chosen.max_requests, config.limits.deadline_s)
            return solvers.Command(chosen.argv, chosen.timeout_s, bounds)
        case schema.solver.PluginSolver() as chosen:
            bounds = solvers.Bounds(chosen.max_requests, config.limits.deadline_s)
            return solvers.Plugin(chosen.name, chosen.params, bounds)
        case _:
            return None
