"""Find the files of this machine that an experiment needs, and give each a name that is right on every machine."""

from __future__ import annotations

import contextlib
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runner import build
from runner.adapters import conversation_of
from runner.config.schema.data import FileSource
from runner.data.remote import is_remote
from runner.data.several import matching
from runner.errors import ConfigError, DataError
from runner.experiment.files import is_program, named_files, renamed, runs_compared_with
from runner.solvers import sources
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runner.config.schema import RunConfig
    from runner.records import RunFolder

OWN = "_carried/"
"""The folder of what lies elsewhere on the machine that applies a schedule, and of what Ostinato adds."""

REFERENCE = f"{OWN}reference"
"""The run that a canary is compared with."""

_OF_RUN = ("config.yaml", "manifest.json", "samples.jsonl", "summary.json")
_CONF = "conf:"


class Carried(NamedTuple):
    """Files by their names as seen from the working directory, and the config that names them.

    Attributes:
        config: the config.
        files: their contents.
        programs: those that can be run.
        code: those that are code, whether they can be run or not.
    """

    config: RunConfig
    files: dict[str, bytes]
    programs: list[str]
    code: set[str]


def collected(config: RunConfig, reference: RunFolder | None = None) -> Carried:
    """Read the files that a config names, as seen from the working directory.

    Args:
        config: the experiment.
        reference: a run whose record is needed, too.

    Raises:
        ConfigError, DataError: a file cannot be read, or a row names one in a way that no other machine understands.
    """
    tree = _Tree()
    replace = msgspec.structs.replace
    named = {key: tree.add(path, key) for key, path in named_files(config)}
    for number, (key, run) in enumerate(runs_compared_with(config).items()):
        answers = build.other_answers(run, key, Path(config.runs_dir))
        named[key] = f"{OWN}answers-{number}.jsonl"
        tree.files[named[key]] = b"".join(msgspec.json.encode(one) + b"\n" for one in answers)
    found = renamed(config, named) if named else config
    if (attachments := _attached(config)) is not None:
        tree.hold(attachments.base, attachments.paths.values())
    if isinstance(config.data, FileSource):
        found = replace(found, data=replace(config.data, path=_data(tree, config.data.path)))
    if config.finetune is not None and (path := config.finetune.data.path):
        data = replace(config.finetune.data, path=_training(tree, path))
        found = replace(found, finetune=replace(config.finetune, data=data))
    if attachments is not None:
        base = tree.folder(attachments.base)
        for source, file in attachments.paths.items():
            name = os.path.normpath(f"{base}/{source}")
            _refuse_unfit(source, name, attachments.rows[source])
            tree.put(name, file, "data")
        if config.prompt.files is not None and not tree.keeps(config.prompt.files):
            found = replace(found, prompt=replace(found.prompt, files=base))
    for path in config.schedule.files:
        tree.add_all(path)
    for name in _OF_RUN if reference is not None else ():
        assert reference is not None
        with contextlib.suppress(FileNotFoundError):  # a run that was killed has no summary
            tree.files[f"{REFERENCE}/{name}"] = (reference.path / name).read_bytes()
    return Carried(found, tree.files, tree.programs, tree.code)


