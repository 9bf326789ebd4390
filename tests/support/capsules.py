"""Capsules as an enemy would make them: any files, any zip entries, with digests that are right all the same."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import zipfile
from typing import TYPE_CHECKING

import runner
from runner.reproduction.pack import pack

if TYPE_CHECKING:
    from pathlib import Path

GRADE = "def grade(output, target, row):\n    return len(output) / 100\n"


def packed(folder: Path) -> Path:
    """A capsule of a small run on the fake model, with a prompt file and a scorer that is code."""
    (folder / "grade.py").write_text(GRADE)
    (folder / "prompt.txt").write_text("What is {{ question }}?")
    rows = "{id: a, question: one, answer: x}, {id: b, question: two, answer: y}"
    overrides = [
        "model=fake",
        "execution.orchestrator=none",
        "data=inline",
        f"data.rows=[{rows}]",
        "data.id=id",
        "data.target=answer",
    ]
    overrides += [f"prompt.user_file={folder}/prompt.txt", f"runs_dir={folder}/runs", "sampling.repeats=2", "scoring=several"]
    overrides += [f"scoring.scorers={{mine: {{kind: python, function: '{folder}/grade.py:grade'}}, exact: {{kind: exact}}}}"]
    return pack(runner.run(overrides=overrides).folder, folder / "good.ostinato").file


def contents(file: Path) -> dict[str, bytes]:
    """What a capsule holds, by name."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sealed(body: bytes, version: int = 1) -> bytes:
    """Bytes of a zip without a comment, as a capsule with the right digest."""
    mark = b"ostinato capsule %d sha256:" % version
    assert body[-2:] == b"\0\0"
    body = body[:-2] + (len(mark) + 64).to_bytes(2, "little") + mark
    return body + hashlib.sha256(body).hexdigest().encode()


def unsealed(raw: bytes) -> bytes:
    """The zip of a capsule, without its comment."""
    start = raw.rindex(b"ostinato capsule ")
    return raw[: start - 2] + b"\0\0"


def zipped(members: list[tuple[str, bytes]], **kinds: int) -> bytes:
    """A zip of these members in order; `kinds` are their modes, by the names' first part, or ``how`` all are packed."""
    how = kinds.pop("how", zipfile.ZIP_DEFLATED)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = how
            entry.external_attr = kinds.get(name.partition(".")[0], stat.S_IFREG | 0o600) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def made(members: dict[str, bytes], *, listed: dict[str, bytes] | None = None, **kinds: int) -> bytes:
    """A capsule of these files, whose list of contents names those of `listed` (default: all of them) with the right digests."""
    head = json.loads(members["capsule.json"])
    rest = {name: content for name, content in members.items() if name != "capsule.json"}
    told = rest if listed is None else listed
    head["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in told.items()
    }
    return sealed(zipped([("capsule.json", json.dumps(head).encode()), *rest.items()], **kinds))
