"""Remarks on what servers do silently: parameters that they ignore, and values that mean something else there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Remark(NamedTuple):
    """One thing that a server does silently.

    Attributes:
        servers: the servers that do it (`SERVERS`); empty: some servers do, and nobody knows which one it is.
        parameter: the field of the request; empty: whatever the request says.
        applies: given its value, whether it is of the kind meant; the parameter was sent.
        says: what happens, for people.
        source: with which version it was seen.
    """

    servers: tuple[str, ...]
    parameter: str
    applies: Callable[[Any], bool]
    says: str
    source: str


SERVERS = ("llamacpp", "llama-cpp-python", "transformers", "vllm", "sglang", "ollama")
"""Names of server software, as in ``model.backend`` and ``model.software``."""

BY_PREFIX = {"hosted_vllm": "vllm", "vllm": "vllm", "ollama": "ollama", "ollama_chat": "ollama"}
"""Servers that a model's provider prefix names."""

_UNCONSTRAINED = re.compile(
    r"^(minimum|maximum|exclusiveM\w+|multipleOf|uniqueItems|format|not|if|then|else|contains|propertyNames|dependent\w+)$"
)


def _sent(_: Any) -> bool:
    return True


def _several(value: Any) -> bool:
    return isinstance(value, int) and value > 1


def _negative(value: Any) -> bool:
    return isinstance(value, int) and value < 0


def _holds_nothing(value: Any) -> bool:
    return value == "" or (isinstance(value, list) and "" in value)


def _is_json_object(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "json_object"


def _is_loose(value: Any) -> bool:
    schema = value.get("json_schema", {}).get("schema") if isinstance(value, dict) else None
    return any(_UNCONSTRAINED.match(key) or (key == "pattern" and not _anchored(found)) for key, found in _keywords(schema))


def _anchored(pattern: Any) -> bool:
    return isinstance(pattern, str) and pattern.startswith("^") and pattern.endswith("$")


def _keywords(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keywords of a JSON schema and of the schemas in it, with their values. Names of properties are none."""
    for part in schema if isinstance(schema, list) else []:
        yield from _keywords(part)
    for key, value in schema.items() if isinstance(schema, dict) else ():
        yield key, value
        named = key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict)
        for inner in value.values() if named else [] if key in ("enum", "const", "default", "examples") else [value]:
            yield from _keywords(inner)


_TRANSFORMERS, _PYTHON = "transformers serve 5.24", "llama-cpp-python 0.3.36"
_LLAMACPP = "llama.cpp (xllamacpp 2026.10)"
_UNLESS = "acts only where the model's generation_config says do_sample"

REMARKS = (
    Remark(("transformers",), "temperature", lambda value: value not in (0, None), f"temperature {_UNLESS}", _TRANSFORMERS),
    Remark(("transformers",), "top_p", _sent, f"top_p {_UNLESS}", _TRANSFORMERS),
    Remark(("transformers",), "seed", _sent, "the seed is the process's: answers do not repeat", _TRANSFORMERS),
    Remark(("transformers",), "n", _several, "n is ignored: there is one answer", _TRANSFORMERS),
    Remark(("transformers",), "logprobs", bool, "logprobs are ignored: there are none", _TRANSFORMERS),
    Remark(("transformers",), "response_format", _sent, "response_format is ignored: answers are not constrained", _TRANSFORMERS),
    Remark(("transformers",), "presence_penalty", bool, "presence_penalty is ignored", _TRANSFORMERS),
    Remark(("transformers",), "frequency_penalty", bool, "frequency_penalty is ignored", _TRANSFORMERS),
    Remark(("transformers",), "stop", _sent, "the stop text stays in the answer", _TRANSFORMERS),
    Remark(("transformers",), "", _sent, "a prompt that is longer than the model's window is answered with 200", _TRANSFORMERS),
    Remark(("llama-cpp-python",), "n", _several, "n is ignored: there is one answer", _PYTHON),
    Remark(("llama-cpp-python",), "max_completion_tokens", _sent, "max_completion_tokens is ignored", _PYTHON),
    Remark(("llama-cpp-python",), "", _sent, "any model name is echoed: the record's model_served proves nothing", _PYTHON),
    Remark(("llamacpp",), "seed", lambda value: value >= 2**32, "seeds are taken modulo 2**32", _LLAMACPP),
    Remark(("llamacpp",), "top_logprobs", lambda value: value == 0, "top_logprobs 0 gives no log probabilities", _LLAMACPP),
    Remark(
        ("llamacpp",),
        "n",
        _several,
        "token counts are those of the first answer only, so the others look free; answer i is drawn with seed + i, so runs "
        "whose seeds are closer than n share answers",
        _LLAMACPP,
    ),
    Remark(("llamacpp",), "response_format", _is_json_object, "json_object means objects only", _LLAMACPP),
    Remark(
        ("llamacpp",),
        "response_format",
        _is_loose,
        "the schema has keywords that are ignored (bounds of numbers, format, uniqueItems, patterns without ^ and $, ...); "
        "answers are checked against them, but not held to them",
        _LLAMACPP,
    ),
    Remark(("llamacpp",), "tools", _sent, "tools are dropped where the model's template knows none", _LLAMACPP),
    Remark(("llamacpp",), "echo", bool, "echo is ignored", _LLAMACPP),
    Remark((), "seed", _negative, "a negative seed is random on llama.cpp and vLLM: answers do not repeat", "both, 2026-10"),
    Remark((), "stop", _holds_nothing, "an empty stop text ends every answer at once on llama.cpp", _LLAMACPP),
)  # fmt: skip


def remarks(server: str | None, params: Mapping[str, Any], *, hosted: bool = False) -> list[str]:
    """Return what is to be said of a request's parameters, for people.

    Args:
        server: the software that serves the model, one of `SERVERS`; None: unknown.
        params: the parameters, as they are sent.
        hosted: whether a provider serves it: then remarks on servers of one's own say nothing.
    """
    found = []
    for remark in REMARKS:
        known = server in remark.servers
        general = not remark.servers and not hosted and server in (None, "llamacpp", "vllm")
        value = params.get(remark.parameter) if remark.parameter else True
        if (known or general) and value is not None and remark.applies(value):
            found.append(f"{server}: {remark.says}" if known else remark.says)
    return found
