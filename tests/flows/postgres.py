"""A PostgreSQL cluster of a test's own: in a temporary folder, on a free port of the loopback, by a user without rights."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.system import processes
from tests.support.clock import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIRED = os.environ.get("OSTINATO_TEST_POSTGRES") == "required"  # read before the environment of each test is cleaned

_USER = "ostinato"
_DEBIAN = Path("/usr/lib/postgresql")
_HASTY = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")  # it is thrown away in the end


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server that runs.

    Attributes:
        programs: the folder of PostgreSQL's programs.
        port: where it listens on 127.0.0.1, and lets everybody in.
    """

    programs: Path
    port: int

    @property
    def url(self) -> str:
        """Its one database, as Prefect wants to have it named."""
        return f"postgresql+asyncpg://{_USER}@127.0.0.1:{self.port}/postgres"

    def dump(self) -> str:
        """Everything in the database, as SQL."""
        command = [self.programs / "pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, "postgres"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def programs() -> Path | None:
    """The folder of PostgreSQL's programs: on the path, or where Debian has the newest."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next((initdb.parent for initdb in sorted(_DEBIAN.glob("*/bin/initdb"), reverse=True)), None)


@contextlib.contextmanager
def running(programs: Path) -> Iterator[Cluster]:
    """A new cluster, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:  # not in pytest's, which another user cannot enter
        user = _somebody(folder)
        data = f"{folder}/data"
        initdb = [programs / "initdb", "-D", data, "-A", "trust", "-U", _USER, "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*user, *initdb], check=True, capture_output=True, cwd=folder)
        cluster = Cluster(programs, processes.free_port())
        listens = ["-h", "127.0.0.1", "-p", str(cluster.port), "-k", folder]
        hasty = [word for setting in _HASTY for word in ("-c", setting)]
        process = processes.start(
            [*user, str(programs / "postgres"), "-D", data, *listens, *hasty], log=Path(folder, "log"), env={"LC_ALL": "C"}
        )
        try:
            wait_until(lambda: _ready(cluster, process), "PostgreSQL")
            yield cluster
        finally:
            process.stop()


def _somebody(folder: str) -> list[str]:
    """How to run a command as the owner of the folder: PostgreSQL refuses to be root."""
    if os.geteuid():
        return []
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]


def _ready(cluster: Cluster, process: processes.Process) -> bool:
    assert process.alive(), process.log_tail()
    asked = [cluster.programs / "pg_isready", "-h", "127.0.0.1", "-p", str(cluster.port)]
    return subprocess.run(asked, check=False, capture_output=True).returncode == 0
