"""Carry an experiment to whatever machine plays it: its config, and the files that it names, under their own names.

What travels is a capsule without answers. Its ``tree`` says which file has which name, seen from the working directory, so that a
turn finds everything where the config says. Files from outside that directory are carried in a folder of their own, and
the config that travels names them there.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runner.errors import ConfigError, RecordError, ScheduleError
from runner.experiment.files import holds_secret_code
from runner.reproduction import capsule
from runner.schedules.collect import OWN, collected
from runner.secrets import holds_secret
from runner.system.paths import home, private

if TYPE_CHECKING:
    from runner.config.schema import RunConfig
    from runner.records import RunFolder

FORMAT = 1
"""Version of what `Facts` says."""

_DRAFT = ".unpacking-"
_STALE_S = 86_400
"""Age, in seconds, after which what a killed process left is removed."""

_CONFIG, _DIGESTS = f"{OWN}config.yaml", f"{OWN}digests.json"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that the capsule tells of itself.

    Attributes:
        schedule: format of this.
        ostinato: the version that packed it.
        tree: the name of each file, seen from the working directory, and its name in the capsule.
        programs: names of files that can be run.
    """

    schedule: int
    ostinato: str
    tree: dict[str, str]
    programs: list[str] = []


class Content(NamedTuple):
    """Content that a schedule carries.

    Attributes:
        config: the config that travels.
        packed: the capsule.
        sha256: of the capsule, in hex.
        sizes: how many bytes each file has, by its name.
    """

    config: RunConfig
    packed: bytes
    sha256: str
    sizes: dict[str, int]

    def largest(self, count: int = 3) -> str:
        """Name the largest files, for messages."""
        found = sorted(self.sizes.items(), key=lambda pair: -pair[1])[:count]
        return ", ".join(f"{name} ({size:,} bytes)" for name, size in found)


def pack(config: RunConfig, *, reference: RunFolder | None = None) -> Content:
    """Pack a config and its files, as seen from the working directory. The same content makes the same bytes.

    Args:
        config: the experiment, with its name.
        reference: the run that a canary is compared with; it is carried, too.

    Raises:
        ConfigError, DataError: a file cannot be read, holds what looks like a secret, or has a name that cannot be carried.
    """
    from runner.config.compose import to_yaml

    carried = collected(config, reference)
    files = {
        "config.yaml": to_yaml(carried.config).encode(),
        **{f"files/{n}.txt": one for n, one in enumerate(carried.files.values())},
    }
    for name, content in {"the config": files["config.yaml"], **carried.files}.items():
        _refuse_secrets(name, content, code=name in carried.code)
    facts = Facts(
        schedule=FORMAT,
        ostinato=version("ostinato"),
        tree={name: f"files/{n}.txt" for n, name in enumerate(carried.files)},
        programs=carried.programs,
    )
    with tempfile.TemporaryDirectory(prefix="ostinato-") as place:
        folder = Path(place)
        (folder / "files").mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        try:
            digest = capsule.write(folder, [*files], folder / "content.ostinato", msgspec.to_builtins(facts))
        except RecordError as error:
            raise ConfigError(f"the schedule cannot carry its files: {error}") from None
        packed = (folder / "content.ostinato").read_bytes()
    sizes = {name: len(content) for name, content in carried.files.items()}
    return Content(config=carried.config, packed=packed, sha256=digest, sizes=sizes)


def place_of(sha256: str) -> Path:
    """Return where this machine keeps a content unpacked."""
    return home() / "schedules" / "contents" / sha256[:32]


def config_in(folder: Path) -> Path:
    """Return the config of an unpacked content."""
    return folder / _CONFIG


def is_here(sha256: str) -> bool:
    """Return whether this machine has a content, and no file of it was changed."""
    folder = place_of(sha256)
    try:
        known = msgspec.json.decode((folder / _DIGESTS).read_bytes(), type=dict[str, str])
        return all(_digest((folder / name).read_bytes()) == digest for name, digest in known.items())
    except (OSError, msgspec.MsgspecError):
        return False


def unpack(packed: bytes, sha256: str) -> Path:
    """Unpack a content for the turns of this machine. It is there whole or not at all.

    Raises:
        ScheduleError: it is not the content of that digest, is damaged, or cannot be written.
    """
    if _digest(packed) != sha256:
        raise ScheduleError(
            f"what the schedule carries is not what was applied (SHA-256 {_digest(packed)[:12]}, not {sha256[:12]})"
        )
    target = place_of(sha256)
    try:
        private(target.parent)
        for old in target.parent.glob(f"{_DRAFT}*"):
            with contextlib.suppress(FileNotFoundError):  # another turn has removed it, just now
                if old.stat().st_mtime < time.time() - _STALE_S:
                    shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=target.parent) as place:
            file = Path(place, "content.ostinato")
            file.write_bytes(packed)
            draft = Path(place, "draft")
            _spread(file, draft)
            if target.exists() and not is_here(sha256):
                _set_aside(target)
            try:
                draft.rename(target)
            except OSError:
                if not is_here(sha256):  # by another turn, just now
                    raise
    except RecordError as error:
        raise ScheduleError(f"what the schedule carries cannot be used: {error}") from None
    except OSError as error:
        raise ScheduleError(f"what the schedule carries cannot be written to {target}: {error.strerror}") from None
    return target


def _set_aside(target: Path) -> None:
    """Move a changed folder away. The turn that changed it may still run in it, so it is not deleted before it is stale."""
    aside = tempfile.mkdtemp(prefix=_DRAFT, dir=target.parent)
    with contextlib.suppress(FileNotFoundError):  # another turn has moved it, just now
        target.rename(Path(aside, "changed"))


def _spread(file: Path, draft: Path) -> None:
    """Write the files of a capsule under their own names, with their digests."""
    with capsule.opened(file) as opened:
        facts = msgspec.convert(opened.contents.facts, Facts)
        if facts.schedule != FORMAT:
            raise RecordError(f"its format is {facts.schedule}, and this version of ostinato reads {FORMAT}")
        known: dict[str, str] = {}
        for name, member in {_CONFIG: "config.yaml", **facts.tree}.items():
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise RecordError(f"it holds {name!r}, a name outside its folder")
            goal = draft / name
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(opened.folder / member, goal)
            known[name] = opened.contents.files[member].sha256
            if name in facts.programs:
                goal.chmod(0o700)
        (draft / _DIGESTS).write_bytes(msgspec.json.encode(known))


def _refuse_secrets(name: str, content: bytes, *, code: bool) -> None:
    lines = enumerate(content.decode(errors="replace").splitlines(), 1)
    where = next((f"line {number} of {name}" for number, line in lines if holds_secret(line)), None)
    if where is None and code and holds_secret_code(content):
        where = name
    if where is not None:
        raise ConfigError(
            f"{where} holds what is, or looks like, a secret, and a schedule would carry it to the server; "
            "take it out: a worker reads secrets from its environment variables"
        )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
