"""A judge that follows rules: a server that answers what it is asked to judge, and counts what it was asked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Self

from tests.support.server import Call, Reply, Server

if TYPE_CHECKING:
    from collections.abc import Callable

_PART = re.compile(r"<(?P<name>\w+)-(?P<digest>[0-9a-f]{12})>\n(?P<text>.*?)\n</(?P=name)-(?P=digest)>", re.DOTALL)


def parts_of(call: Call) -> list[tuple[str, str]]:
    """Return the fenced parts of a judge's request, as a judge that follows the rules reads them."""
    return [(found["name"], found["text"]) for found in _PART.finditer(call.question)]


def is_judged(call: Call) -> bool:
    """Return whether a request asks for a verdict."""
    first = (call.body or {}).get("messages", [{}])[0]
    return str(first.get("content", "")).startswith("You judge answers.")


def verdict(label: Any, reason: str = "by the rule", key: str = "label") -> Reply:
    """Return the answer of a judge."""
    return Reply(json.dumps({"reason": reason, key: label}), model="judge-1")


def by_rule(call: Call) -> Reply:
    """Call an answer correct if it has the reference in it."""
    found = dict(parts_of(call))
    return verdict("correct" if found["reference"] in found["answer"] else "incorrect")


class Bench:
    """A server that answers questions and judges answers, with what each was asked.

    Attributes:
        answers, judged: the calls of each kind.
    """

    def __init__(self, answer: Callable[[Call], Any], judge: Callable[[Call], Any] = by_rule) -> None:
        self.answer, self.judge = answer, judge
        self.answers: list[Call] = []
        self.judged: list[Call] = []
        self.server = Server(self._behave)

    def _behave(self, call: Call) -> Any:
        if is_judged(call):
            self.judged.append(call)
            return self.judge(call)
        self.answers.append(call)
        return self.answer(call)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *failed: object) -> None:
        self.server.__exit__(*failed)  # type: ignore[arg-type]

    @property
    def overrides(self) -> list[str]:
        """Return the overrides that have this server answer and judge."""
        url = self.server.url
        return [
            "model=server",
            "model.name=answerer",
            f"model.api_base={url}",
            "execution.orchestrator=none",
            "scoring=correctness",
            "model@scoring.model=server",
            "scoring.model.name=judge",
            f"scoring.model.api_base={url}",
        ]
