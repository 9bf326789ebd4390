"""The files that a config names besides its data: their paths, their digests, and the text that may be recorded."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner import build
from runner.config.schema.data import FileSource
from runner.config.schema.judging import Judging, PanelScoring
from runner.config.schema.request import CODE
from runner.config.schema.scored import Scored
from runner.config.schema.scoring import PythonScoring, SeveralScoring
from runner.config.schema.solver import CommandSolver, DspySolver, PythonSolver
from runner.data.remote import is_remote, pinned
from runner.errors import ConfigError
from runner.secrets import is_secret, redact
from runner.solvers.argv import files_in, is_path
from runner.system.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.config.schema import RunConfig
    from runner.config.schema.solver import Solver

_CODE = ("tools", "tool_results")
"""Fields of `prompt` that may name a Python file."""
MAX_TEXT = 64 * 2**10
"""Largest file, in bytes, whose text is kept in the manifest."""

SOLVER = "solver.function"
"""The key of the file that holds a program."""

ARGV = "solver.argv."
"""The beginning of the keys of a command's files; their place in it follows."""

SOLVER_FILES = "solver/"
"""The beginning of the keys of a program's files: the file itself, and those that it imports beside it."""

_ASSIGNED = re.compile(r"""(?P<head>(?P<name>[A-Za-z_][\w.-]*)["']?\s*(?::\s*\w+\s*)?[:=]\s*["'])(?P<value>[^"'\n]+)""")


def digests_of(config: RunConfig) -> dict[str, str]:
    """Return the SHA-256 of each file that the config names besides its data, by key. Raises ConfigError if one is unreadable."""
    return {key: digest(content) for key, content in contents_of(config).items()}


def rooted(config: RunConfig, manifest: dict[str, Any]) -> RunConfig:
    """Return `config` with absolute paths, as seen from the folder in which the run began, and the remote data that it read."""
    cwd = Path(manifest.get("cwd", "."))
    replace = msgspec.structs.replace
    if isinstance(config.data, FileSource):
        path = config.data.path
        there = [_rooted(one, cwd) for one in ([path] if isinstance(path, str) else path)]
        if (kept := manifest.get("data", {}).get("fetched")) and all(map(is_remote, there)):
            there = [pinned(one["url"], one["sha256"]) for one in kept]
        config = replace(config, data=replace(config.data, path=there[0] if isinstance(path, str) and len(there) == 1 else there))
    if (server := config.prompt.tool_server) is not None:
        server = replace(server, cwd=str(cwd / expanded(server.cwd or ".")))
        config = replace(config, prompt=replace(config.prompt, tool_server=server))
    if config.prompt.files is not None:
        config = replace(config, prompt=replace(config.prompt, files=str(cwd / expanded(config.prompt.files))))
    elif config.prompt.messages is not None and not isinstance(config.data, FileSource):
        config = replace(config, prompt=replace(config.prompt, files=str(cwd)))
    if isinstance(config.solver, CommandSolver):
        config = replace(config, solver=replace(config.solver, argv=_rooted_argv(config.solver.argv, cwd)))
    return renamed(config, {key: str(cwd / expanded(path)) for key, path in named_files(config)})


def _rooted(path: str, cwd: Path) -> str:
    return path if is_remote(path) else str(cwd / expanded(path))


def _rooted_argv(argv: list[str], cwd: Path) -> list[str]:
    """Return a command with absolute paths for its files, and for a program that is named by its path."""
    files = files_in(argv, cwd)
    return [
        str(cwd / expanded(part)) if number in files or (number == 0 and is_path(part)) else part
        for number, part in enumerate(argv)
    ]


def renamed(config: RunConfig, named: dict[str, str]) -> RunConfig:
    """Return `config` with other paths for its files, by the keys of `named_files`."""
    replace = msgspec.structs.replace
    prompts = {key.partition(".")[2]: name for key, name in named.items() if key.startswith("prompt.")}
    for key in prompts.keys() & set(_CODE):
        _, colon, functions = str(getattr(config.prompt, key)).partition(".py:")
        prompts[key] += f":{functions}" * bool(colon)
    if prompts:
        config = replace(config, prompt=replace(config.prompt, **prompts))
    if "scoring.calibration" in named:
        config = replace(config, scoring=replace(config.scoring, calibration=named["scoring.calibration"]))
    if isinstance(config.solver, PythonSolver):
        function = f"{named[SOLVER]}:{config.solver.function.rpartition(':')[2]}"
        config = replace(config, solver=replace(config.solver, function=function))
    elif isinstance(config.solver, DspySolver):
        config = replace(config, solver=_renamed_dspy(config.solver, named))
    elif isinstance(config.solver, CommandSolver):
        argv = [named.get(f"{ARGV}{number}", part) for number, part in enumerate(config.solver.argv)]
        config = replace(config, solver=replace(config.solver, argv=argv))
    scoring = config.scoring
    if isinstance(scoring, SeveralScoring):
        scorers = {name: _renamed(one, f"scoring.scorers.{name}", named) for name, one in scoring.scorers.items()}
        return replace(config, scoring=replace(scoring, scorers=scorers))
    return replace(config, scoring=_renamed(scoring, "scoring", named))


