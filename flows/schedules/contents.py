"""Bring what a schedule carries to the machine that plays it: through the server, or through a folder that machines share.

Deployments and their runs name it by its hash. On the server it is an artifact, which is stored once. Parameters would be copied
into every run, and may have 512 KB at most; inputs of pull steps would be copied into an event of every run.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING

from runner.errors import ConfigError, ScheduleError
from runner.schedules.content import is_here, unpack
from runner.system import files
from runner.system.paths import expanded

if TYPE_CHECKING:
    from pathlib import Path

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact

    from runner.schedules.content import Content
    from runner.schedules.job import Job

MAX_BYTES = 4 * 2**20
"""The largest content, packed, that is kept on the server. Prefect's UI loads all artifacts that it lists."""

_TYPE = "ostinato-content"


async def put(client: PrefectClient, job: Job, content: Content) -> None:
    """Put what a schedule carries where its turns find it. What is there already is not sent again.

    Raises:
        ConfigError: it is too large for the server, or the shared folder cannot be written.
    """
    from prefect.client.schemas.actions import ArtifactCreate

    if job.schedule.store is not None:
        _put_into(expanded(job.schedule.store), content)
        return
    if len(content.packed) > MAX_BYTES:
        raise ConfigError(
            f"the schedule would carry {len(content.packed):,} bytes (packed), and the server takes {MAX_BYTES:,}; the largest "
            f"files are {content.largest()}. Name a folder that every worker shares: schedule.store=..., or keep the data at an "
            "address: https://, s3:// or hf://"
        )
    if await _found(client, job.name, content.sha256):
        return
    await client.create_artifact(
        ArtifactCreate(
            key=_key(job.name),
            type=f"{_TYPE}-{content.sha256}",
            description=f"What the schedule `{job.name}` of Ostinato carries. `ostinato schedule rm` removes it.",
            data=base64.b64encode(content.packed).decode(),
        )
    )


async def fetch(client: PrefectClient, job: Job) -> None:
    """Unpack on this machine what a job carries, unless it is here already.

    Raises:
        ScheduleError: it is not to be found, or is damaged.
    """
    sha256 = job.content
    if sha256 is None or await asyncio.to_thread(is_here, sha256):
        return
    if job.schedule.store is not None:
        file = _file_in(expanded(job.schedule.store), sha256)
        try:
            packed = file.read_bytes()
        except OSError as error:
            raise ScheduleError(
                f"this machine cannot read {file} ({error.strerror}), where the schedule '{job.name}' has its files; "
                "schedule.store has to be a folder that every worker shares"
            ) from None
    else:
        found = await _found(client, job.name, sha256)
        if not found:
            raise ScheduleError(
                f"the server no longer has what the schedule '{job.name}' carried when this run was planned ({sha256[:12]}); "
                "apply it again"
            )
        packed = base64.b64decode(str(found[0].data))
    await asyncio.to_thread(unpack, packed, sha256)


async def discard(client: PrefectClient, name: str) -> None:
    """Remove from the server all that a schedule has carried. Shared folders keep it."""
    for artifact in await _found(client, name):
        await client.delete_artifact(artifact.id)


async def _found(client: PrefectClient, name: str, sha256: str | None = None) -> list[Artifact]:
    from prefect.client.schemas import filters

    wanted = filters.ArtifactFilter(
        key=filters.ArtifactFilterKey(any_=[_key(name)]),
        type=filters.ArtifactFilterType(any_=[f"{_TYPE}-{sha256}"]) if sha256 else None,
    )
    return await client.read_artifacts(artifact_filter=wanted)


def _key(name: str) -> str:
    """Return the artifacts' key of a schedule. Keys have small letters, digits and dashes only."""
    return f"ostinato-{hashlib.sha256(name.encode()).hexdigest()[:24]}"


def _file_in(store: Path, sha256: str) -> Path:
    return store.absolute() / f"{sha256}.ostinato"


def _put_into(store: Path, content: Content) -> None:
    file = _file_in(store, content.sha256)
    try:
        store.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            files.write(file, content.packed)
    except OSError as error:
        raise ConfigError(f"schedule.store: {file} cannot be written: {error.strerror}") from None
