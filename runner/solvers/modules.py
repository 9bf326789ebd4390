"""Load a user's file with the files that it imports beside it. What is hashed is what is run: nothing is read twice.

Python's own import would leave ``__pycache__`` beside the user's files, could run an old one, and keeps one module of each name
in the process, although two programs may each have a ``helpers.py``. So the modules of a program live in a package of their own,
whose name holds the digest of all its files.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import hashlib
import importlib
import io
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType


def sources(file: Path) -> dict[str, bytes]:
    """Read a file of code, and those that it imports beside it, and those that these import.

    Imports are found in the text, wherever they stand; files that are imported by a name made at run time are not.

    Returns:
        The contents by path, relative to the file's folder; the file itself comes first.

    Raises:
        OSError: the file cannot be read.
    """
    folder, found = file.parent, {file.name: file.read_bytes()}
    queue = [file.name]
    while queue:
        name = queue.pop()
        for imported in _imports(found[name], name):
            for path in (f"{imported}.py", f"{imported}/__init__.py"):
                if path not in found and (folder / path).is_file():
                    found[path] = (folder / path).read_bytes()
                    queue.append(path)
    return found


def load(file: Path, files: Mapping[str, bytes], *, where: str) -> ModuleType:
    """Run a file of code, in which imports of `files` (of `sources`) work as if its folder were Python's first.

    ``print`` in these files writes to stderr, because stdout is the command's data, and masks secrets.

    Args:
        file: its path, for messages and tracebacks.
        files: its contents and those of the files beside it.
        where: the config key that names it, for messages.

    Raises:
        ConfigError: it cannot be run; the message names the line.
    """
    digest = hashlib.sha256(str(file).encode())
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    package = f"ostinato_program_{digest.hexdigest()[:16]}"
    if not any(isinstance(finder, _Finder) and finder.package == package for finder in sys.meta_path):
        sys.meta_path.append(_Finder(package, file.parent, files))
    try:
        return importlib.import_module(f"{package}.{file.stem}")
    except (Exception, SystemExit) as error:  # boundary: the user's code may raise anything
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
        line = line_in(error, file.parent)
        raise ConfigError(f"{where}: {file} cannot be run{line}: {type(error).__name__}: {redact(str(error))}") from error


def line_in(error: BaseException, folder: Path) -> str:
    """Return where in the user's files an error was raised, for a message."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        name = Path(trace.tb_frame.f_code.co_filename)
        if name.is_relative_to(folder):
            place = f" ({name.name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place


class _Finder(MetaPathFinder, Loader):
    """Find and run the modules of one program."""

    def __init__(self, package: str, folder: Path, files: Mapping[str, bytes]) -> None:
        self.package = package
        self._folder = folder
        self._files = dict(files)
        own = {name.partition("/")[0].removesuffix(".py") for name in files}
        self._builtins = {**vars(builtins), "__import__": _importer(package, own), "print": _print}

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        package, _, name = fullname.partition(".")
        if package != self.package:
            return None
        place = name.replace(".", "/")
        is_package = not name or any(file.startswith(f"{place}/") for file in self._files)
        if not is_package and f"{place}.py" not in self._files:
            return None
        return ModuleSpec(fullname, self, is_package=is_package)

    def exec_module(self, module: ModuleType) -> None:
        place = module.__name__.partition(".")[2].replace(".", "/")
        name = next((file for file in (f"{place}/__init__.py", f"{place}.py") if file in self._files), None)
        if name is None:  # the program's package, or a folder without __init__.py
            return
        module.__file__ = str(self._folder / name)
        module.__dict__["__builtins__"] = self._builtins
        exec(compile(self._files[name], module.__file__, "exec"), module.__dict__)  # noqa: S102 - the user's own file


def _importer(package: str, own: set[str]) -> Any:
    """Return an ``__import__`` that takes a program's own modules from its package."""

    def own_import(
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names of `__import__`
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        if level or name.partition(".")[0] not in own:
            return builtins.__import__(name, globals, locals, fromlist, level)
        if fromlist:
            return builtins.__import__(f"{package}.{name}", globals, locals, fromlist)
        importlib.import_module(f"{package}.{name}")
        return sys.modules[f"{package}.{name.partition('.')[0]}"]

    return own_import


def _print(*values: object, **options: Any) -> None:
    if options.get("file") is not None:
        print(*values, **options)  # noqa: T201 - the user's own
        return
    text = io.StringIO()
    flush = options.pop("flush", False)
    print(*values, **{**options, "file": text})  # noqa: T201
    sys.stderr.write(redact(text.getvalue()))
    if flush:
        sys.stderr.flush()


def _imports(content: bytes, name: str) -> Iterator[str]:
    """Yield the paths, without suffix, of modules that may be beside the file `name`, as far as it imports them by name."""
    with contextlib.suppress(SyntaxError, ValueError):  # reported when it is run
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield from _prefixes(alias.name.split("."))
            elif isinstance(node, ast.ImportFrom):
                above = name.split("/")[: -node.level] if node.level else []
                parts = [*above, *(node.module or "").split(".")] if node.module else above
                for alias in node.names:
                    yield from _prefixes([*parts, alias.name])


def _prefixes(parts: list[str]) -> Iterator[str]:
    if parts and parts[0] not in sys.stdlib_module_names:
        yield from ("/".join(parts[: count + 1]) for count in range(len(parts)))