class _Tree:
    """Files by name. Those from outside the working directory are in folders of `OWN`, one for each folder that they lie in."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.programs: list[str] = []
        self.code: set[str] = set()
        self._cwd = Path.cwd()
        self._outside: dict[Path, str] = {}

    def add(self, path: str, key: str) -> str:
        """Read a file, and the Python files that it imports beside it. Returns the name by which the config finds it."""
        name, file = self.name(path), expanded(path)
        self.put(name, file, key)
        if is_program(key):
            self.code.add(name)
        if file.suffix == ".py":
            for beside, content in sources(file).items():
                imported = os.path.normpath(f"{Path(name).parent}/{beside}")
                self.files.setdefault(imported, content)
                self.code.add(imported)
        return path if self.keeps(path) else name

    def add_all(self, path: str) -> None:
        """Read a file or all files of a folder, except hidden ones."""
        where = self._absolute(path)
        if not self.keeps(path):
            raise ConfigError(f"schedule.files: {path} lies outside the working directory, so no code could find it by that name")
        if not where.exists():
            raise ConfigError(f"schedule.files: {path}: No such file or directory")
        for file in sorted(where.rglob("*")) if where.is_dir() else [where]:
            if file.is_file() and not any(part.startswith((".", "__pycache__")) for part in file.relative_to(self._cwd).parts):
                self.put(file.relative_to(self._cwd).as_posix(), file, "schedule.files")

    def put(self, name: str, file: Path, key: str) -> None:
        """Read a file under a name. Two files of one name are refused."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{key}: {file}: {error.strerror}") from None
        if self.files.setdefault(name, content) != content:
            raise ConfigError(f"{key}: {file} would be carried as {name}, as another file is; give one of them another name")
        if os.access(file, os.X_OK) and name not in self.programs:
            self.programs.append(name)
        if name.endswith(".py") or name in self.programs:
            self.code.add(name)

    def name(self, path: str) -> str:
        """Return the name of a file."""
        where = self._absolute(path)
        return f"{self.folder(where.parent)}/{where.name}".removeprefix("./")

    def folder(self, path: str | Path) -> str:
        """Return the name of a folder."""
        where = self._absolute(path)
        if where.is_relative_to(self._cwd):
            return where.relative_to(self._cwd).as_posix()
        return self._outside.setdefault(where, f"{OWN}{len(self._outside)}")

    def hold(self, folder: Path, files: Iterable[Path]) -> None:
        """Name a folder from elsewhere so that files which rows name from there (``../a.png``) lie beneath `OWN`, too."""
        where = self._absolute(folder)
        root = Path(os.path.commonpath([where, *map(self._absolute, files)]))
        if root != where and not where.is_relative_to(self._cwd):
            self._outside[where] = f"{self.folder(root)}/{where.relative_to(root).as_posix()}"

    def keeps(self, path: str) -> bool:
        """Return whether a path is right on every machine as it stands."""
        plain = not expanded(path).is_absolute() and ".." not in Path(path).parts
        return plain and self._absolute(path).is_relative_to(self._cwd)

    def _absolute(self, path: str | Path) -> Path:
        return Path(os.path.normpath(self._cwd / expanded(str(path))))


def _data(tree: _Tree, path: str | list[str]) -> str | list[str]:
    """Read the data files of this machine. Returns their names; remote ones stay, and are fetched at each turn."""
    found: list[str] = []
    for one in [path] if isinstance(path, str) else path:
        if is_remote(one):
            found.append(one)
            continue
        files = matching(one)
        names = [tree.add(file, "data.path") for file in files]
        found += [one] if all(map(tree.keeps, files)) else names
    return found[0] if isinstance(path, str) and len(found) == 1 else found


def _training(tree: _Tree, path: str) -> str:
    """Read training rows of this machine. Those that are shipped with Ostinato stay where they are."""
    if not path.startswith(_CONF):
        return tree.add(path, "finetune.data.path")
    own = f"conf/{path.removeprefix(_CONF)}"
    if Path(own).is_file():
        tree.add(own, "finetune.data.path")
    return path


class _Attached(NamedTuple):
    """The folder that attachments are named from, the files by their names in the rows, and the id of a row that has the name."""

    base: Path
    paths: Mapping[str, Path]
    rows: Mapping[str, str]


def _attached(config: RunConfig) -> _Attached | None:
    """Fill in the prompt of every row, and return the files of this machine that are attached; None if there are none."""
    adapter = build.adapter(config)
    if (conversation := conversation_of(adapter)) is None:
        return None
    attachments, rows = conversation.attachments, dict[str, str]()
    for row in build.dataset(config):
        with contextlib.suppress(DataError):  # said when the row is asked
            adapter.format(row)
        rows |= dict.fromkeys(islice(reversed(attachments.paths), len(attachments.paths) - len(rows)), row.id)
    return _Attached(attachments.base, attachments.paths, rows) if rows else None


def _refuse_unfit(source: str, name: str, row: str) -> None:
    """Refuse a file that would have no place beneath the working directory of a turn."""
    if expanded(source).is_absolute():
        raise DataError(
            f"row {row} attaches {source}, a path of this machine: a schedule cannot carry it; give it as seen from prompt.files"
        )
    if name.startswith("../"):
        raise DataError(
            f"row {row} attaches {source}, which lies outside the working directory: a schedule cannot carry it; "
            "move it beneath that directory, or apply the schedule in one that holds it, too"
        )
