"""Build a training recipe from a config: who trains what, with which hyper-parameters."""

from __future__ import annotations

import shlex
from typing import Any

from runner.build.text import text_in
from runner.config import schema
from runner.errors import ConfigError
from runner.finetune.jobs.hyper import CommandHyper, DatabricksHyper, Hyper, LocalHyper, OpenAIHyper, whole
from runner.finetune.jobs.spec import Access, Recipe
from runner.models.bases import base_of
from runner.providers import databricks, openai
from runner.secrets import redact


def finetuning(config: schema.RunConfig, *, fetch: bool = False) -> Recipe:
    """Return how the config's model is trained. No key is needed yet.

    Args:
        config: its group `finetune` says how to train.
        fetch: download the weights of a local base that are not on this machine.

    Raises:
        ConfigError: `finetune` is null, or does not fit the model.
        LaunchError: the weights cannot be downloaded.
    """
    match config.finetune:
        case None:
            raise ConfigError("finetune is not set; choose how to train: finetune=default (or openai, databricks, command)")
        case schema.finetuning.LocalFinetune() as chosen:
            hyper = whole(LocalHyper, _fields(chosen, LocalHyper))
            return Recipe("local", base_of(_local_base(config), fetch=fetch), hyper, window=chosen.max_length)
        case schema.finetuning.CommandFinetune() as chosen:
            hyper = whole(CommandHyper, _command(chosen))
            return Recipe("command", base_of(_local_base(config), fetch=fetch), hyper)
        case schema.finetuning.OpenAIFinetune() as chosen:
            return _openai(config, chosen)
        case schema.finetuning.DatabricksFinetune() as chosen:
            return _databricks(config, chosen)


def _command(chosen: schema.finetuning.CommandFinetune) -> dict[str, Any]:
    """Return the words of the program's command line and the text of its config file."""
    if chosen.command is None:
        raise ConfigError("finetune.command: is required; name the program and its arguments, as in a shell")
    try:
        words = shlex.split(chosen.command)
    except ValueError as error:
        raise ConfigError(f"finetune.command: {error}, in {chosen.command}") from None
    text = text_in(chosen.config, "finetune.config") if chosen.config else None
    if text is not None and redact(text) != text:
        raise ConfigError(f"finetune.config: {chosen.config} contains a secret; have the program read it from the environment")
    return {"command": words, "config": text}


def _openai(config: schema.RunConfig, chosen: schema.finetuning.OpenAIFinetune) -> Recipe:
    """Train at the address and with the key of `finetune`; those of the model are the defaults."""
    address, key = chosen.api_base, chosen.api_key_env
    if isinstance(config.model, schema.model.LiteLLMModel | schema.model.ServerModel):
        address, key = address or config.model.api_base, key or config.model.api_key_env
    return Recipe(
        "openai",
        openai.base_of(_hosted_base(config), address),
        whole(OpenAIHyper, _fields(chosen, OpenAIHyper)),
        Access(address, key or openai.KEY_ENV, chosen.poll_s),
        chosen.window,
        chosen.usd_per_mtokens,
    )


def _databricks(config: schema.RunConfig, chosen: schema.finetuning.DatabricksFinetune) -> Recipe:
    for name in ("train_data_path", "register_to"):
        if getattr(chosen, name) is None:
            raise ConfigError(f"finetune.{name}: is required; give it as finetune.{name}=...")
    host = databricks.host_of(chosen.host)
    return Recipe(
        "databricks",
        databricks.base_of(_hosted_base(config), host),
        databricks.checked(whole(DatabricksHyper, _fields(chosen, DatabricksHyper))),
        Access(host, chosen.token_env, chosen.poll_s),
        chosen.context_length,
    )


def _fields(config: schema.finetuning.Finetune, hyper: type[Hyper]) -> dict[str, Any]:
    """Return the hyper-parameters of a config, which has fields of the same names."""
    return {name: getattr(config, name) for name in hyper.__struct_fields__}


def _local_base(config: schema.RunConfig) -> str:
    if config.finetune is not None and config.finetune.base is not None:
        return config.finetune.base.removeprefix("local/")
    if not isinstance(config.model, schema.model.LocalModel):
        kind = config.model.__struct_config__.tag
        raise ConfigError(f"model.kind is {kind}, but this machine trains only local weights; name them: finetune.base=smollm2")
    return config.model.name


def _hosted_base(config: schema.RunConfig) -> str:
    if config.finetune is not None and config.finetune.base is not None:
        return config.finetune.base
    if not isinstance(config.model, schema.model.LiteLLMModel | schema.model.ServerModel):
        raise ConfigError("finetune.base is not set; give the provider's name of the model to train: finetune.base=...")
    return config.model.name
