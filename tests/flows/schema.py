"""Print the schema that Prefect's own migrations make: ``python -m tests.flows.schema > flows/servers/schema.sql``."""

import asyncio
import os
import sqlite3
import sys
import tempfile
from pathlib import Path


def migrated() -> str:
    """Make a database by Prefect's migrations, and return it as SQL. Call it in a process of its own: it sets the environment."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "prefect.db"
        os.environ |= {"PREFECT_HOME": folder, "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}"}
        from prefect.server.database import provide_database_interface

        asyncio.run(provide_database_interface().create_db())
        with sqlite3.connect(database) as made:
            dump = "\n".join(made.iterdump())
        made.close()
    return dump


if __name__ == "__main__":
    sys.stdout.write(migrated() + "\n")
