"""The words of refusals, as a table: which status with which words stands for which error. Facts of servers, seen until 2026-11.

The first rule that fits a refusal decides; `runner.network.refusal` falls back on the status. The rule of a vendor may fit
others that use its words. The bodies that the rules were made from are in ``tests/support/refusals.jsonl``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from runner.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextWindowError,
    LMError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    ServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable


_FIRST = 400
"""The lowest status of a refusal."""
_UNMISTAKABLE = (QuotaError, ContextWindowError, ContentFilterError)
"""Errors that words alone can tell."""


class Rule(NamedTuple):
    """One way in which servers refuse.

    Attributes:
        kind: what it means.
        statuses: HTTP statuses that it applies to.
        pattern: searched in the words of the body, whatever the case.
        vendor: who says so.
        source: where it is documented or was seen.
        remedy: what to do, for the message; empty where the advice of the class is enough.
        unless: a pattern that must not be there.
        when: a further condition on what `pattern` has found.
    """

    kind: type[LMError]
    statuses: frozenset[int]
    pattern: re.Pattern[str]
    vendor: str
    source: str
    remedy: str = ""
    unless: re.Pattern[str] | None = None
    when: Callable[[re.Match[str]], bool] | None = None

    def fits(self, status: int, words: str) -> bool:
        """Return whether it fits a refusal. Some rules need no status: some gateways send refusals with 200."""
        applies = status in self.statuses if status >= _FIRST else self.kind in _UNMISTAKABLE
        if not applies or (found := self.pattern.search(words)) is None:
            return False
        return (self.unless is None or self.unless.search(words) is None) and (self.when is None or self.when(found))


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def _is_more(found: re.Match[str]) -> bool:
    """Return whether a request needs more than the limit that it met."""
    limit, requested = (float(found[name].replace(",", "")) for name in ("limit", "requested"))
    return requested > limit


_TOO_FAST = frozenset({413, 429})
_REFUSED = frozenset({400, 403, 404, 422, 429})
_REQUEST = frozenset({400, 413, 422, 500})
_FAILED = frozenset({500, 501})
_FILTERED = frozenset({400, 403, 422, 451, 500})

_SHORTEN = "this request alone needs more tokens than the account may use in a minute: shorten the prompt, lower \
sampling.max_tokens, or ask the provider for a higher limit"
_WITHOUT_FIELD = "the server does not know a parameter of the request; leave it out of `sampling` or `model.params`"
_CANNOT = "the server cannot do what the request asks for; choose a prompt, an adapter or parameters that it supports \
(adapter.send_schema=none leaves out a JSON schema)"
_PER_MINUTE = _any(r"per.?min", r"/ ?min", r"free-models-per-min")

TOO_LARGE = (
    Rule(
        ContextWindowError,
        _TOO_FAST,
        _any(r"request too large", r"request body too large", r"tokens_limit_reached"),
        "OpenAI, Groq, GitHub Models",
        "platform.openai.com/docs/guides/rate-limits; console.groq.com/docs/rate-limits",
        _SHORTEN,
    ),
    Rule(
        ContextWindowError,
        _TOO_FAST,
        _any(r"limit:? (?P<limit>[\d,]+),? (?:used:? [\d,]+, )?requested:? (?P<requested>[\d,]+)"),
        "OpenAI, Groq",
        "platform.openai.com/docs/guides/rate-limits",
        _SHORTEN,
        when=_is_more,
    ),
    Rule(
        ContextWindowError,
        frozenset({429}),
        _any(r"required for long context", r"long context beta is not"),
        "Anthropic",
        "docs.claude.com, context windows",
        "prompts of this length need an account with the long context enabled",
    ),
)
"""A request that waiting does not help, sent with a status that usually means "too fast"."""

QUOTAS = (
    Rule(
        QuotaError,
        _REFUSED,
        _any(
            r"insufficient_quota",
            r"credit balance",
            r"out of credits",
            r"billing_(?:hard_limit|not_active)",
            r"insufficient.?balance",
            r"used all available credits",
            r"spending.?limit",
            r"budget.?(?:has been )?exceeded",
            r"cloud credits expired",
            r"requires? more credits",
        ),
        "OpenAI, Anthropic, xAI, litellm's proxy, NVIDIA",
        "platform.openai.com/docs/guides/error-codes; docs.litellm.ai/docs/proxy/users",
    ),
    Rule(
        QuotaError,
        _REFUSED,
        _any(
            r"arrearage",
            r"overdue",
            r"account be in good standing",
            r"account is in good standing",
            r"free tier of the model has been exhausted",
            r"free ?tier ?only",
            r"suspended due to insufficient",
            r"余额不足",
            r"欠费",
            r"code=1113\b",
        ),
        "Alibaba, Volcengine, Moonshot, Zhipu",
        "help.aliyun.com/zh/model-studio/error-code; docs.bigmodel.cn/cn/faq/api-code",
    ),
    Rule(
        QuotaError,
        _REFUSED,
        _any(r"specified API usage limits", r"exceeded your monthly", r"monthly (?:included|usage|spend)"),
        "Anthropic, Hugging Face",
        "github.com/anthropics/claude-code/issues; huggingface.co/docs/inference-providers/pricing",
    ),
    Rule(
        QuotaError,
        frozenset({429}),
        re.compile("PerDay"),
        "Google",
        "ai.google.dev/gemini-api/docs/rate-limits",
        "the quota of the day is used up; resume the run tomorrow",
    ),
    Rule(
        QuotaError,
        frozenset({429}),
        _any(r"quota exceeded for metric[^\n]*limit: 0\b"),
        "Google",
        "ai.google.dev/gemini-api/docs/rate-limits",
        "this account has no quota for the model",
    ),
    Rule(
        QuotaError,
        frozenset({403, 429}),
        _any(r"per.?(?:day|week|month)", r"daily", r"monthly", r"weekly", r"/ ?(?:day|month)"),
        "OpenAI, Groq, OpenRouter, Cohere, Cerebras, Bedrock, Cloudflare",
        "platform.openai.com/docs/guides/rate-limits",
        unless=_PER_MINUTE,
    ),
    Rule(
        RateLimitError,
        frozenset({429}),
        _any(r"exceeded your current quota[\s\S]*(?:per.?min|retry.?in|retryDelay)"),
        "Google",
        "ai.google.dev/gemini-api/docs/rate-limits",
    ),
    Rule(
        QuotaError,
        frozenset({403, 429}),
        _any(r"exceeded your current (?:token )?quota", r"exceeded_current_quota"),
        "OpenAI, Moonshot",
        "platform.openai.com/docs/guides/error-codes; platform.moonshot.ai/docs",
        unless=_PER_MINUTE,
    ),
)
"""Credit or quota that is used up."""

TOO_LONG = (
    Rule(
        ContextWindowError,
        _REQUEST,
        _any(
            r"context.?(?:length|window|size)",
            r"exceed_context_size",
            r"maximum context",
            r"context limit",
            r"context the overflows",
            r"context.?window.?exceeded",
        ),
        "OpenAI, DeepSeek, Mistral, llama.cpp, llama-cpp-python, SGLang, LM Studio, Ollama",
        "platform.openai.com/docs/guides/error-codes",
    ),
    Rule(
        ContextWindowError,
        _REQUEST,
        _any(
            r"longer than the (?:model's )?maximum",
            r"maximum (?:model|prompt|input|sequence|allowed) length",
            r"maximum allowed (?:content |input )?length",
            r"must have less than \d+ tokens",
            r"tokens`? \+ `?max_new_tokens`? must be",
            r"max_total_tokens",
        ),
        "vLLM, TGI, SGLang, xAI",
        "vllm/v1/engine/processor.py; text-generation-inference router/src/validation.rs",
    ),
    Rule(
        ContextWindowError,
        _REQUEST,
        _any(
            r"input token count",
            r"exceeds the maximum number of tokens",
            r"prompt token count",
            r"input tokens exceed",
            r"exceeded model token limit",
            r"range of input length",
            r"string_above_max_length",
            r"request_too_large",
        ),
        "Google, GitHub, OpenAI, Moonshot, Alibaba, Anthropic",
        "ai.google.dev/gemini-api/docs/troubleshooting; docs.claude.com/en/api/errors",
    ),
    Rule(
        ContextWindowError,
        _REQUEST,
        _any(
            r"(?:prompt|input|message|request)s? (?:is|are) too (?:long|large)",
            r"prompt too long",
            r"too many (?:input )?tokens",
            r"reduce the length of the (?:messages|input|prompt)",
            r"超长",
            r"code=1261\b",
        ),
        "Anthropic, Bedrock, Cohere, Groq, Cerebras, Fireworks, Ollama, Zhipu",
        "docs.aws.amazon.com/bedrock; docs.cohere.com/reference/errors",
    ),
)
"""A prompt that does not fit."""

FILTERS = (
    Rule(
        ContentFilterError,
        _FILTERED,
        _any(
            r"content.?(?:filter|policy|moderation|management)",
            r"responsible.?ai",
            r"safety.?(?:system|check|filter|polic)",
            r"invalid_prompt",
            r"violat\w+ (?:our |the )?(?:usage|content)",
            r"usage.?polic",
            r"moderation_blocked",
        ),
        "OpenAI, Azure, Anthropic, Google, litellm's proxy",
        "platform.openai.com/docs/guides/error-codes; learn.microsoft.com/azure/ai-services/openai/concepts/content-filter",
    ),
    Rule(
        ContentFilterError,
        _FILTERED,
        _any(r"violates? usage guidelines", r"usage guidelines", r"requires moderation", r"input was flagged", r"flagged_input"),
        "xAI, OpenRouter",
        "github.com/UKGovernmentBEIS/inspect_ai/pull/2267; openrouter.ai/docs/api-reference/errors",
    ),
    Rule(
        ContentFilterError,
        _FILTERED,
        _any(
            r"content exists risk",
            r"data.?inspection.?failed",
            r"inappropriate content",
            r"considered high risk",
            r"sensitive ?content",
            r"sensitive information",
            r"code=1301\b",
            r"不安全或敏感",
            r"input_sensitive",
            r"status_code=102[67]\b",
        ),
        "DeepSeek, Alibaba, Moonshot, Volcengine, Zhipu, MiniMax",
        "github.com/deepseek-ai/DeepSeek-V2/issues/30; help.aliyun.com/zh/model-studio/error-code",
    ),
    Rule(
        ContentFilterError,
        _FILTERED,
        _any(r"guardrail", r"prompt.?injection", r"jailbreak"),
        "Databricks, litellm's proxy",
        "docs.databricks.com, AI guardrails; docs.litellm.ai/docs/proxy/guardrails",
        unless=_any(r"guardrail\w* (?:\w+ )?(?:not found|does not exist)"),
    ),
)
"""Moderation of one prompt."""

ACCESS = (
    Rule(
        AuthenticationError,
        frozenset({400, 403}),
        _any(
            r"api[ _]?key (?:is )?(?:not valid|not found|invalid|expired)",
            r"API_KEY_INVALID",
            r"(?:incorrect|invalid) api.?key",
            r"invalid (?:access |auth\w* |api )?token\b(?! id)",
            r"security token[^\n]*(?:invalid|expired)",
            r"ExpiredTokenException",
            r"UnrecognizedClient",
        ),
        "Google, xAI, Databricks, Bedrock",
        "ai.google.dev/gemini-api/docs/troubleshooting; docs.aws.amazon.com/bedrock",
    ),
    Rule(
        PermissionDeniedError,
        frozenset({400}),
        _any(r"user location is not supported", r"country, region, or territory"),
        "Google, OpenAI",
        "ai.google.dev/gemini-api/docs/troubleshooting",
        "the provider does not serve this country",
    ),
    Rule(
        NotFoundError,
        frozenset({400, 403, 422, 500, 503}),
        _any(
            r"model.?not.?(?:exist|found|open)",
            r"invalid[ _]model",
            r"model identifier",
            r"model_not_supported",
            r"model_not_available",
            r"non-serverless model",
            r"DeploymentNotFound",
            r"no models? (?:is |are )?loaded",
            r"server is pinned to",
            r"unknown model",
            r"model [^\n]{1,120} (?:does not exist|not found|not exist)",
        ),
        "DeepSeek, Mistral, Perplexity, litellm's proxy, Bedrock, Hugging Face, Together, LM Studio, transformers serve",
        "api-docs.deepseek.com; docs.litellm.ai; lmstudio.ai/docs",
    ),
    Rule(
        BadRequestError,
        frozenset({404}),
        _any(r"no endpoints found that support"),
        "OpenRouter",
        "openrouter.ai/docs/api-reference/errors",
        "no provider of this model takes such a request; check the parameters and the prompt's contents",
    ),
    Rule(
        BadRequestError,
        frozenset({403, 406}),
        _any(
            r"<(?:!doctype|html|head|title)\b",
            r"you have been blocked",
            r"request (?:was |is )?blocked",
            r"error code: 10\d\d",
        ),
        "Cloudflare, nginx, ModSecurity",
        "developers.cloudflare.com/support; modsecurity.org",
        "a firewall in front of the server has refused the request; some refuse prompts that look like code",
    ),
)
"""A key, a country or a model that is refused with another status than 401, 403 or 404."""

WRONG_STATUS = (
    Rule(
        MalformedError,
        frozenset({400, 422}),
        _any(r"json_validate_failed", r"tool_use_failed", r"output_parse_failed"),
        "Groq",
        "console.groq.com/docs/errors",
        "the model has written an answer that is not in the form asked for",
    ),
    Rule(
        BadRequestError,
        frozenset({400, 422}),
        _any(
            r"unexpected fields",
            r"extra (?:fields|inputs) (?:are )?not permitted",
            r"extra_forbidden",
            r"unrecognized (?:request )?argument",
        ),
        "transformers serve, vLLM, Mistral, OpenAI",
        "transformers 5.24, cli/serving/utils.py",
        _WITHOUT_FIELD,
    ),
    Rule(
        BadRequestError,
        _FAILED,
        _any(
            r"validation errors?",
            r"literal_error",
            r"input should be",
            r"field required",
            r"not (?:currently |yet )?(?:supported|implemented)",
            r"unsupported",
            r"does not support",
            r"must be one of",
            r"missing data required for image",
            r"(?:invalid|failed to parse) (?:json.?schema|schema|grammar|messages|tools)",
            r"NotImplementedError",
        ),
        "llama-cpp-python, llama.cpp, Ollama",
        "github.com/ggml-org/llama.cpp/issues/23463; llama-cpp-python 0.3.36, measured",
        _CANNOT,
        unless=_any(r"operation not supported", r"cuda error"),
    ),
    Rule(
        BadRequestError,
        frozenset({500}),
        _any(r"requires more (?:system )?memory"),
        "Ollama",
        "ollama llm/server.go",
        "the server's machine is too small for this model",
    ),
    Rule(
        ServerError,
        frozenset({500}),
        re.compile(r"\A\s*Internal Server Error\s*\Z"),
        "transformers serve",
        "transformers 5.24, measured",
        "the server does not say why; its log does (`transformers serve` answers so when it does not know model.name)",
    ),
)
"""Refusals whose status means something else."""

RULES = TOO_LARGE + QUOTAS + TOO_LONG + FILTERS + ACCESS + WRONG_STATUS
