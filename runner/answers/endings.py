"""Tell how an answer ended, by the finish reasons that vendors and servers send."""

from __future__ import annotations

import functools
import logging
from typing import Literal, NamedTuple, TypeAlias

logger = logging.getLogger("ostinato")

Ending: TypeAlias = Literal["complete", "tools", "cut", "refused", "malformed", "failed"]
"""How an answer ended.

- complete: the model has said all that it wanted to say.
- tools: it wants a tool to be called.
- cut: a limit has cut it off.
- refused: the model or a filter refused.
- malformed: the model wrote something that the server cannot read.
- failed: the server failed.
"""


class Reason(NamedTuple):
    """One finish reason: its word, how the answer ended, who sends it, and where that is documented."""

    word: str
    ending: Ending
    vendor: str
    source: str


_OPENAI = "platform.openai.com/docs/api-reference/chat/object"
_RESPONSES = "platform.openai.com/docs/api-reference/responses/object, incomplete_details"
_ANTHROPIC = "docs.claude.com/en/api/handling-stop-reasons"
_GEMINI = "ai.google.dev/api/generate-content#FinishReason"
_COHERE_1 = "docs.cohere.com/v1/reference/chat"
_COHERE = "docs.cohere.com/reference/chat"
_MISTRAL = "docs.mistral.ai/api, ChatCompletionChoice"
_DEEPSEEK = "api-docs.deepseek.com/api/create-chat-completion"
_ZHIPU = "docs.bigmodel.cn/api-reference, chat completions"
_BEDROCK = "docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, stopReason"
_XAI = "github.com/xai-org/xai-proto, sample.proto, FinishReason"
_WATSONX = "cloud.ibm.com/apidocs/watsonx-ai, stop_reason"
_VLLM = "github.com/vllm-project/vllm, vllm/v1/engine/__init__.py, FinishReason"
_TGI = "huggingface.co/docs/text-generation-inference, FinishReason"
_TOGETHER = "docs.together.ai/reference/chat-completions-1"
_LLAMACPP = "github.com/ggml-org/llama.cpp, tools/server/README.md, stop_type"

