"""Build an LM, its cache, its budget and its rate limiter from a config."""

from __future__ import annotations

import hashlib
import inspect
import re
from typing import TYPE_CHECKING, Any

import msgspec

from runner import plugins, transport
from runner.cache import Cache
from runner.config import schema
from runner.cost.budget import Budget
from runner.cost.pricing import Price
from runner.errors import BadRequestError, ConfigError, LMError
from runner.lm.connection import CONNECTION_KEYS
from runner.lm.lm import LM
from runner.models import aliases
from runner.network.retry import RetryPolicy
from runner.secrets import from_env
from runner.servers.remarks import BY_PREFIX
from runner.servers.remarks import remarks as silent
from runner.system.paths import expanded, home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.limits import Limiter

_ENV = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_USUAL_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
"""Environment variables that hold the key of a provider when the config names none."""

_TAKEN = (set(inspect.signature(LM).parameters) | CONNECTION_KEYS) - {"temperature", "max_tokens"}
"""Names that `model.params` may not use, because other fields of the config set them."""


def pinned(model: schema.model.Model) -> schema.model.Model:
    """Return the model that an alias (``tickets@latest``) names now; any other model as it is.

    The record then says which model was asked, whatever the alias names later.

    Raises:
        ConfigError: the alias does not exist, or this version does not know the model that it names.
    """
    if not isinstance(model, schema.model.LocalModel) or not aliases.is_reference(model.name):
        return model
    _, version = aliases.resolve(model.name)
    try:
        named: schema.model.Model = msgspec.convert(version.model, schema.model.Model)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{model.name} names a model that this version of ostinato does not know: {error}") from None
    if isinstance(named, schema.model.LocalModel):  # the other fields of a local model stay as configured
        named = msgspec.structs.replace(model, name=named.name)
    return named


def lm(config: schema.RunConfig) -> LM:
    """Build the LM with its cache, retry policy and budget. Nothing is started or sent, and no key is needed yet.

    Raises:
        ConfigError: `model.params` sets something that another field of the config sets.
    """
    built = _of_kind(config)
    limits = config.limits
    pace = {"base_s": 0.01} if isinstance(config.model, schema.model.FakeModel) else {}  # no server needs a pause
    built.retry = RetryPolicy(max_attempts=limits.max_attempts, deadline_s=limits.deadline_s, **pace)
    built.budget = budget(config.budget)
    built.split_thinking = config.model.thinking == "split"
    return built


def _of_kind(config: schema.RunConfig) -> LM:
    """Build the LM, with the transport and the price of its kind of model."""
    arguments = _arguments(config)
    match config.model:
        case schema.model.LocalModel() as model:
            concurrency = config.limits.max_concurrency
            launch = {"backend": model.backend, "concurrency": concurrency, **msgspec.structs.asdict(config.launch)}
            return LM(f"local/{model.name}", launch_kwargs=launch, **arguments)
        case schema.model.LiteLLMModel() as model:
            built = LM(model.name, api_base=model.api_base, **arguments)
        case schema.model.ServerModel() as model:
            built = LM(f"openai/{model.name}", api_base=model.api_base, api_key="none", **arguments)  # clients require a key
        case schema.model.FakeModel() as model:
            # its answers depend on its settings, so they are part of the cache key, as the address of a real model is
            built = LM(f"fake/{model.name}", api_base=_fake_address(model), **arguments)
            built.transport = transport.FakeTransport(
                reply=model.reply,
                choices=model.choices,
                latency_s=model.latency_s,
                fail_rate=model.fail_rate,
                failure=_failure(model.fail_with),
                fail_attempts=model.fail_attempts,
            )
            return built
    built.transport = _transport(model.transport)
    built.price_override = _price(model.price)
    built.unsupported = model.unsupported
    return built


def _arguments(config: schema.RunConfig) -> dict[str, Any]:
    """Return what every kind of model is built with: its parameters, its cache, and how answers are waited for."""
    if taken := _TAKEN & config.model.params.keys():
        raise ConfigError(f"model.params.{min(taken)}: is not a parameter of a request; another field of the config sets it")
    return {
        "temperature": None,
        "max_tokens": None,
        **config.model.params,
        **{key: value for key, value in _sampling(config.sampling).items() if value is not None},
        "model_type": config.model.model_type,
        "cache": cache(config.cache) if config.cache.mode != "off" else False,
        "timeout": config.limits.timeout_s,
        "stream": config.limits.stream,
        "silence": config.limits.silence_s,
    }


