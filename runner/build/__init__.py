"""The only place where config meets implementation: one `match` on `kind` each. Secrets are read from the environment here."""

from __future__ import annotations

import hashlib
import inspect
import re
import shlex
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from runner import adapters, scoring
from runner.lm.connection import CONNECTION_KEYS
from runner.cost.budget import Budget
from runner.cache import Cache
from runner.config import schema
from runner.data import Dataset, open_dataset
from runner.errors import BadRequestError, ConfigError, LMError
from runner.models import aliases
from runner.finetune.jobs.hyper import CommandHyper, DatabricksHyper, Hyper, LocalHyper, OpenAIHyper, whole
from runner.finetune.jobs.spec import Access, Base, ProviderName
from runner.limits import Limiter, endpoint_of
from runner.lm.lm import LM
from runner.system.paths import expanded, home
from runner.cost.pricing import Price
from runner.providers import databricks, openai
from runner.models.bases import base_of
from runner.network.retry import RetryPolicy
from runner.secrets import from_env, redact
from runner.transport import AutoTransport, DirectTransport, FakeTransport, LiteLLMTransport, Transport

if TYPE_CHECKING:
    from runner.adapters import Adapter
    from runner.scoring import Scorer

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
        endpoint_of(*lm.door()),
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


def dataset(config: schema.RunConfig) -> Dataset:
    """The rows, checked. Raises DataError."""
    data = config.data
    common: dict[str, Any] = {"name": data.name, "id": data.id, "target": data.target, "columns": data.columns}
    common |= {"limit": data.limit, "shuffle": data.shuffle, "seed": data.seed}
    match data:
        case schema.InlineData():
            if not data.rows:
                raise ConfigError("there is no data: choose a file, for example data=jsonl data.path=rows.jsonl")
            return open_dataset("inline", rows=data.rows, **common)
        case schema.JsonlData():
            return open_dataset("jsonl", path=data.path, **common)
        case schema.JsonData():
            return open_dataset("json", path=data.path, **common)
        case schema.CsvData():
            return open_dataset("csv", path=data.path, **common)
        case schema.TsvData():
            return open_dataset("tsv", path=data.path, **common)


def adapter(config: schema.RunConfig) -> Adapter:
    """The adapter with its prompt. Raises ConfigError when it does not fit the model."""
    prompt = config.prompt
    built_prompt = adapters.Prompt(
        system=_text(prompt.system_file, "prompt.system_file") if prompt.system_file else prompt.system,
        user=_text(prompt.user_file, "prompt.user_file") if prompt.user_file else prompt.user or "",
        examples=[{"user": example.user, "assistant": example.assistant} for example in prompt.examples],
    )
    built: Adapter
    match config.adapter:
        case schema.ChatAdapter() as chosen:
            local = isinstance(config.model, schema.LocalModel)
            literal = local if chosen.literal_tokens is None else chosen.literal_tokens
            built = adapters.ChatAdapter(built_prompt, literal_tokens=literal)
        case schema.TextAdapter():
            built = adapters.TextAdapter(built_prompt)
        case schema.JsonAdapter() as chosen:
            literal = isinstance(config.model, schema.LocalModel)
            built = adapters.JsonAdapter(
                built_prompt, chosen.schema, retries=chosen.retries, send_schema=chosen.send_schema, literal_tokens=literal
            )
    wanted = "text" if config.model.model_type == "text" else "chat"
    if built.model_type not in (None, wanted):
        fix = "adapter=text" if wanted == "text" else "model.model_type=text"
        raise ConfigError(f"adapter.kind: '{config.adapter.__struct_config__.tag}' does not fit model_type {wanted}; add {fix}")
    return built


def scorers(config: schema.RunConfig) -> dict[str, Scorer]:
    """The scorers by name; the first is the primary one. Raises ConfigError when they cannot work on this data."""
    match config.scoring:
        case schema.NoScoring():
            return {}
        case schema.SeveralScoring() as several:
            if not several.scorers:
                raise ConfigError("scoring.scorers is empty; name at least one: scoring.scorers={mine: {kind: exact}}")
            built = {name: _scorer(chosen) for name, chosen in several.scorers.items()}
            needy = [chosen for chosen in several.scorers.values() if _needs_target(chosen)]
        case single:
            scorer = _scorer(single)
            built = {scorer.name: scorer}
            needy = [single] if _needs_target(single) else []
    if needy and config.data.target is None:
        kind = needy[0].__struct_config__.tag
        raise ConfigError(f"scoring '{kind}' compares with a target: name its column, data.target=..., or use scoring=none")
    return built


class Recipe(NamedTuple):
    """How a model is trained, in plain values: all that a spec has beside its data.

    Attributes:
        provider: who trains.
        base: what is trained.
        hyper: the whole hyper-parameters.
        access: how a hosted provider is reached.
        window: tokens a row may have, None is not known.
        usd_per_mtokens: the price of a million tokens, None is not known.
    """

    provider: ProviderName
    base: Base
    hyper: dict[str, Any]
    access: Access | None = None
    window: int | None = None
    usd_per_mtokens: float | None = None


