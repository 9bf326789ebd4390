"""The python solver: a user's function answers a row, with an LM whose calls are steps of the sample."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ConfigError, DataError, LMError, SolverError
from runner.secrets import redact, redacted
from runner.solvers.modules import line_in, load, sources
from runner.solvers.solved import Bounds, Solved
from runner.solvers.steps import Ended
from runner.system.paths import expanded
from runner.types import Choice
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import ModuleType, TracebackType

    from runner.solvers.steps import Steps
    from runner.types import Row


class Python:
    """Answer a row by ``function(row, lm, **params)``: a text, or a dict or a list of JSON data.

    `row` has the row's columns, and `lm` is a `runner.LM`. An async function asks by ``await lm.acall(...)``; a plain one runs in
    a thread and asks by ``lm(...)``. It is given named models if it has a parameter `models` (a mapping), or one with the name
    of a model.

    Args:
        function: ``path/to/file.py:function``; a relative path starts at the working directory.
        params: further arguments.
        models: the names of the models that it may ask.
        bounds: what it may take for a row.

    Raises:
        ConfigError: there is no such file or function, the file cannot be run, or the arguments do not fit.
    """

    is_code = True

    def __init__(self, function: str, params: Mapping[str, Any], models: Iterable[str] = (), bounds: Bounds = Bounds()) -> None:  # noqa: B008 - it is immutable
        self.bounds = bounds
        path, name = located(function, "solver.function")
        found = found_in(module_of(path, "solver.function"), name, "solver.function", inspect.isfunction)
        self._use(found, name, path, params, tuple(models))

    def _use(
        self, function: Callable[..., Any], name: str, path: Path, params: Mapping[str, Any], models: tuple[str, ...] = ()
    ) -> None:
        """Answer by this function, which is in the file `path`. Raises ConfigError if the arguments do not fit."""
        self._path, self._name, self._function = path, name, function
        self._who, self._folder = f"the solver {name!r}", path.parent
        self._params = dict(params)
        self._by_name, self._as_mapping = self._taken(models)
        self._is_async = inspect.iscoroutinefunction(function)

    async def solve(self, row: Row, steps: Steps) -> Solved:
        """Call the function. Raises as `Solver.solve`."""
        given = self._given(steps) if steps.models else self._params
        with failing(self._who, self._folder):
            if self._is_async:
                value = await self._function(dict(row.fields), steps.lm, **given)
            else:
                value = await in_thread(functools.partial(self._function, dict(row.fields), steps.lm, **given))
        if not isinstance(value, str | dict | list):
            what = "nothing" if value is None else f"a {type(value).__name__}"
            raise SolverError(
                f"the solver {self._name!r} returned {what}; it must return a text, or a dict or a list of JSON data"
            )
        try:
            return answer_of(value, steps)
        except (TypeError, ValueError) as error:
            raise SolverError(f"the solver {self._name!r} returned what is not JSON data: {error}") from None

    def _given(self, steps: Steps) -> dict[str, Any]:
        """Return the arguments of one call, with the models."""
        given = {**self._params, **{name: steps.models[f"solver.{name}"] for name in self._by_name}}
        if self._as_mapping:
            given["models"] = {name.removeprefix("solver."): lm for name, lm in steps.models.items()}
        return given

    def _taken(self, models: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
        """Return which models the function takes by name, and whether it takes all as a mapping. Raises ConfigError."""
        signature = inspect.signature(self._function)
        by_name = tuple(name for name in models if name in signature.parameters)
        as_mapping = "models" in signature.parameters and bool(models)
        if unused := [name for name in models if name not in by_name and not as_mapping]:
            raise ConfigError(
                f"solver.models: {self._name!r} of {self._path} has no parameter {unused[0]!r}, and none named 'models'"
            )
        given = {**self._params, **dict.fromkeys(by_name), **({"models": None} if as_mapping else {})}
        try:
            signature.bind(None, None, **given)
        except TypeError as error:
            called = ", ".join(["row", "lm", *(f"{name}=..." for name in given)])
            raise ConfigError(
                f"solver.function: {self._name!r} of {self._path} cannot be called as {self._name}({called}): {error}"
            ) from None
        return by_name, as_mapping


def answer_of(value: Any, steps: Steps) -> Solved:
    """Return the answer that a program has given, without secrets: a text, or JSON data, which is its own parsed value.

    Raises:
        TypeError, ValueError: it is not JSON data.
    """
    if isinstance(value, str):
        last = steps.last
        if last is not None and last.text == value:
            return Solved(choices=[last])  # the model's own words, with its finish reason
        return Solved(choices=[Choice(redact(value))])
    plain = redacted(msgspec.json.decode(msgspec.json.encode(value)))
    return Solved(choices=[Choice(msgspec.json.encode(plain).decode())], parsed=plain)


def located(reference: str, key: str) -> tuple[Path, str]:
    """Return the path and the name in ``path/to/file.py:name``. Raises ConfigError if `reference` is of another form."""
    file, colon, name = reference.rpartition(":")
    if not colon or not name.isidentifier():
        raise ConfigError(f"{key}: {reference!r} is not of the form path/to/file.py:name")
    return expanded(file).absolute(), name


def module_of(path: Path, key: str) -> ModuleType:
    """Run a file of the user, with those that it imports beside it. Raises ConfigError."""
    try:
        files = sources(path)
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}") from error
    return load(path, files, where=key)


def found_in(module: ModuleType, name: str, key: str, kind: Callable[[Any], bool]) -> Any:
    """Return what a module calls `name`. Raises ConfigError if it has none, or one that cannot be called."""
    found = getattr(module, name, None)
    if not callable(found):
        names = [one for one, value in vars(module).items() if kind(value)]
        raise ConfigError(f"{key}: {module.__file__} has no {name!r}{suggest(name, names) or f'; it has {names}'}")
    return found


class failing:  # noqa: N801 - it reads as what it does: `with failing(...)`
    """Make an error of the row out of whatever the user's code raises; errors of requests stay what they are.

    Args:
        who: the code, as the error names it.
        folder: the folder of its files.

    Raises:
        SolverError: the user's code has failed.
    """

    __slots__ = ("_folder", "_process", "_who")

    def __init__(self, who: str, folder: Path) -> None:
        self._who, self._folder, self._process = who, folder, os.getpid()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() != self._process:  # it has forked, and this is the other process, which must not go on with the run
            os._exit(1)
        if error is None or isinstance(error, LMError | DataError | SolverError | asyncio.CancelledError):
            return
        if isinstance(error, Exception | SystemExit):  # boundary: the user's code may raise anything
            told = f"{type(error).__name__}: {redact(str(error))}"
            raise SolverError(f"{self._who} failed{line_in(error, self._folder)}: {told}") from error


async def in_thread(call: Callable[[], Any]) -> Any:
    """Call a plain function in a thread of its own, which does not keep the process alive if it never returns."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    ended: asyncio.Future[Any] = loop.create_future()
    process = os.getpid()

    def tell(result: Any, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)

    def run() -> None:
        result, failure = None, None
        try:
            result = context.run(call)
        except Ended:
            return
        except BaseException as error:  # noqa: BLE001 - boundary: raised again where the call is awaited
            failure = SolverError(f"it was ended by {type(error).__name__}") if _ends_loops(error) else error
        if os.getpid() != process:
            os._exit(1)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="solver", daemon=True).start()
    return await ended


def _ends_loops(error: BaseException) -> bool:
    """Return whether a future cannot carry this error, or would end the run by it."""
    return isinstance(error, StopIteration | KeyboardInterrupt | GeneratorExit | asyncio.CancelledError)
