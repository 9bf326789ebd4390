"""Build a training recipe from a config: who trains what, with which hyper-parameters."""

from __future__ import annotations

import shlex
from typing import Any

from runner.build.task import text_in
from runner.config import schema
from runner.errors import ConfigError
from runner.finetune.jobs.hyper import CommandHyper, DatabricksHyper, Hyper, LocalHyper, OpenAIHyper, whole
from runner.finetune.jobs.spec import Access, Recipe
from runner.models.bases import base_of
from runner.providers import databricks, openai
from runner.secrets import redact


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
            text = text_in(chosen.config, "finetune.config") if chosen.config else None
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
