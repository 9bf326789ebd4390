"""Define the data that all rooms share: requests, responses, rows and samples. Plain Structs without I/O or policy."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Message = dict[str, Any]
"""One chat message in OpenAI's form: ``{"role": "user", "content": "..."}``."""

ModelType = Literal["chat", "text", "responses", "embedding"]
Status = Literal["ok", "error", "refused", "truncated", "empty", "invalid"]


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold everything that changes the answer, and nothing else: the cache key is a hash of it.

    Attributes:
        model: the model as requested, ``provider/name``.
        model_type: the wire format: chat completions, text completions, OpenAI's responses, or embeddings.
        endpoint: where it is served, normalised (a URL, or ``sha256:...`` of local weights); None is the provider's own.
        messages: the conversation (chat and responses).
        prompt: the text to continue (text), or whose vector is asked for (embedding).
        params: sampling parameters, tools and response format, as sent. No None values, no keys, no timeouts.
        rollout: which repeat this is; separates cache entries and is never sent.
    """

    model: str
    model_type: ModelType = "chat"
    endpoint: str | None = None
    messages: list[Message] | None = None
    prompt: str | None = None
    params: dict[str, Any] = {}
    rollout: int | None = None


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Hold how to reach the model. It is never part of the cache key and never written. Timeouts are in seconds."""

    api_base: str | None = None
    api_key: str | None = None
    headers: dict[str, str] = {}
    timeout_s: float | None = None
    """The most that one attempt may take."""
    stream: bool = False
    """Ask for the answer in events, as it is made. Transports that cannot do so send the request without it."""
    silence_s: float = 300.0
    """The longest time without a byte in which a streamed answer is waited for."""
    body: dict[str, Any] = {}
    """Fields that are added to every request, such as the adapter that a server of our own applies."""
    extra: dict[str, Any] = {}
    """Other ``api_*`` arguments a provider needs, such as ``api_version`` on Azure."""

    def __repr__(self) -> str:
        return f"Connection(api_base={self.api_base!r}, api_key={'***' if self.api_key else None})"


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Count the tokens of one response.

    Prompt tokens include those read from the provider's prompt cache and those written to it. Completion tokens include
    reasoning tokens.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bound what attempts may have used that nobody knows: no answer came, or one that does not say. Budgets count it as used.

    Attributes:
        attempts: how many attempts have an unknown cost.
        tokens: the most tokens that they may have used; 0 where there is no bound.
        usd: the most dollars that they may have cost; 0 where there is no bound, or no price.
    """

    attempts: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Held) -> Held:
        return Held(self.attempts + other.attempts, self.tokens + other.tokens, self.usd + other.usd)


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Add up what requests have cost: how many were sent, their tokens, dollars (None: unknown), and what is held besides."""

    requests: int = 0
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    held: Held = Held()

    def __add__(self, other: Spent) -> Spent:
        known = self.cost_usd is not None and other.cost_usd is not None
        cost = self.cost_usd + other.cost_usd if known else None  # type: ignore[operator]
        return Spent(self.requests + other.requests, self.usage + other.usage, cost, self.held + other.held)


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold one of the `n` answers of a response."""

    text: str | None = None
    finish_reason: str | None = None
    logprobs: Any = None
    tool_calls: list[dict[str, Any]] | None = None
    reasoning: str | None = None


class Response(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold a model's answer, in the same form for every transport and wire format. The cache stores it as JSON.

    `cost_usd` is the cost that the answer itself names, and `cost_from` is who says so (`runner.transport.usage`).
    `first_token_s` is how long its first token took, in seconds, if it was streamed; the cache does not keep it.
    """

    choices: list[Choice]
    model: str | None = None
    id: str | None = None
    usage: Usage | None = None
    system_fingerprint: str | None = None
    created: int | None = None
    cost_usd: float | None = None
    cost_from: str | None = None
    first_token_s: float | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an answer and its origin. Times are in seconds, costs in dollars (None: unknown).

    `cost_from` is who named the cost; None is our own reckoning, by the price of the model.
    """

    key: str
    response: Response
    cache: Literal["hit", "miss", "off"]
    attempts: int = 0
    latency_s: float | None = None
    cost_usd: float | None = None
    cost_from: str | None = None
    saved_usd: float | None = None
    started_at: str | None = None
    first_token_s: float | None = None

    @classmethod
    def hit(cls, key: str, response: Response, cost_usd: float | None) -> Completion:
        """Return a completion from the cache; `cost_usd` is what its answer cost when it was made."""
        return cls(key=key, response=response, cache="hit", cost_usd=0.0, saved_usd=cost_usd)


class Row(msgspec.Struct, frozen=True):
    """Hold one row of a dataset: `id` is unique and stable, `fields` are its columns, `target` is the expected answer or None.

    `cluster` names the group of rows that are not independent of it; None: it is independent of all others.
    """

    id: str
    fields: dict[str, Any]
    target: Any = None
    cluster: str | None = None


class RowError(msgspec.Struct, frozen=True, omit_defaults=True):
    """Say why a row failed: `code` is that of the class in `runner.errors` (``rate_limit``), `message` is for people."""

    code: str
    message: str
    status: int | None = None
    request_id: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Hold one request of a sample that made several, as its solver decided, and the answer. Unknown is None, never zero.

    The conversation of a step is that of the step `after`, which it continues, and `added`. So no message is written twice.

    Attributes:
        request_key: the key of the request in the cache.
        added: the messages that the request adds to the conversation, and the answer, in OpenAI's form.
        after: the number of the step whose conversation this one continues, from 0; None: it begins one.
        model: the model that was asked, if it is not the run's.
        finish_reason: why the answer ended.
        usage: its tokens.
        cost_usd: its cost in dollars; 0 from the cache.
        saved_usd: what an answer from the cache cost when it was made.
        latency_s: seconds until the answer.
        cache: where the answer comes from, as in `Completion`.
        error: why there is no answer. The solver may have gone on without it.
    """

    request_key: str
    added: list[Message] = []
    after: int | None = None
    model: str | None = None
    finish_reason: str | None = "stop"
    usage: Usage | None = None
    cost_usd: float | None = None
    saved_usd: float | None = None
    latency_s: float | None = None
    cache: Literal["hit", "miss", "off"] = "off"
    error: RowError | None = None


