"""The python scorer: a user's function, from a file whose hash is recorded. It may be async, and it may ask models."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
import time
import traceback
from collections.abc import Mapping
from hashlib import sha256
from numbers import Real
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from runner.errors import CacheError, ConfigError, DataError, LMError, OstinatoError
from runner.scoring.targets import Comparison, Verdict
from runner.system.paths import expanded
from runner.types import Judgement
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runner.scoring.targets import Asked, Models

_POSITIONAL = 3
"""The arguments that every function takes: output, target and row."""
_SLOW_S = 0.02
"""Seconds from which a call is slow: further ones are made in a thread, so that requests go on meanwhile."""
_PARTS = frozenset({"score", "label", "reason"})


class Python(Comparison):
    """The result of ``function(output, target, row)``: what it says of an answer.

    `output` is the model's text, `target` the row's target (None without one), `row` the row's columns. The file is
    run once, here; what is hashed is what is run. It can import installed packages, but not the files beside it.

    A function returns a bool or a finite number; a dict with ``score``, and ``label`` or ``reason``; or a dict of several scores
    by name, each in one of these forms. It may be async. It is given models if it has a parameter `models` (a mapping), or one
    with the name of a model: ``await judge.acall(prompt)`` in an async function, ``judge(prompt)`` in a plain one, which then
    runs in a thread. A plain function without models is called by one thread at a time.

    Args:
        function: ``path/to/file.py:function``; a relative path starts at the working directory.
        models: the names of the models that it may ask.
        prefix: what the run's names of these models begin with.

    Attributes:
        name: the function's name.
        file_sha256: SHA-256 (hex) of the file.

    Raises:
        ConfigError: there is no such file or function, the file cannot be run, or models and parameters do not fit.
    """

    timed = True

    def __init__(self, function: str, models: Iterable[str] = (), prefix: str = "") -> None:
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
        self._models = {name: f"{prefix or self.name}.{name}" for name in models}
        self._by_name, self._as_mapping = self._taken()
        self._is_async = inspect.iscoroutinefunction(self._function)
        self.asks = self._is_async or bool(self._models)
        self.blocks = False
        self._one_at_a_time = threading.Lock()

    @property
    def names(self) -> tuple[str, ...] | None:
        """Return None: what it returns says which scores there are."""
        return None

    def check(self, target: Any) -> None:
        """Accept any target: what the function does with it is its own business."""

    def score(self, output: str, target: Any, fields: Mapping[str, Any], parsed: Any) -> float | Verdict:  # noqa: ARG002 - Scorer
        """Call the function. A slow one is called in a thread from then on.

        Raises:
            DataError: it raised an exception, or returned something that is not a score.
        """
        since = time.perf_counter()
        with self._one_at_a_time:
            try:
                value = self._function(output, target, fields)
            except Exception as error:  # boundary: the user's code may raise anything, and one row must not end the run
                raise self._failed(error) from error
        if time.perf_counter() - since > _SLOW_S:
            self.blocks = True
        return self._read(value)

    async def judge(self, asked: Asked, models: Models) -> float | Verdict:
        """Call the function, with the models that it takes.

        Raises:
            DataError: as `score`.
            LMError, BudgetExceeded, CacheError: a model does not answer.
        """
        lent = {name: models(full) for name, full in self._models.items()}
        given = {name: lent[name] for name in self._by_name}
        if self._as_mapping:
            given["models"] = MappingProxyType(lent)
        arguments = asked.output, asked.row.target, asked.row.fields
        try:
            if self._is_async:
                value = await self._function(*arguments, **given)
            else:
                value = await asyncio.to_thread(self._function, *arguments, **given)
        except (LMError, CacheError):
            raise
        except OstinatoError as error:
            if isinstance(error, ConfigError | DataError):
                raise self._failed(error) from error
            raise
        except Exception as error:  # boundary: as in `score`
            raise self._failed(error) from error
        return self._read(value)

    def _taken(self) -> tuple[list[str], bool]:
        """Return the models that the function takes by their names, and whether it takes all of them as a mapping."""
        try:
            parameters = list(inspect.signature(self._function).parameters.values())[_POSITIONAL:]
        except ValueError:  # a function of C, which does not say what it takes
            parameters = []
        named = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        wanted = [one.name for one in parameters if one.name in named and one.default is one.empty]
        known = {*self._models, "models"} if self._models else set()
        if unknown := [name for name in wanted if name not in known]:
            models = ", ".join(self._models) or "none"
            raise ConfigError(
                f"scoring.function: {self.name!r} of {self._path} has a parameter {unknown[0]!r} that is not a model "
                f"(scoring.models: {models}); it is called with (output, target, row)"
            )
        by_name = [name for name in named if name in self._models]
        as_mapping = bool(self._models) and "models" in named and "models" not in self._models
        if self._models and not by_name and not as_mapping:
            raise ConfigError(
                f"scoring.models: {self.name!r} of {self._path} takes no models; give it a parameter 'models', or one named "
                f"{next(iter(self._models))!r}"
            )
        return by_name, as_mapping

    def _read(self, value: Any) -> float | Verdict:
        """Return what the function has returned, checked."""
        if not isinstance(value, Mapping):
            return self._number(value)
        if not value:
            raise DataError(f"the scorer {self.name!r} of {self._path} has returned an empty dict; it must hold scores")
        parts = {"": value} if "score" in value else value
        scores: dict[str, float] = {}
        judgements: dict[str, Judgement] = {}
        for name, part in parts.items():
            if not isinstance(name, str) or (name and not name.replace("_", "a").replace("-", "a").isalnum()):
                raise DataError(f"the scorer {self.name!r} of {self._path} names a score {name!r}; use letters, digits, - and _")
            if not isinstance(part, Mapping):
                scores[name] = self._number(part)
                continue
            if "score" not in part or (strange := sorted(map(str, part.keys() - _PARTS))):
                told = f"the key {strange[0]!r}" if "score" in part else "no key 'score'"
                raise DataError(f"the scorer {self.name!r} of {self._path} has returned a dict with {told}: {part!r:.200}")
            scores[name] = self._number(part["score"])
            label, reason = part.get("label"), part.get("reason")
            if label is not None or reason is not None:
                judgements[name] = Judgement(
                    label=None if label is None else str(label), reason=None if reason is None else str(reason)
                )
        return Verdict(scores, judgements or None)

    def _number(self, value: Any) -> float:
        if not isinstance(value, Real) or not math.isfinite(value):
            raise DataError(f"the scorer {self.name!r} of {self._path} must return a bool or a finite number, not {value!r}")
        return float(value)

    def _failed(self, error: Exception) -> DataError:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return DataError(
            f"the scorer {self.name!r} failed at {where.filename}, line {where.lineno}: {type(error).__name__}: {error}"
        )

    def _load(self, source: bytes) -> Callable[..., Any]:
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
        return found