def _renamed_dspy(solver: DspySolver, named: dict[str, str]) -> DspySolver:
    if SOLVER in named:
        solver = msgspec.structs.replace(solver, module=f"{named[SOLVER]}:{solver.module.rpartition(':')[2]}")
    return msgspec.structs.replace(solver, program=named.get("solver.program"))


def _renamed(scorer: Any, key: str, named: dict[str, str]) -> Any:
    """Return a scorer with other paths for its files."""
    replace = msgspec.structs.replace
    if isinstance(scorer, PythonScoring):
        return replace(scorer, function=f"{named[f'{key}.function']}:{scorer.function.rpartition(':')[2]}")
    if isinstance(scorer, Judging):
        names = (name for name in ("rubric_file", "against") if f"{key}.{name}" in named)
        return replace(scorer, **{name: named[f"{key}.{name}"] for name in names})
    if isinstance(scorer, PanelScoring):
        judges = {name: _renamed(one, f"{key}.judges.{name}", named) for name, one in scorer.judges.items()}
        return replace(scorer, judges=judges)
    return scorer


def named_files(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield the files that the config names besides its data: key and path."""
    scoring = config.scoring
    for key in ("system_file", "user_file"):
        if path := getattr(config.prompt, key):
            yield f"prompt.{key}", path
    if isinstance(scoring, Scored) and scoring.calibration:
        yield "scoring.calibration", scoring.calibration
    for key in _CODE:
        place = getattr(config.prompt, key)
        if isinstance(place, str) and CODE.fullmatch(place):
            yield f"prompt.{key}", place.partition(".py:")[0].removesuffix(".py") + ".py"
    yield from _files_of_solver(config.solver)
    if isinstance(scoring, SeveralScoring):
        for name, scorer in scoring.scorers.items():
            yield from _files_of(scorer, f"scoring.scorers.{name}")
    else:
        yield from _files_of(scoring, "scoring")


def _files_of_solver(solver: Solver) -> Iterator[tuple[str, str]]:
    """Yield the files that a solver names."""
    if isinstance(solver, PythonSolver):
        yield SOLVER, solver.function.rpartition(":")[0]
    elif isinstance(solver, DspySolver):
        if not solver.module.startswith("dspy:"):
            yield SOLVER, solver.module.rpartition(":")[0]
        if solver.program is not None:
            yield "solver.program", solver.program
    elif isinstance(solver, CommandSolver):
        for number in files_in(solver.argv, Path()):
            yield f"{ARGV}{number}", solver.argv[number]


def _files_of(scorer: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield the files that a scorer names."""
    if isinstance(scorer, PythonScoring):
        yield f"{key}.function", scorer.function.rpartition(":")[0]
    elif isinstance(scorer, Judging):
        if scorer.rubric_file is not None:
            yield f"{key}.rubric_file", scorer.rubric_file
        against = getattr(scorer, "against", None)
        if against is not None and build.is_file_of_answers(against):
            yield f"{key}.against", against
    elif isinstance(scorer, PanelScoring):
        for name, judge in scorer.judges.items():
            yield from _files_of(judge, f"{key}.judges.{name}")


def contents_of(config: RunConfig) -> dict[str, bytes]:
    """Read the files that the config names, by key, and those that a program imports. Raises ConfigError if one is unreadable."""
    found: dict[str, bytes] = {}
    for key, path in named_files(config):
        try:
            if is_program(key):
                found |= {f"{SOLVER_FILES}{name}": content for name, content in program_of(key, path).items()}
            else:
                found[key] = expanded(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    return found


def is_program(key: str) -> bool:
    """Return whether a key of `named_files` is that of a program's file."""
    return key == SOLVER or key.startswith(ARGV)


def program_of(key: str, path: str) -> dict[str, bytes]:
    """Read a file of a program, and those that it imports beside it, by name; the file itself comes first. Raises OSError.

    The names begin with a folder of their own for each file of a command.
    """
    from runner.solvers import sources

    file = expanded(path)
    found = sources(file) if file.suffix == ".py" or key == SOLVER else {file.name: file.read_bytes()}
    folder = f"argv{key.removeprefix(ARGV)}/" if key.startswith(ARGV) else ""
    return {f"{folder}{name}": content for name, content in found.items()}


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(content).hexdigest()


def kept_text(content: bytes) -> str | None:
    """Return the text of a file with secrets removed; None if it is too long or not UTF-8."""
    if len(content) > MAX_TEXT:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return redact(
        _ASSIGNED.sub(lambda found: f"{found['head']}***" if is_secret(found["name"], found["value"]) else found[0], text)
    )


def holds_secret_code(content: bytes) -> bool:
    """Return whether code assigns a literal secret to a name, such as ``api_token = "..."``."""
    return any(is_secret(found["name"], found["value"]) for found in _ASSIGNED.finditer(content.decode(errors="replace")))


def runs_compared_with(config: RunConfig) -> dict[str, str]:
    """Return the runs whose answers scorers compare with, by key."""
    scoring = config.scoring
    scorers = scoring.scorers if isinstance(scoring, SeveralScoring) else {"": scoring}
    named = {f"scoring.scorers.{name}.against" if name else "scoring.against": one for name, one in scorers.items()}
    found = {key: getattr(one, "against", None) for key, one in named.items()}
    return {key: run for key, run in found.items() if run is not None and not build.is_file_of_answers(run)}
