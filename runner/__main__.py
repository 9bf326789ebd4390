"""The process of `ostinato` and of `python -m runner`: what signals do to it, from its first line to its last."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command that the process was started for, and end the process with its exit code.

    A run handles signals itself (`runner.session.interrupt`). At all other times SIGINT and SIGTERM end the process on the
    spot: files are written so that they survive that and children end with their parent, while a KeyboardInterrupt may strike
    anywhere, in a finaliser or half-way through an import, and be swallowed or shown as a traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from runner.cli import main as command

    code = command()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is done and said: there is nothing left to interrupt
    sys.exit(code)


def _leave(_number: int, _frame: object) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
