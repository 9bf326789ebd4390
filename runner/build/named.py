"""Named models: those that a run asks beside its main one, such as the judge of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from runner.build.model import budget
from runner.config import schema
from runner.errors import ConfigError
from runner.solvers.user import USER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from runner.config.schema.model import Model
    from runner.config.schema.request import Sampling
    from runner.cost.budget import Budget


def named(config: schema.RunConfig) -> dict[str, schema.RunConfig]:
    """Return what each named model is built from: the run's config with that model, and its sampling.

    Its cache, limits, launch and budget are the run's. `build.lm`, `build.access` and `build.limiter` take such a config.

    Raises:
        ConfigError: two models have one name.
    """
    found: dict[str, schema.RunConfig] = {}
    for name, model, sampling in declared(config):
        if name in found:
            raise ConfigError(f"two models of this run are named '{name}'; give one of them another name")
        found[name] = msgspec.structs.replace(config, model=model, sampling=sampling, finetune=None)
    return found


def declared(config: schema.RunConfig) -> Iterator[tuple[str, Model, Sampling]]:
    """Yield the named models of a config: name, model and sampling."""
    yield from scoring_models(config)
    if (user := config.prompt.simulated_user) is not None:
        yield USER, user.model, user.sampling
    if isinstance(config.solver, schema.solver.PythonSolver):
        for name, model in config.solver.models.items():
            yield f"solver.{name}", model, sampling_of(model)


def scoring_models(config: schema.RunConfig) -> Iterator[tuple[str, Model, Sampling]]:
    """Yield the models that scorers ask: ``SCORER.NAME`` for those of a function."""
    for scorer_name, scorer in scorings(config.scoring).items():
        if isinstance(scorer, schema.scoring.PythonScoring):
            prefix = scorer_name or scorer.function.rpartition(":")[2]
            for name, model in scorer.models.items():
                yield f"{prefix}.{name}", model, sampling_of(model)
        elif isinstance(scorer, schema.judging.Judging):
            yield scorer_name or str(scorer.__struct_config__.tag), scorer.model, scorer.sampling
        elif isinstance(scorer, schema.judging.EmbeddingScoring):
            yield scorer_name or "embedding", scorer.model, sampling_of(scorer.model)
        elif isinstance(scorer, schema.judging.PanelScoring):
            for name, judge in scorer.judges.items():
                yield f"{scorer_name or 'panel'}.{name}", judge.model, judge.sampling


def scorings(config: schema.scoring.Scoring) -> Mapping[str, schema.scoring.Scoring]:
    """Return the scorers of a config by name; one that stands alone has none (an empty text)."""
    return config.scorers if isinstance(config, schema.scoring.SeveralScoring) else {"": config}


def sampling_of(model: Model) -> Sampling:
    """Return the sampling of a model that has no such group: the defaults, but for what ``params`` sets."""
    return msgspec.structs.replace(
        schema.request.Sampling(), **{name: None for name in ("temperature", "max_tokens") if name in model.params}
    )


def scoring_budget(config: schema.RunConfig) -> Budget | None:
    """Return the part of the run's budget that its scorers may use; None: as much as the run."""
    if not isinstance(config.scoring, schema.judging.Asking):
        return None
    return budget(config.scoring.budget, key="scoring.budget")


def each_model(config: schema.RunConfig, change: Callable[[Model], Model]) -> schema.RunConfig:
    """Return the config with each of its models, named ones included, as `change` returns it."""
    replace = msgspec.structs.replace
    scoring = config.scoring
    if isinstance(scoring, schema.scoring.SeveralScoring):
        scoring = replace(scoring, scorers={name: _changed(one, change) for name, one in scoring.scorers.items()})
    else:
        scoring = _changed(scoring, change)
    prompt = config.prompt
    if (user := prompt.simulated_user) is not None:
        prompt = replace(prompt, simulated_user=replace(user, model=change(user.model)))
    solver = config.solver
    if isinstance(solver, schema.solver.PythonSolver) and solver.models:
        solver = replace(solver, models={name: change(model) for name, model in solver.models.items()})
    return replace(config, model=change(config.model), scoring=scoring, prompt=prompt, solver=solver)


def _changed(scorer: schema.scoring.Scoring, change: Callable[[Model], Model]) -> schema.scoring.Scoring:
    if isinstance(scorer, schema.scoring.PythonScoring) and scorer.models:
        return msgspec.structs.replace(scorer, models={name: change(model) for name, model in scorer.models.items()})
    if isinstance(scorer, schema.judging.Judging | schema.judging.EmbeddingScoring):
        return msgspec.structs.replace(scorer, model=change(scorer.model))
    if isinstance(scorer, schema.judging.PanelScoring):
        judges = {name: msgspec.structs.replace(one, model=change(one.model)) for name, one in scorer.judges.items()}
        return msgspec.structs.replace(scorer, judges=judges)
    return scorer
