"""Servers that outlive the command that started them, for ``ostinato launch``, ``ps`` and ``kill``.

Each has a record, ``servers/<name>.json`` in `OSTINATO_HOME`, readable by this user only because it holds the server's key. A
record whose process is gone is ignored and deleted.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from runner.errors import LaunchError
from runner.servers import server
from runner.system import files, paths, processes

_VERSION = 1


class Kept(msgspec.Struct, frozen=True):
    """One kept server, as recorded.

    Attributes:
        name: the name that `kill` takes.
        model: the model that it was asked to serve.
        identity: the identity of its weights (see `server.identity`).
        settings: the settings it was started with, slots and threads as they were chosen.
        api_base: the base URL of requests.
        api_key: the key that it requires.
        pid: the process to signal.
        pid_started: when that process started (see `processes.process_started`).
        started_at: the same as a date and time, UTC.
        log: its log file.
        version: the version of this format.
    """

    name: str
    model: str
    identity: str
    settings: server.Settings
    api_base: str
    api_key: str
    pid: int
    pid_started: float
    started_at: datetime
    log: str
    version: int = _VERSION

    def __repr__(self) -> str:
        return f"Kept({self.name!r}, {self.api_base!r}, pid={self.pid})"

    def process(self) -> processes.Process:
        """Return the running process."""
        return processes.attach(self.pid, self.pid_started, Path(self.log))

    def server(self) -> server.Server:
        """Return the server, ready for use."""
        return server.Server(self.identity, self.settings, self.api_base, self.api_key, self.process())


def folder() -> Path:
    """Return the folder of the records: ``servers`` in `OSTINATO_HOME`."""
    return paths.home() / "servers"


def record_of(name: str) -> Path:
    """Return the file that records the kept server of this name."""
    return folder() / f"{name}.json"


def keep(model: str, settings: server.Settings) -> tuple[Kept, bool]:
    """Start a server that outlives this process, unless the same one is kept.

    Args:
        model: the model to serve (see `server.start`).
        settings: how to serve it.

    Returns:
        The kept server, and whether this call started it.

    Raises:
        ConfigError: no such weights.
        LaunchError: it cannot be started or recorded, or a server of this name with other settings is kept.
    """
    name = _name(model)
    try:
        paths.private(paths.home())
        paths.private(folder())
        with files.locked(_lock_of(name)):
            known = _read(record_of(name))
            if known is not None and known.process().alive():
                if _same(known, model, settings):
                    return known, False
                raise LaunchError(
                    f"{name} is already kept at {known.api_base} with other settings; end it first: `ostinato kill {name}`"
                )
            return _start(name, model, settings), True
    except OSError as error:
        raise LaunchError(f"cannot record a kept server in {folder()}: {error}; set OSTINATO_HOME to another folder") from error


def listed() -> list[Kept]:
    """Return the kept servers that are running, by name. Delete the records of those that are gone."""
    found = []
    for path in sorted(folder().glob("*.json")):
        known = _read(path)
        if known is not None and known.process().alive():
            found.append(known)
            continue
        with files.locked(_lock_of(path.stem), wait=False) as ours:
            if ours:  # else another process is starting or ending it, and owns its record
                _forget(path.stem)
    return found


def matching(identity: str, settings: server.Settings) -> Kept | None:
    """Find a kept server with the same weights that fits `settings`; its context may be larger and its speed different."""
    for known in listed():
        theirs = known.settings
        if (
            known.identity == identity
            and (theirs.backend, theirs.args) == (settings.backend, settings.args)
            and theirs.context >= settings.context
            and (not settings.port or known.api_base == f"http://127.0.0.1:{settings.port}/v1")
            and server.answers(known.api_base, known.api_key)
        ):
            return known
    return None


def kill(name: str) -> bool:
    """End the kept server of this name. Return whether there was one."""
    path = record_of(name)
    if path.parent != folder() or not path.is_file():
        return False
    with files.locked(_lock_of(name)):
        known = _read(path)
        running = known is not None and known.process().alive()
        if known is not None:
            known.process().stop()
        _forget(name)
    return running


def _start(name: str, model: str, settings: server.Settings) -> Kept:
    started = server.start(model, settings, folder=folder(), stem=name)
    process = started.process
    known = Kept(
        name=name,
        model=model,
        identity=started.identity,
        settings=started.settings,
        api_base=started.api_base,
        api_key=started.api_key,
        pid=process.pid,
        pid_started=process.started or 0.0,
        started_at=datetime.now(UTC).replace(microsecond=0),
        log=str(process.log),
    )
    try:
        files.write_private(record_of(name), msgspec.json.format(msgspec.json.encode(known)))
    except BaseException:
        process.stop()
        raise
    process.keep()  # last: until it is on record, it ends with this process
    return known


def _same(known: Kept, model: str, settings: server.Settings) -> bool:
    started = known.settings
    asked = msgspec.structs.replace(
        settings,
        timeout_s=started.timeout_s,
        port=settings.port or started.port,
        parallel=settings.parallel or started.parallel,
        threads=settings.threads or started.threads,
    )
    return started == asked and known.identity == server.identity(model, settings.backend)


def _name(model: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(model).stem if model.endswith(".gguf") else model).strip("._") or "server"


def _read(path: Path) -> Kept | None:
    try:
        known = msgspec.json.decode(path.read_bytes(), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return None
    return known if known.version == _VERSION else None


def _forget(name: str) -> None:
    for suffix in (".json", ".log", ".ready"):
        (folder() / f"{name}{suffix}").unlink(missing_ok=True)


def _lock_of(name: str) -> Path:
    """Return the file to lock while the server of this name is started or ended."""
    return folder() / f".{name}.lock"