REASONS = (
    Reason("stop", "complete", "OpenAI and most others", _OPENAI),
    Reason("length", "cut", "OpenAI and most others", _OPENAI),
    Reason("tool_calls", "tools", "OpenAI and most others", _OPENAI),
    Reason("function_call", "tools", "OpenAI", _OPENAI),
    Reason("content_filter", "refused", "OpenAI, Azure, DeepSeek", _OPENAI),
    Reason("refusal", "refused", "Anthropic; ours for a `refusal` in the message", _ANTHROPIC),
    Reason("max_output_tokens", "cut", "OpenAI's responses", _RESPONSES),
    Reason("incomplete", "cut", "OpenAI's responses, without a reason", _RESPONSES),
    Reason("end_turn", "complete", "Anthropic, Bedrock, xAI", _ANTHROPIC),
    Reason("stop_sequence", "complete", "Anthropic, Bedrock, TGI, Cohere, watsonx", _ANTHROPIC),
    Reason("max_tokens", "cut", "Anthropic, Gemini, Cohere, watsonx", _ANTHROPIC),
    Reason("tool_use", "tools", "Anthropic, Bedrock", _ANTHROPIC),
    Reason("pause_turn", "cut", "Anthropic", _ANTHROPIC),
    Reason("compaction", "cut", "Anthropic", "docs.claude.com, context editing"),
    Reason("model_context_window_exceeded", "cut", "Anthropic, Bedrock, Zhipu", _ANTHROPIC),
    Reason("safety", "refused", "Gemini", _GEMINI),
    Reason("recitation", "refused", "Gemini", _GEMINI),
    Reason("language", "refused", "Gemini", _GEMINI),
    Reason("other", "refused", "Gemini", _GEMINI),
    Reason("blocklist", "refused", "Gemini", _GEMINI),
    Reason("prohibited_content", "refused", "Gemini", _GEMINI),
    Reason("spii", "refused", "Gemini", _GEMINI),
    Reason("image_safety", "refused", "Gemini", _GEMINI),
    Reason("image_prohibited_content", "refused", "Gemini", _GEMINI),
    Reason("image_recitation", "refused", "Gemini", _GEMINI),
    Reason("image_other", "refused", "Gemini", _GEMINI),
    Reason("no_image", "malformed", "Gemini", _GEMINI),
    Reason("malformed_function_call", "malformed", "Gemini", _GEMINI),
    Reason("malformed_response", "malformed", "Gemini", _GEMINI),
    Reason("unexpected_tool_call", "malformed", "Gemini", _GEMINI),
    Reason("too_many_tool_calls", "malformed", "Gemini", _GEMINI),
    Reason("missing_thought_signature", "malformed", "Gemini", _GEMINI),
    Reason("complete", "complete", "Cohere", _COHERE),
    Reason("tool_call", "tools", "Cohere", _COHERE),
    Reason("timeout", "failed", "Cohere", _COHERE),
    Reason("error", "failed", "Cohere, Mistral, OpenRouter, vLLM, watsonx", _COHERE),
    Reason("error_toxic", "refused", "Cohere", _COHERE_1),
    Reason("error_limit", "cut", "Cohere", _COHERE_1),
    Reason("user_cancel", "failed", "Cohere", _COHERE_1),
    Reason("model_length", "cut", "Mistral", _MISTRAL),
    Reason("insufficient_system_resource", "failed", "DeepSeek", _DEEPSEEK),
    Reason("sensitive", "refused", "Zhipu, Tencent", _ZHIPU),
    Reason("network_error", "failed", "Zhipu", _ZHIPU),
    Reason("content_filtered", "refused", "Bedrock", _BEDROCK),
    Reason("guardrail_intervened", "refused", "Bedrock", _BEDROCK),
    Reason("malformed_model_output", "malformed", "Bedrock", _BEDROCK),
    Reason("malformed_tool_use", "malformed", "Bedrock", _BEDROCK),
    Reason("max_len", "cut", "xAI", _XAI),
    Reason("max_turns", "cut", "ours for a conversation that is ended", "prompt.max_turns"),
    Reason("max_context", "cut", "xAI", _XAI),
    Reason("time_limit", "cut", "xAI, watsonx", _XAI),
    Reason("token_limit", "cut", "watsonx", _WATSONX),
    Reason("cancelled", "failed", "watsonx", _WATSONX),
    Reason("not_finished", "cut", "watsonx", _WATSONX),
    Reason("abort", "failed", "vLLM, SGLang", _VLLM),
    Reason("repetition", "cut", "vLLM", _VLLM),
    Reason("eos_token", "complete", "TGI, watsonx", _TGI),
    Reason("eos", "complete", "Together, llama.cpp", _TOGETHER),
    Reason("word", "complete", "llama.cpp's own API", _LLAMACPP),
    Reason("limit", "cut", "llama.cpp's own API", _LLAMACPP),
    Reason("normal", "complete", "Baidu Qianfan", "cloud.baidu.com/doc/WENXINWORKSHOP, finish_reason"),
    Reason("max_output", "cut", "MiniMax", "platform.minimaxi.com/document, finish_reason"),
    Reason("aborted", "failed", "clients and gateways of vLLM and SGLang", _VLLM),
    Reason("canceled", "failed", "gateways", _WATSONX),
)
"""Finish reasons in the wild (read in 2026-11), in lower case: vendors differ in that alone (``MAX_TOKENS``, ``max_tokens``)."""

_ENDINGS: dict[str | None, Ending] = {reason.word: reason.ending for reason in REASONS}
_ENDINGS |= {reason.word.upper(): reason.ending for reason in REASONS}
_ENDINGS[None] = "complete"


def ending_of(finish_reason: str | None) -> Ending:
    """Return how an answer with this finish reason ended; without one, or with an unknown one, it counts as complete."""
    return _ENDINGS.get(finish_reason) or _ENDINGS.get(finish_reason.lower() if finish_reason else None, "complete")


def is_known(finish_reason: str | None) -> bool:
    """Return whether the meaning of this finish reason is known."""
    return finish_reason in _ENDINGS or (finish_reason or "").lower() in _ENDINGS


@functools.cache
def warn_of_unknown(finish_reason: str | None) -> None:
    """Say, once in the life of the process, that the meaning of a finish reason is unknown."""
    logger.warning("an answer ended with finish_reason %r, which is not known; such answers count as complete", finish_reason)
