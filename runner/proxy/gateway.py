"""Answer the requests of programs through one LM, and record each as a row of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.answers import without_thinking
from runner.batch.entries import fail, record, say
from runner.batch.tally import Tally
from runner.cost.account import Account
from runner.errors import BudgetExceeded, CacheError, LMError
from runner.lm import front
from runner.records.spending import Spending
from runner.types import Sample

if TYPE_CHECKING:
    from runner.lm.lm import LM
    from runner.lm.wire import Asked
    from runner.network.serving import Answer, Incoming
    from runner.records import RunFolder
    from runner.types import Completion, Response

ROWS = "rows.jsonl"
"""The file of what each row was asked, in the record's folder."""

_ROW = "x-ostinato-row"
_LONGEST_ID = 200
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
        if lm.budget is not None:
            lm.budget.more = "end the proxy and start it with a larger one: ostinato proxy ... budget.{bound}=..."
        self._lm = lm
        self._text = lm if lm.model_type == "text" else lm.copy(model_type="text")
        self._chat = lm.copy(model_type="chat") if lm.model_type == "text" else lm
        self._names = {lm.model, lm.model.partition("/")[2]}
        self._record = folder
        self._key = key
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
        if not front.has_key(incoming, self._key):
            told = "the key is missing or wrong: `ostinato proxy` prints the one that it takes"
            return front.refused(401, told, "invalid_api_key")
        if self.stopping:
            return front.refused(503, "the proxy is stopping", "stopping")
        path, row = incoming.path.partition("?")[0].rstrip("/"), incoming.headers.get(_ROW)
        return await front.respond(incoming, path, self._lm.model, self._names, lambda asked: self._complete(asked, row))

    async def _complete(self, asked: Asked, row: str | None) -> Response:
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
