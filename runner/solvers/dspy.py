"""The dspy solver: a program of dspy answers a row, with its requests as steps of the sample."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError, DataError, SolverError
from runner.secrets import redact, redacted
from runner.solvers.python import failing, found_in, in_thread, located, module_of
from runner.solvers.solved import Bounds, Solved
from runner.system.paths import expanded
from runner.types import Choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.solvers.steps import Steps
    from runner.types import Row


class Dspy:
    """Answer a row by a program of dspy, which is made once and called with the columns that it takes, in a thread.

    Its LM is the run's, whatever LMs were saved with it.

    Args:
        module: ``path/to/file.py:Class``, or ``dspy:Class``.
        params: arguments of the class.
        program: a JSON file of the program's ``save``; None: as it is made.
        output: the field that is the answer; None: the last one.
        bounds: what it may take for a row.

    Raises:
        ConfigError: dspy is not installed, or there is no such class or file, or they do not fit.
    """

    is_code = True

    def __init__(
        self,
        module: str,
        params: Mapping[str, Any],
        program: str | None = None,
        output: str | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008 - it is immutable
    ) -> None:
        self.bounds = bounds
        self._bridge = _bridge()
        dspy = self._bridge.dspy
        if module.startswith("dspy:"):
            self._folder, made = expanded(".").absolute(), getattr(dspy, module.partition(":")[2], None)
        else:
            path, name = located(module, "solver.module")
            self._folder = path.parent
            made = found_in(module_of(path, "solver.module"), name, "solver.module", inspect.isclass)
        if not (inspect.isclass(made) and issubclass(made, dspy.Module)):
            raise ConfigError(f"solver.module: {module} is not a class of dspy programs (dspy.Module)")
        self._name = made.__name__
        self._program: Any
        try:
            with failing("it", self._folder):
                self._program = made(**params)
        except (SolverError, DataError) as error:
            raise ConfigError(f"solver.module: {module} cannot be made with {dict(params)}: {error}") from error
        if program is not None:
            self._load(program)
        for predictor in self._program.predictors():
            predictor.lm = None
        self._inputs = _inputs_of(self._program)
        self._output = output

    def _load(self, program: str) -> None:
        path = expanded(program)
        if path.suffix != ".json":
            raise ConfigError(
                f"solver.program: {program}: save the program as JSON, program.save('FILE.json'); pickles are not read"
            )
        try:
            state = msgspec.json.decode(path.read_bytes())
            for part in state.values():
                if isinstance(part, dict) and "lm" in part:
                    part["lm"] = None  # the run's is used
            with failing("it", self._folder):
                self._program.load_state(state)
        except (OSError, ValueError, AttributeError, SolverError) as error:
            raise ConfigError(f"solver.program: {program} cannot be loaded into {self._name}: {error}") from error

    async def solve(self, row: Row, steps: Steps) -> Solved:
        """Call the program. Raises as `Solver.solve`."""
        if missing := [name for name in self._inputs if name not in row.fields]:
            raise DataError(f"{self._name} takes {', '.join(self._inputs)}; the row has no column {missing[0]!r}")
        given = {name: row.fields[name] for name in self._inputs}
        with failing(f"the program {self._name}", self._folder):
            said = await in_thread(functools.partial(self._called, steps, given))
        return self._solved(said)

    def _called(self, steps: Steps, given: dict[str, Any]) -> Any:
        with self._bridge.dspy.context(lm=self._bridge.LM(steps.lm)):
            return self._program(**given)

    def _solved(self, said: Any) -> Solved:
        if not isinstance(said, self._bridge.dspy.Prediction):
            raise SolverError(f"the program {self._name} returned a {type(said).__name__}; it must return a dspy.Prediction")
        fields = {name: said[name] for name in said.keys()}  # noqa: SIM118 - a Prediction is not a dict
        name = self._output or next(reversed(fields), None)
        if name not in fields:
            told = f"no field {self._output!r}, but {', '.join(fields)}" if fields else "no field"
            raise SolverError(f"the program {self._name} returned {told}")
        try:
            plain = redacted(msgspec.json.decode(msgspec.json.encode(fields, enc_hook=_plain)))
        except (TypeError, ValueError) as error:
            raise SolverError(f"the program {self._name} returned what is not JSON data: {error}") from None
        answer = plain[name]
        text = answer if isinstance(answer, str) else msgspec.json.encode(answer).decode()
        return Solved(choices=[Choice(redact(text))], parsed=plain)


def _bridge() -> Any:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # dspy 2.6 imports litellm, which else fetches its price map
    try:
        return importlib.import_module("runner.dspy.lm")
    except ImportError as error:
        raise ConfigError(f"solver=dspy needs dspy: pip install dspy ({error})") from error


def _inputs_of(program: Any) -> list[str]:
    """Return the names that a program takes: of its `forward`, or, where that takes anything, of its first signature."""
    parameters = list(inspect.signature(type(program).forward).parameters.values())[1:]
    named = [
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.default is one.empty
    ]
    if named or not any(one.kind is one.VAR_KEYWORD for one in parameters):
        return named
    predictors = program.predictors()
    return list(predictors[0].signature.input_fields) if predictors else []


def _plain(value: Any) -> Any:
    """Return JSON data for a value of a field, such as a pydantic model."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"a {type(value).__name__}")
