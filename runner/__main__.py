"""Run the process of `ostinato` and of `python -m runner`, and handle signals from its first line to its last."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command, and end the process with its exit code.

    A run handles signals itself (`runner.session.interrupt`). At all other times SIGINT and SIGTERM end the process at
    once: files are written so that they survive that, and children end with their parent. A KeyboardInterrupt could be raised
    anywhere, in a finaliser or in the middle of an import, and be swallowed or printed as a traceback.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from runner.cli import main as command

    code = command()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done and printed: there is nothing left to interrupt
    sys.exit(code)


def _leave(_number: int, _frame: object) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
