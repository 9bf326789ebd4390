"""Compare two formulas by math-verify. A program of its own: it reads requests from stdin and answers on stdout, line by line.

The parent (`runner.scoring.mathpool`) ends it when a comparison takes too long: math-verify's own limits are alarms, which work
in a main thread only and replace those of the caller. It is run by its path, imports no module of ours, and ends when its parent
is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

_MEMORY_BYTES = 4 * 2**30
_POLL_S = 1.0


def main() -> None:
    """Answer requests ``{"gold": formula, "answer": formula or null}`` until stdin is closed.

    The answer says what was parsed, and whether both are equal: ``{"gold": bool, "answer": bool, "equal": bool}``.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    _limit_memory()
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    kinds = (LatexExtractionConfig(), ExprExtractionConfig())

    def parsed(formula: str) -> Any:
        return parse(f"${formula}$", extraction_config=kinds, fallback_mode="no_fallback", parsing_timeout=None)

    _write({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        gold = parsed(request["gold"])
        answer = parsed(request["answer"]) if request["answer"] is not None else []
        equal = bool(gold and answer) and verify(gold, answer, float_rounding=12, timeout_seconds=None)
        _write({"gold": bool(gold), "answer": bool(answer), "equal": bool(equal)})


def _write(answer: dict[str, bool]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _limit_memory() -> None:
    """Bound what a formula such as 9^9^9 may take."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        pass  # a system without such a limit


if __name__ == "__main__":
    main()
