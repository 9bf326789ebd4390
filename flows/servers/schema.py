"""Make the database of a Prefect server from its finished schema: Prefect's migrations of a new file take ten seconds.

``schema.sql`` is what the migrations of one Prefect version make; a test compares. An older Prefect does not know its revision
and makes the database itself; a newer one migrates from there.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from importlib.util import find_spec
from pathlib import Path

SCHEMA = Path(__file__).with_name("schema.sql")

_REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"'](\w+)", re.MULTILINE)
_DOWN = re.compile(r"^down_revision\b[^=\n]*=(.*)", re.MULTILINE)
_STAMP = re.compile(r"INSERT INTO \"?alembic_version\"? VALUES\('(\w+)'\)")


def prepared(database: Path) -> bool:
    """Make the database, unless it exists or this Prefect does not know the schema. Return whether it needs no migration.

    Args:
        database: the SQLite file; the caller holds its lock.
    """
    with contextlib.suppress(OSError, sqlite3.Error):
        known, heads = _revisions()
        if not database.exists():
            schema = SCHEMA.read_text("utf-8")
            stamp = _STAMP.search(schema)
            if stamp is None or stamp[1] not in known:
                return False
            _write(database, schema)
        return {_revision(database)} == heads
    return False


def _write(database: Path, schema: str) -> None:
    part = database.with_suffix(".new")
    part.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(part)) as made:
        made.executescript(schema)
    part.replace(database)


def _revision(database: Path) -> str | None:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as found:
        row = found.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def _revisions() -> tuple[set[str], set[str]]:
    """Return the revisions that this Prefect knows, and the last one, without importing Prefect."""
    spec = find_spec("prefect")
    if spec is None or spec.origin is None:
        return set(), set()
    known, before = set(), set()
    for file in (Path(spec.origin).parent / "server/database/_migrations/versions/sqlite").glob("*.py"):
        text = file.read_text("utf-8")
        if (revision := _REVISION.search(text)) and (down := _DOWN.search(text)):
            known.add(revision[1])
            before.update(re.findall(r"\w{6,}", down[1]))
    return known, known - before
