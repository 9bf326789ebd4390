"""Read ``.env`` in the working directory: variables that the environment lacks. The only module that imports python-dotenv."""

from __future__ import annotations

import os
from pathlib import Path

FILE = Path(".env")


def read() -> None:
    """Add the variables of ``.env`` to the environment, which goes before them. Values are taken as they are written.

    Raises:
        OSError: it cannot be read.
    """
    if not FILE.is_file():
        return
    from dotenv import dotenv_values

    for name, value in dotenv_values(FILE, interpolate=False, encoding="utf-8-sig").items():
        if value is not None:
            os.environ.setdefault(name, value)