def finetuning(config: schema.RunConfig, *, fetch: bool = False) -> Recipe:
    """How the config's model is trained. No key is needed yet.

    Args:
        config: its `finetune` says how.
        fetch: have the weights of a local base on this machine when this returns.

    Raises:
        ConfigError: nothing says how, or what it says does not fit the model.
        LaunchError: weights that cannot be had.
    """
    match config.finetune:
        case None:
            raise ConfigError("nothing says how to train: add finetune=default (or openai, databricks, command)")
        case schema.LocalFinetune() as chosen:
            hyper = whole(LocalHyper, _fields(chosen, LocalHyper))
            return Recipe("local", base_of(_local_base(config), fetch=fetch), hyper, window=chosen.max_length)
        case schema.CommandFinetune() as chosen:
            if chosen.command is None:
                raise ConfigError("finetune.command: is required; name the program and its arguments, as in a shell")
            try:
                words = shlex.split(chosen.command)
            except ValueError as error:
                raise ConfigError(f"finetune.command: {error}, in {chosen.command}") from None
            text = _text(chosen.config, "finetune.config") if chosen.config else None
            if text is not None and redact(text) != text:
                raise ConfigError(
                    f"finetune.config: {chosen.config} holds a secret; have the program read it from the environment"
                )
            hyper = whole(CommandHyper, {"command": words, "config": text})
            return Recipe("command", base_of(_local_base(config), fetch=fetch), hyper)
        case schema.OpenAIFinetune() as chosen:
            named = config.model if isinstance(config.model, schema.LiteLLMModel | schema.ServerModel) else None
            address = chosen.api_base or (named.api_base if named else None)
            key = chosen.api_key_env or (named.api_key_env if named else None) or openai.KEY_ENV
            base = openai.base_of(_hosted_base(config), address)
            hyper = whole(OpenAIHyper, _fields(chosen, OpenAIHyper))
            access = Access(address, key, chosen.poll_s)
            return Recipe("openai", base, hyper, access, chosen.window, chosen.usd_per_mtokens)
        case schema.DatabricksFinetune() as chosen:
            for name in ("train_data_path", "register_to"):
                if getattr(chosen, name) is None:
                    raise ConfigError(f"finetune.{name}: is required; give it as finetune.{name}=...")
            host = databricks.host_of(chosen.host)
            base = databricks.base_of(_hosted_base(config), host)
            hyper = databricks.checked(whole(DatabricksHyper, _fields(chosen, DatabricksHyper)))
            return Recipe("databricks", base, hyper, Access(host, chosen.token_env, chosen.poll_s), chosen.context_length)


def _fields(config: schema.Finetune, hyper: type[Hyper]) -> dict[str, Any]:
    """The hyper-parameters in a config, which has them by the same names."""
    return {name: getattr(config, name) for name in hyper.__struct_fields__}


def _local_base(config: schema.RunConfig) -> str:
    if config.finetune is not None and config.finetune.base is not None:
        return config.finetune.base.removeprefix("local/")
    if not isinstance(config.model, schema.LocalModel):
        kind = config.model.__struct_config__.tag
        raise ConfigError(f"model.kind is {kind}, and only weights are trained on this machine: finetune.base=smollm2")
    return config.model.name


def _hosted_base(config: schema.RunConfig) -> str:
    if config.finetune is not None and config.finetune.base is not None:
        return config.finetune.base
    if not isinstance(config.model, schema.LiteLLMModel | schema.ServerModel):
        raise ConfigError("which model is trained? give its name at the provider: finetune.base=...")
    return config.model.name


def name(config: schema.RunConfig, data: Dataset) -> str:
    """What the run's folder is called: the config's name, else the data's, made safe for a folder."""
    return config.name or re.sub(r"[^A-Za-z0-9._-]+", "-", data.name).strip("-.")[:64] or "run"


def _scorer(config: schema.Scorer) -> Scorer:  # noqa: PLR0911 - one return a kind
    match config:
        case schema.ExactScoring():
            return scoring.Exact(ignore_case=config.ignore_case, strip=config.strip)
        case schema.ContainsScoring():
            return scoring.Contains(ignore_case=config.ignore_case, whole_word=config.whole_word)
        case schema.RegexScoring():
            return scoring.Regex(config.pattern, ignore_case=config.ignore_case)
        case schema.ChoiceScoring():
            return scoring.Choice(config.labels, pick=config.pick, ignore_case=config.ignore_case)
        case schema.NumericScoring():
            return scoring.Numeric(
                tolerance=config.tolerance,
                relative=config.relative,
                extract=config.extract,
                target_pattern=config.target_pattern,
            )
        case schema.JsonMatchScoring():
            return scoring.JsonMatch(keys=config.keys)
        case schema.F1Scoring():
            return scoring.F1()
        case schema.PythonScoring():
            return scoring.Python(config.function)


def _needs_target(config: schema.Scorer) -> bool:
    match config:
        case schema.PythonScoring():
            return False
        case schema.RegexScoring(pattern=pattern):
            return pattern is None
        case _:
            return True


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


def _text(path: str, key: str) -> str:
    try:
        return expanded(path).read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{key}: {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{key}: {path}: not UTF-8 at byte {error.start}") from None
