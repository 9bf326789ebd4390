"""Ask a server which weights it serves: behind one address and one name there may be others tomorrow.

OpenAI's list of models (``GET /v1/models``) names a model, and its owner names the software. What else the software says of the
weights, there or at an address of its own, is a row of `SOFTWARE`. Nothing here costs a token, and no failure is an error.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from runner.network.client import request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.attachments import Kind

TIMEOUT_S = 2.0
"""Seconds to wait for each part of an answer."""
_NO_LIST = (404, 405, 501)
"""Statuses of a server that answers, and has no list of models."""
_LOCAL = (".local", ".internal", ".lan", ".home.arpa")

PAID = (
    "openai.com", "azure.com", "anthropic.com", "googleapis.com", "mistral.ai", "x.ai", "deepseek.com", "openrouter.ai",
    "groq.com", "together.xyz", "together.ai", "fireworks.ai", "cerebras.ai", "perplexity.ai", "deepinfra.com", "sambanova.ai",
    "amazonaws.com", "databricks.com", "aliyuncs.com", "nebius.com", "cohere.com", "cohere.ai",
)  # fmt: skip
"""Domains of paid providers, which are never asked (litellm 1.110.2: `openai_compatible_endpoints`, and the large clouds)."""


class Software(NamedTuple):
    """Describe what one server program says of the weights that it serves.

    Attributes:
        name: the program.
        seen: the version in which this was seen.
        owner: its models' ``owned_by``; ``{id}``: the model's own id.
        listed: fields of the model in ``/v1/models`` that identify the weights; a dot leads into an object.
        path: another address that says more, below that of ``/v1``; None: there is none.
        inside: where that answer is a list: its field, and the field with the model's name; None: the answer is one object.
        told: fields there that identify the weights.
    """

    name: str
    seen: str
    owner: str
    listed: tuple[str, ...] = ()
    path: str | None = None
    inside: tuple[str, str] | None = None
    told: tuple[str, ...] = ()


SOFTWARE = (
    Software("vLLM", "0.32", "vllm", ("root", "parent")),
    Software(
        "llama.cpp", "xllamacpp 2026.10", "llamacpp", ("meta.n_params", "meta.size"), "/props", None, ("model_path", "build_info")
    ),
    Software("Ollama", "0.12", "library", (), "/api/tags", ("models", "name"), ("digest",)),
    Software("SGLang", "0.5", "sglang", ("root",), "/get_model_info", None, ("model_path", "weight_version")),
    Software(
        "LM Studio", "0.3.6", "organization_owner", (), "/api/v0/models", ("data", "id"), ("publisher", "arch", "quantization")
    ),
    Software("text-generation-inference", "3.3", "{id}", ("id",), "/info", None, ("model_id", "model_sha", "model_dtype")),
    Software("llama-cpp-python", "0.3.36", "me", ("id",)),
)
"""The programs that say what they serve. From their sources and references, llama.cpp's from a running server."""


class Weights(NamedTuple):
    """Hold what a server says of the weights behind a name. `facts` is empty if it says nothing that tells weights apart."""

    facts: dict[str, str | int]

    def at(self, endpoint: str) -> str:
        """Return the identity of the endpoint: its address and, after ``#``, a name and a digest of the weights, if known.

        The name is the last part of a path or of a repository, so that no folder of a machine gets into a cache or a capsule.
        """
        if not self.facts:
            return endpoint
        digest = hashlib.sha256(msgspec.json.encode(self.facts, order="deterministic")).hexdigest()[:12]
        return f"{endpoint}#{_label(self.facts)}{digest}"


def is_own(api_base: str) -> bool:
    """Return whether an address is on this machine or in its network."""
    host = (urlsplit(api_base).hostname or "").lower()
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(_LOCAL))


def is_paid(api_base: str) -> bool:
    """Return whether an address is that of a paid provider."""
    host = (urlsplit(api_base).hostname or "").lower()
    return any(host == domain or host.endswith(f".{domain}") for domain in PAID)


def weights_of(api_base: str, model: str, headers: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> Weights | None:
    """Return what the server at this address says of the weights behind a model's name.

    Args:
        api_base: the base URL of requests.
        model: the model's name there.
        headers: sent with it, such as the key.
        timeout_s: seconds to wait for each part of an answer.

    Returns:
        The facts, or None if the server cannot be asked now: it is not up, does not answer in time, or refuses the key.
    """
    base = api_base.rstrip("/")
    status, listed = _get(f"{base}/models", headers, timeout_s)
    if listed is None:
        return Weights({}) if status in _NO_LIST else None
    entry = _entry(listed.get("data"), "id", model)
    if entry is None or (software := _software(entry)) is None:
        return Weights({})
    facts = _fields(entry, software.listed)
    if software.path is not None:
        _, more = _get(base.removesuffix("/v1") + software.path, headers, timeout_s)
        if software.inside is not None:
            more = _entry((more or {}).get(software.inside[0]), software.inside[1], str(entry["id"]))
        facts |= _fields(more or {}, software.told)
    return Weights({name: value for name, value in facts.items() if value != model})  # the name is part of every key


_MODALITIES: dict[str, Kind] = {"vision": "image", "audio": "audio"}
"""The names that llama.cpp's server has for the attachments that its model takes (``/props``, xllamacpp 2026.10)."""


def modalities_of(api_base: str, headers: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> set[Kind] | None:
    """Return the attachments that the model of llama.cpp's server takes. None: it is another server, or is not up."""
    _, told = _get(api_base.rstrip("/").removesuffix("/v1") + "/props", headers, timeout_s)
    known = (told or {}).get("modalities")
    return {_MODALITIES[name] for name in _MODALITIES if known.get(name)} if isinstance(known, dict) else None


def _get(url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, dict[str, Any] | None]:
    """Return the status (0: there is no answer) and the JSON object of an answer; None if it is not one."""
    host = urlsplit(url).hostname or ""
    try:
        reply = request("GET", url, headers=headers, timeout_s=timeout_s, proxies=host not in ("localhost", "127.0.0.1", "::1"))
    except (OSError, ValueError):
        return 0, None
    if not reply.ok:
        return reply.status, None
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = None
    return reply.status, found if isinstance(found, dict) else {}


def _entry(listed: Any, field: str, model: str) -> dict[str, Any] | None:
    """Return the object of a list that has this model's name, or the only one: many servers answer to any name."""
    objects = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = [one for one in objects if isinstance(one.get(field), str)]
    named = [one for one in found if one[field] in (model, f"{model}:latest")]  # ":latest" is Ollama's default
    return named[0] if named else found[0] if len(found) == 1 else None


def _software(entry: Mapping[str, Any]) -> Software | None:
    owner = entry.get("owned_by")
    known = (one for one in SOFTWARE if owner == (entry["id"] if one.owner == "{id}" else one.owner))
    return next(known, None)


def _fields(entry: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str | int]:
    """Return those of the fields that are texts or whole numbers, by the last part of their name."""
    facts: dict[str, str | int] = {}
    for name in names:
        value: Any = entry
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            facts[part] = value
    return facts


def _label(facts: Mapping[str, str | int]) -> str:
    """Return a name for people to recognise the weights by, with a colon behind it; nothing if there is none."""
    for name in ("model_path", "root", "model_id", "id", "quantization"):
        if last := re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\]", str(facts.get(name, "")).rstrip("/\\"))[-1])[:60]:
            return f"{last}:"
    return ""
