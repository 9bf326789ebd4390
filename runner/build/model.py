"""Build an LM, its cache, its budget and its rate limiter from a config."""

from __future__ import annotations

import hashlib
import inspect
import re
from typing import Any, Literal

import msgspec

from runner.cache import Cache
from runner.config import schema
from runner.cost.budget import Budget
from runner.cost.pricing import Price
from runner.errors import BadRequestError, ConfigError, LMError
from runner.limits import Limiter, endpoint_of
from runner.lm.connection import CONNECTION_KEYS
from runner.lm.lm import LM
from runner.models import aliases
from runner.network.retry import RetryPolicy
from runner.secrets import from_env
from runner.system.paths import expanded, home
from runner.transport import AutoTransport, DirectTransport, FakeTransport, LiteLLMTransport, Transport

_ENV = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}")
_USUAL_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY"}
_TAKEN = (set(inspect.signature(LM).parameters) | CONNECTION_KEYS) - {"temperature", "max_tokens"}


def pinned(config: schema.RunConfig) -> schema.RunConfig:
    """The config with the alias of a model (``tickets@latest``) replaced by the model that it names now.

    So a record says which model was asked, whatever the alias names later.

    Raises:
        ConfigError: there is no such alias, or what it names is no model of this version.
    """
    model = config.model
    if not isinstance(model, schema.LocalModel) or not aliases.is_reference(model.name):
        return config
    _, version = aliases.resolve(model.name)
    try:
        named: schema.Model = msgspec.convert(version.model, schema.Model)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{model.name} names a model that this version of ostinato does not know: {error}") from None
    if isinstance(named, schema.LocalModel):  # what else the config says of a local model holds for this one too
        named = msgspec.structs.replace(model, name=named.name)
    return msgspec.structs.replace(config, model=named)


def lm(config: schema.RunConfig) -> LM:
    """The LM that the config describes, with its cache. Nothing is started, nothing is sent, and no key is needed yet.

    Raises:
        ConfigError: the model does not take these parameters.
    """
    if taken := _TAKEN & config.model.params.keys():
        raise ConfigError(f"model.params.{min(taken)}: is no parameter of a request; it has a place of its own in the config")
    arguments: dict[str, Any] = {
        "temperature": None,
        "max_tokens": None,
        **config.model.params,
        **{key: value for key, value in _sampling(config.sampling).items() if value is not None},
        "model_type": config.model.model_type,
        "cache": cache(config.cache) if config.cache.mode != "off" else False,
        "timeout": config.limits.timeout_s,
    }
    match config.model:
        case schema.LocalModel() as model:
            launch = config.launch
            settings: dict[str, Any] = {
                "backend": model.backend,
                "context": launch.context,
                "parallel": launch.parallel,
                "threads": launch.threads,
            }
            settings |= {"port": launch.port, "timeout_s": launch.timeout_s, "args": launch.args}
            built = LM(f"local/{model.name}", launch_kwargs=settings, **arguments)
        case schema.LiteLLMModel() as model:
            built = LM(model.name, api_base=model.api_base, **arguments)
        case schema.ServerModel() as model:
            built = LM(f"openai/{model.name}", api_base=model.api_base, api_key="none", **arguments)  # clients want some key
        case schema.FakeModel() as model:
            # what it answers depends on its settings, so they are part of the cache key, as an address would be
            built = LM(f"fake/{model.name}", api_base=_fake_address(model), **arguments)
            built.transport = FakeTransport(
                reply=model.reply,
                choices=model.choices,
                latency_s=model.latency_s,
                fail_rate=model.fail_rate,
                failure=_failure(model.fail_with),
                fail_attempts=model.fail_attempts,
            )
    if isinstance(config.model, schema.LiteLLMModel | schema.ServerModel):
        built.transport = _transport(config.model.transport)
        built.price_override = _price(config.model.price)
    limits = config.limits
    pace = {"base_s": 0.01} if isinstance(config.model, schema.FakeModel) else {}  # there is nobody to be polite to
    built.retry = RetryPolicy(max_attempts=limits.max_attempts, deadline_s=limits.deadline_s, **pace)
    built.budget = budget(config.budget)
    return built


def budget(config: schema.Budget) -> Budget | None:
    """What may be used at the most; None when nothing is bounded."""
    if all(bound is None for bound in (config.usd, config.tokens, config.requests)):
        return None
    return Budget(**msgspec.structs.asdict(config))


def limiter(config: schema.RunConfig, lm: LM) -> Limiter:
    """The way to the model's endpoint, whose state is shared with all in this process that ask it with the same key.

    Made once the key is there (`access`).
    """
    limits = config.limits
    return Limiter(
        endpoint_of(*lm.channel().endpoint),
        max_concurrency=limits.max_concurrency,
        rpm=limits.rpm,
        tpm=limits.tpm,
        adaptive=not isinstance(config.model, schema.FakeModel),
    )


def access(config: schema.RunConfig) -> dict[str, Any]:
    """What opens the model's door: ``api_key`` and ``headers``, read from the environment. Only needed to ask, not to replay.

    Raises:
        ConfigError: an environment variable that the config names is not set.
    """
    model = config.model
    if not isinstance(model, schema.LiteLLMModel | schema.ServerModel):
        return {}
    found: dict[str, Any] = {}
    usual = (
        _USUAL_KEYS.get(model.name.partition("/")[0]) if isinstance(model, schema.LiteLLMModel) and not model.api_base else None
    )
    if name := model.api_key_env or usual:
        found["api_key"] = from_env(name, where=f"model {model.name}")
    if model.headers:
        found["headers"] = {
            header: _ENV.sub(lambda name: from_env(name[1], where="model.headers"), value)
            for header, value in model.headers.items()
        }
    return found


def cache(config: schema.Cache) -> Cache:
    """The response cache, not opened yet."""
    folder = expanded(config.dir).absolute() if config.dir else home() / "cache"
    return Cache(folder, mode=config.mode, ttl=config.ttl, size_limit=int(config.size_limit_gb * 2**30))


def _sampling(config: schema.Sampling) -> dict[str, Any]:
    return {
        "temperature": config.temperature,
        "max_tokens": config.max_tokens,
        "top_p": config.top_p,
        "seed": config.seed,
        "stop": config.stop,
        "presence_penalty": config.presence_penalty,
        "frequency_penalty": config.frequency_penalty,
    }


def _transport(chosen: Literal["auto", "direct", "litellm"]) -> Transport:
    match chosen:
        case "auto":
            return AutoTransport()
        case "direct":
            return DirectTransport()
        case "litellm":
            return LiteLLMTransport()


def _price(config: schema.Price) -> Price | None:
    """Dollars per token, from dollars a million; None when no price is given."""
    if config.prompt is None or config.completion is None:
        return None
    others = {name: getattr(config, name) for name in ("cached_prompt", "cache_write", "reasoning")}
    own = {name: usd / 1e6 for name, usd in others.items() if usd is not None}
    return Price(config.prompt / 1e6, config.completion / 1e6, **own)


def _fake_address(model: schema.FakeModel) -> str | None:
    settings = (model.reply, model.choices)
    return f"fake://{hashlib.sha256(repr(settings).encode()).hexdigest()[:12]}" if any(settings) else None


def _failure(code: str) -> type[LMError]:
    return next((cls for cls in LMError.__subclasses__() if cls.code == code), BadRequestError)