def budget(config: schema.running.Budget, key: str = "budget") -> Budget | None:
    """Build the budget that the config has under `key`; None when nothing is bounded."""
    if all(bound is None for bound in (config.usd, config.tokens, config.requests)):
        return None
    made = Budget(**msgspec.structs.asdict(config), key=key)
    made.more = f"resume with a larger one: ostinato resume RUN {key}.{{bound}}=..."
    return made


def limiter(config: schema.RunConfig, lm: LM) -> Limiter:
    """Build the rate limiter of the model's endpoint. Call `access` first: the key is part of the endpoint's identity.

    All limiters in this process with the same endpoint and key share their state.
    """
    from runner.limits import Limiter, endpoint_of  # of no use to a run that the cache answers

    limits = config.limits
    return Limiter(
        endpoint_of(*lm.channel().endpoint),
        max_concurrency=limits.max_concurrency,
        rpm=limits.rpm,
        tpm=limits.tpm,
        adaptive=not isinstance(config.model, schema.model.FakeModel),
    )


def access(config: schema.RunConfig) -> dict[str, Any]:
    """Read ``api_key`` and ``headers`` from the environment. They are needed to send requests, not to replay.

    Raises:
        ConfigError: an environment variable that the config names is not set.
    """
    model = config.model
    if not isinstance(model, schema.model.LiteLLMModel | schema.model.ServerModel):
        return {}
    found: dict[str, Any] = {}
    usual = (
        _USUAL_KEYS.get(model.name.partition("/")[0])
        if isinstance(model, schema.model.LiteLLMModel) and not model.api_base
        else None
    )
    if name := model.api_key_env or usual:
        found["api_key"] = from_env(name, where=f"model {model.name}")
    if model.headers:
        found["headers"] = {
            header: _ENV.sub(lambda name: from_env(name[1], where="model.headers"), value)
            for header, value in model.headers.items()
        }
    return found


def cache(config: schema.running.Cache) -> Cache:
    """Build the response cache. It is not opened yet."""
    folder = expanded(config.dir).absolute() if config.dir else home() / "cache"
    return Cache(folder, mode=config.mode, ttl=config.ttl, size_limit=int(config.size * 2**30))


def remarks(config: schema.RunConfig, params: Mapping[str, Any]) -> list[str]:
    """Return what is to be said of a run's request parameters: where its server is known to ignore them, for example."""
    match config.model:
        case schema.model.FakeModel():
            return []
        case schema.model.LocalModel() as model:
            return silent(model.backend, params)
        case schema.model.ServerModel() as model:
            return silent(model.software, params)
        case schema.model.LiteLLMModel() as model:
            server = BY_PREFIX.get(model.name.partition("/")[0])
            return silent(server, params, hosted=server is None and model.api_base is None)


def _sampling(config: schema.request.Sampling) -> dict[str, Any]:
    return {
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "top_p": config.top_p,
        "seed": config.seed,
        "stop": config.stop,
        "presence_penalty": config.presence_penalty,
        "frequency_penalty": config.frequency_penalty,
    }


def _transport(chosen: str) -> transport.Transport:
    match chosen:
        case "auto":
            return transport.AutoTransport()
        case "direct":
            return transport.DirectTransport()
        case "litellm":
            return transport.LiteLLMTransport()
    made: transport.Transport = plugins.add("transport", chosen, {}, besides=schema.model.TRANSPORTS).made
    return made


def _price(config: schema.model.Price) -> Price | None:
    """Convert dollars per million tokens to dollars per token; None when no price is given."""
    if config.prompt is None or config.completion is None:
        return None
    others = {name: getattr(config, name) for name in ("cached_prompt", "cache_write", "reasoning")}
    own = {name: usd / 1e6 for name, usd in others.items() if usd is not None}
    return Price(config.prompt / 1e6, config.completion / 1e6, **own)


def _fake_address(model: schema.model.FakeModel) -> str | None:
    settings = (model.reply, model.choices)
    return f"fake://{hashlib.sha256(repr(settings).encode()).hexdigest()[:12]}" if any(settings) else None


def _failure(code: str) -> type[LMError]:
    return next((cls for cls in LMError.__subclasses__() if cls.code == code), BadRequestError)
