"""Answer the requests of programs through one LM, and record each as a row of a run."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import msgspec

from runner.answers import without_thinking
from runner.batch.entries import fail, record, say
from runner.batch.tally import Tally
from runner.cost.account import Account
from runner.errors import BudgetExceeded, CacheError, LMError, OstinatoError
from runner.network.serving import Answer
from runner.proxy import wire
from runner.records.spending import Spending
from runner.secrets import redact
from runner.types import Sample
from runner.wording.suggest import suggest

if TYPE_CHECKING:
    from runner.lm.lm import LM
    from runner.network.serving import Incoming
    from runner.records import RunFolder
    from runner.types import Completion, Response

ROWS = "rows.jsonl"
"""The file of what each row was asked, in the record's folder."""

_MODELS = "/v1/models"
_ROW = "x-ostinato-row"
_LONGEST_ID = 200
_FINAL = (("x-should-retry", "false"),)
"""OpenAI's clients ask again after 429 and 5xx; what can be asked again, we have asked again."""

_encode = msgspec.json.Encoder().encode


class Gateway:
    """Answer requests, and keep them.

    Args:
        lm: the model, with its limiter, budget and cache.
        folder: the run folder.
        key: what a client has to send as its key.

    Attributes:
        tally: the totals so far.
        stopping: whether new requests are refused.
    """

    def __init__(self, lm: LM, folder: RunFolder, key: str) -> None:
        self._lm = lm
        self._text = lm if lm.model_type == "text" else lm.copy(model_type="text")
        self._chat = lm.copy(model_type="chat") if lm.model_type == "text" else lm
        self._names = {lm.model, lm.model.partition("/")[2]}
        self._record = folder
        self._key = f"Bearer {key}".encode()
        self._rows = (folder.path / ROWS).open("ab", buffering=0)
        self._times: dict[str, int] = {}
        self._ids: set[str] = set()
        self.spending = Spending(folder)
        self.tally = Tally(0)
        self.stopping = False

    @property
    def asked(self) -> int:
        """How many requests have come."""
        return len(self._ids)

    async def handle(self, incoming: Incoming) -> Answer:
        """Answer a request of a client, whatever it is."""
        path = incoming.path.partition("?")[0].rstrip("/")
        if (refused := self._refusal(incoming, path)) is not None:
            return refused
        if path == _MODELS:
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "ostinato"} for name in sorted(self._names)]
            return Answer(200, _encode({"object": "list", "data": listed}))
        try:
            asked = wire.read(wire.PATHS[path], incoming.body)
            if asked.model not in self._names:
                return self._other_model(asked.model)
            response = await self._complete(asked, incoming.headers.get(_ROW))
        except OstinatoError as error:
            status, body = wire.refusal(error)
            return Answer(status, body, more=_FINAL)
        except Exception as error:  # noqa: BLE001 - boundary: a program sends anything, and waits for an answer
            told = redact(f"the request cannot be answered ({type(error).__name__}: {error})")
            return Answer(500, wire.error(told, kind="server_error"), more=_FINAL)
        return Answer(200, wire.answer(asked, response), "text/event-stream" if asked.stream else "application/json")

    def _refusal(self, incoming: Incoming, path: str) -> Answer | None:
        """Return the answer to a client without the key, and to a request that is not for the model."""
        if not hmac.compare_digest(incoming.headers.get("authorization", "").encode(), self._key):
            told = "the key is missing or wrong: `ostinato proxy` prints the one that it takes"
            return _refused(401, told, "invalid_api_key")
        if path != _MODELS and path not in wire.PATHS:
            return _refused(404, f"{path}: the proxy serves {', '.join(wire.PATHS)} and {_MODELS}", "not_found")
        wanted = "GET" if path == _MODELS else "POST"
        if incoming.method != wanted:
            return _refused(405, f"{path} takes {wanted}", "method_not_allowed")
        return _refused(503, "the proxy is stopping", "stopping") if self.stopping else None

    def _other_model(self, name: str) -> Answer:
        hint = suggest(name, self._names) or ";"
        told = (
            f"the model {name!r} is not served here{hint} this proxy serves {self._lm.model}; start another one for another model"
        )
        return _refused(404, told, "model_not_found")

    async def _complete(self, asked: wire.Asked, row: str | None) -> Response:
        """Ask the model, and record the answer or the failure. Raises OstinatoError."""
        lm = self._text if asked.form == "text" else self._chat
        request = lm.request(messages=asked.messages, prompt=asked.prompt, **asked.params)
        id_ = self._id(row)
        sample = Sample(id=id_, messages=asked.messages, prompt=asked.prompt, model_requested=lm.model)
        account = Account(lambda spent, model: self.spending.keep((id_, 0), spent, model))
        try:
            completion = await lm.acomplete(request, account)
        except (LMError, BudgetExceeded, CacheError) as error:
            fail(sample, error, "budget" if isinstance(error, BudgetExceeded) else "cache")
            account.close(sample)
            self._keep(sample)
            raise
        self._answer(sample, completion, logprobs=bool(asked.params.get("logprobs")))
        account.close(sample)
        self._keep(sample)
        return completion.response

    def _answer(self, sample: Sample, completion: Completion, *, logprobs: bool) -> None:
        response = completion.response
        choices = (without_thinking(response) if self._lm.split_thinking else response).choices
        record(sample, completion, None)
        say(sample, choices, logprobs=logprobs)

    def _id(self, row: str | None) -> str:
        """Return the id of a request: as the client names its row, ``-2``, ``-3`` after the first of a row; else its number."""
        row = (row or "").strip()[:_LONGEST_ID]
        while True:
            times = self._times[row] = self._times.get(row, 0) + 1
            name = f"{row}-{times}" if row and times > 1 else row or str(times)
            if name not in self._ids:
                self._ids.add(name)
                return name

    def _keep(self, sample: Sample) -> None:
        """Write the row and its sample. Raises RecordError."""
        try:
            self._rows.write(_encode({"id": sample.id, "input": _question(sample)}) + b"\n")
        except OSError as error:
            raise self._record.unwritable(error, ROWS) from None
        self._record.append([sample])
        self.spending.recorded([sample])
        self.tally.add(sample)

    def close(self) -> None:
        """Close the files. Raises RecordError."""
        self._rows.close()
        self.spending.finish()


def _question(sample: Sample) -> Any:
    """Return what was asked last, in words where it is words."""
    return sample.prompt if sample.messages is None else sample.messages[-1].get("content")


def _refused(status: int, message: str, code: str) -> Answer:
    return Answer(status, wire.error(message, kind="invalid_request_error", code=code), more=_FINAL)