def _written(default: Any) -> Any:
    """Return the default of a field that is written even if it has this value; msgspec leaves out plain defaults alone."""
    constant = {None: type(None), 0: int}.get(default)  # called in C, which takes a fifth of the time
    return msgspec.field(default_factory=constant or (lambda: default))


class Judgement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Say what a scorer that asks a model has decided about one answer, and why.

    Attributes:
        label: the label that was chosen; None where the judge gives a number.
        reason: why, in the judge's words.
        cost_usd: what its requests cost; 0 from the cache; None: unknown.
        request_key: the key of the request whose answer decided.
        model: the judge as it names itself.
    """

    label: str | None = None
    reason: str | None = None
    cost_usd: float | None = None
    request_key: str | None = None
    model: str | None = None


class Sample(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Hold one line of ``samples.jsonl``: one row × one repeat. Unknown is None, never zero; times are in seconds.

    The last fourteen fields are left out of the line when there is nothing to say (format 2; lines of format 1 lack them):

    Attributes:
        output: the answer as it was parsed and scored, without thinking; of tool calls without text, their JSON.
        reasoning: the model's thinking, whether the server sent it apart or in the text.
        tool_calls: the calls that the model asks for, in OpenAI's form.
        logprobs: as the server sent them, if they were asked for.
        answers: all answers, if there are several (``n``); the fields above are the first one's.
        cost_from: who named `cost_usd` (``openrouter``, ``litellm-proxy``); None is our own reckoning.
        held: bounds what attempts may have used beyond `usage` and `cost_usd`, which are those of the answers.
        unread: names of scorers that found nothing in the answer to compare (no number, no label, no formula): not right, but
            not the wrong thing either.
        repaired: whether `parsed` was read after a repair of the text (``adapter.repair``).
        first_token_s: seconds until the first token of the answer, if it was streamed.
        cluster: the value of `data.cluster` in this row; rows of one cluster are not independent.
        unmet: expectations of this row (``expect.rows``) that its answer does not meet; empty: it meets all; None: it has none.
        named: what was spent on other models than the main one, by name: judges, models of scorers and of solvers.
        judgements: labels and reasons of scorers that give them, by score.
        steps: the requests that a solver made for it, in the order in which they were begun; None for a plain row. Tokens, costs
            and times of the sample are sums over them.
    """

    id: str
    repeat: int = _written(0)
    status: Status = _written("ok")
    messages: list[Message] | None = _written(None)
    prompt: str | None = _written(None)
    output: str | None = _written(None)
    parsed: Any = _written(None)
    target: Any = _written(None)
    scores: dict[str, float] = msgspec.field(default_factory=lambda: {})  # noqa: PIE807 - `dict` would be left out when empty
    error: RowError | None = _written(None)
    usage: Usage | None = _written(None)
    cost_usd: float | None = _written(None)
    saved_usd: float | None = _written(None)
    cache: Literal["hit", "miss", "off"] = _written("off")
    latency_s: float | None = _written(None)
    attempts: int = _written(0)
    model_requested: str | None = _written(None)
    model_served: str | None = _written(None)
    system_fingerprint: str | None = _written(None)
    finish_reason: str | None = _written(None)
    request_key: str | None = _written(None)
    started_at: str | None = _written(None)
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: Any = None
    answers: list[Choice] | None = None
    cost_from: str | None = None
    held: Held | None = None
    unread: list[str] | None = None
    repaired: bool = False
    first_token_s: float | None = None
    cluster: str | None = None
    unmet: list[str] | None = None
    named: dict[str, Spent] | None = None
    judgements: dict[str, Judgement] | None = None
    steps: list[Step] | None = None

    @property
    def asked(self) -> list[Message]:
        """The messages that were asked, for people: the conversation, the prompt as a message, or what the steps say."""
        if self.messages is not None or self.prompt is not None:
            return self.messages or [{"role": "prompt", "content": self.prompt}]
        return [message for step in self.steps or () for message in step.added]


class Score(msgspec.Struct, frozen=True):
    """Hold a metric over a run.

    Attributes:
        mean: the mean over samples; None without any.
        stderr: its standard error, clustered by row or by the data's `cluster`; None for fewer than two of these.
        n: rows that have the score.
        interval: its 95 % confidence interval (`runner.stats.intervals`), from and to; None without one, and in older records.
    """

    mean: float | None
    stderr: float | None
    n: int
    interval: tuple[float, float] | None = None


class Corrected(msgspec.Struct, frozen=True):
    """A mean score, corrected for the errors of the judge.

    Attributes:
        mean: the estimate; None if the labels tell nothing (a judge no better than chance).
        interval: its interval, which contains the sampling of rows and that of labels.
        method: the estimator of `runner.stats.corrected`.
        labels: labelled answers behind it.
        n: answers that the judge has scored.
        more: about how many more labels would halve the interval; None: no number would, since the run has too few answers.
    """

    mean: float | None
    interval: tuple[float, float]
    method: Literal["posterior", "regression", "rates"]
    labels: int
    n: int
    more: int | None = None
