"""The python scorer: a user's function, from a file whose hash is recorded."""

from __future__ import annotations

import inspect
import math
import traceback
from hashlib import sha256
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError, DataError
from runner.scoring.targets import Comparison
from runner.system.paths import expanded
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Python(Comparison):
    """The result of ``function(output, target, row)``: a bool or any finite number.

    `output` is the model's text, `target` the row's target (None without one), `row` the row's columns. The file is
    run once, here; what is hashed is what is run. It can import installed packages, but not the files beside it.

    Args:
        function: ``path/to/file.py:function``; a relative path starts at the working directory.

    Attributes:
        name: the function's name.
        file_sha256: SHA-256 (hex) of the file.

    Raises:
        ConfigError: there is no such file or function, or the file cannot be run.
    """

    def __init__(self, function: str) -> None:
        file, colon, self.name = function.rpartition(":")
        if not colon or not self.name.isidentifier():
            raise ConfigError(f"scoring.function: {function!r} is not of the form path/to/file.py:function")
        self._path = expanded(file)
        try:
            source = self._path.read_bytes()
        except OSError as error:
            raise ConfigError(f"scoring.function: {self._path} cannot be read: {error.strerror}") from error
        self.file_sha256 = sha256(source).hexdigest()
        self._function = self._load(source)

    def check(self, target: Any) -> None:
        """Accept any target: what the function does with it is its own business."""

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float:  # noqa: ARG002 - Scorer
        """Call the function.

        Raises:
            DataError: it raised an exception, or returned something other than a bool or a finite number.
        """
        try:
            value = self._function(output, target, fields)
        except Exception as error:  # boundary: the user's code may raise anything, and one row must not end the run
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise DataError(
                f"the scorer {self.name!r} failed at {where.filename}, line {where.lineno}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(value, Real) or not math.isfinite(value):
            raise DataError(f"the scorer {self.name!r} of {self._path} must return a bool or a finite number, not {value!r}")
        return float(value)

    def _load(self, source: bytes) -> Callable[[str, Any, Mapping[str, Any]], Any]:
        module = ModuleType(self._path.stem)
        module.__file__ = str(self._path)
        try:
            # Run, rather than imported: an import would leave a __pycache__ beside the user's file, and could run an old one.
            exec(compile(source, str(self._path), "exec"), module.__dict__)  # noqa: S102 - the user's own file, named by them
        except Exception as error:  # boundary: the user's code may raise anything
            raise ConfigError(f"scoring.function: {self._path} cannot be run: {type(error).__name__}: {error}") from error
        found: Callable[..., Any] | None = getattr(module, self.name, None)
        if not callable(found):
            names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            hint = suggest(self.name, names) or f"; its functions are {names}"
            raise ConfigError(f"scoring.function: {self._path} has no function {self.name!r}{hint}")
        if inspect.iscoroutinefunction(found):
            raise ConfigError(f"scoring.function: {self.name!r} of {self._path} is async; scorers are plain functions")
        return found
