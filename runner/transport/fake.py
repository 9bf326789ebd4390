"""A transport without a model: deterministic answers and failures, for tests and dry runs."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from runner.errors import LMError
from runner.transport.embedding import fake_vector
from runner.types import Choice, Connection, Request, Response, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.transport.base import Hear

_WORDS = [
    "amber",
    "basalt",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "granite",
    "harbor",
    "indigo",
    "juniper",
    "kelp",
    "lantern",
    "meadow",
    "nectar",
    "onyx",
    "pebble",
    "quartz",
    "river",
    "saffron",
    "tundra",
    "umber",
    "violet",
    "willow",
    "yarrow",
    "zephyr",
]


class FakeTransport:
    """Draw answers from the request's hash: the same request has the same answer in every process.

    Args:
        reply: the answer to every request, or None.
        choices: the answers to draw from if there is no `reply`.
        latency_s: seconds before each answer.
        fail_rate: the share of requests that fail, 0 to 1.
        failure: the class they fail with.
        fail_attempts: how many attempts of such a request fail; None is all of them.
    """

    def __init__(
        self,
        *,
        reply: str | None = None,
        choices: Sequence[str] = (),
        latency_s: float = 0.0,
        fail_rate: float = 0.0,
        failure: type[LMError] = LMError,
        fail_attempts: int | None = None,
    ) -> None:
        self.reply = reply
        self.choices = tuple(choices)
        self.latency_s = latency_s
        self.fail_rate = fail_rate
        self.failure = failure
        self.fail_attempts = fail_attempts
        self.sent = 0
        self._failed: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def prepare(self, request: Request, connection: Connection) -> None:
        """Do nothing: there is nothing to load."""

    def complete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:  # noqa: ARG002
        """Answer after `latency_s`, or raise `failure`."""
        if self.latency_s:
            time.sleep(self.latency_s)
        return self._answer(request)

    async def acomplete(self, request: Request, connection: Connection, hear: Hear | None = None) -> Response:  # noqa: ARG002
        """Answer after `latency_s`, or raise `failure`."""
        await asyncio.sleep(self.latency_s)
        return self._answer(request)

    async def aclose(self) -> None:
        """Do nothing: no connection was made."""

    def _answer(self, request: Request) -> Response:
        digest = hashlib.sha256(msgspec.json.encode(request, order="deterministic")).digest()
        with self._lock:
            self.sent += 1
            if int.from_bytes(digest[:4], "big") / 2**32 < self.fail_rate and (
                self.fail_attempts is None or self._failed[digest] < self.fail_attempts
            ):
                self._failed[digest] += 1
                raise self.failure(f"fake failure ({self.failure.code})", provider="fake", model=request.model)
        if request.model_type == "embedding":
            vector, used = fake_vector(request.prompt or "")
            return Response(model=request.model, choices=[Choice(vector, "stop")], usage=used, system_fingerprint="fake")
        question = request.prompt or " ".join(str(message.get("content")) for message in request.messages or [])
        n = int(request.params.get("n") or 1)
        texts = [self._text(digest[index:] + digest[:index]) for index in range(n)]
        prompt, completion = len(question.split()), sum(len(text.split()) for text in texts)
        return Response(
            id=f"fake-{digest.hex()[:12]}",
            model=request.model,
            choices=[Choice(text, "stop") for text in texts],
            usage=Usage(prompt, completion, prompt + completion),
            system_fingerprint="fake",
        )

    def _text(self, digest: bytes) -> str:
        if self.reply is not None:
            return self.reply
        if self.choices:
            return self.choices[int.from_bytes(digest[4:8], "big") % len(self.choices)]
        return " ".join(_WORDS[byte % len(_WORDS)] for byte in digest[8:12])
