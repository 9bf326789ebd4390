"""Build the rows, the adapter and the scorers from a config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from runner import plugins, scoring
from runner.adapters.templates import Template
from runner.config import schema
from runner.data import Columns, Dataset, Kind, Selection, open_anywhere, open_dataset
from runner.errors import ConfigError, DataError
from runner.scoring.counting import Counting
from runner.types import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.scoring import Scorer


KINDS: dict[type[schema.data.FileSource], Kind] = {
    schema.data.FileData: "file",
    schema.data.JsonlData: "jsonl",
    schema.data.JsonData: "json",
    schema.data.CsvData: "csv",
    schema.data.TsvData: "tsv",
    schema.data.ParquetData: "parquet",
    schema.data.ArrowData: "arrow",
}


def dataset(config: schema.RunConfig) -> Dataset:
    """Open the rows and check each one that will be used.

    Raises:
        ConfigError: the config has no rows.
        DataError: the data cannot be used.
    """
    data = config.data
    common: dict[str, Any] = {
        "name": data.name,
        "columns": Columns(data.id, data.target, {new: _column(new, old) for new, old in data.columns.items()}, data.cluster),
        "selection": _selection(data),
    }
    match data:
        case schema.data.InlineData():
            if not data.rows:
                raise ConfigError("there is no data: choose a file, for example data=jsonl data.path=rows.jsonl")
            return open_dataset("inline", rows=data.rows, **common)
        case schema.data.PluginData():
            return open_dataset("inline", rows=_rows(data), **(common | {"name": data.name or data.source}))
        case schema.data.XlsxData():
            return open_anywhere("xlsx", data.path, sheet=data.sheet, token_env=data.token_env, **common)
        case _:
            return open_anywhere(KINDS[type(data)], data.path, token_env=data.token_env, **common)


def _rows(data: schema.data.PluginData) -> list[dict[str, Any]]:
    """Return the rows of a package. Raises ConfigError if it cannot be made, and DataError if it fails."""
    added = plugins.add("data source", data.source, data.params)
    try:
        return list(added.made)
    except Exception as error:  # boundary: another package's code may raise anything; the error names the package
        raise DataError(f"{added.where} failed: {type(error).__name__}: {error}") from error


def _column(name: str, source: str) -> str | Callable[[dict[str, Any]], str]:
    """Return a column's name or path, or the function that fills in a template."""
    if "{{" not in source and "{%" not in source:
        return source
    template = Template(source, where=f"data.columns.{name}")
    return lambda fields: template.render(Row("", fields))


def _selection(data: schema.data.Data) -> Selection:
    share, _, of = (data.shard or "").partition("/")
    return Selection(
        where=data.where,
        ids=None if data.ids is None else frozenset(map(str, data.ids)),
        span=None if data.range is None else (data.range[0], data.range[1]),
        shard=(int(share), int(of)) if data.shard else None,
        sample=data.sample,
        stratify=data.stratify,
        shuffle=data.shuffle,
        limit=data.limit,
        seed=data.seed,
    )


def scorers(config: schema.RunConfig) -> dict[str, Scorer]:
    """Build the scorers by name; the first is the primary one.

    Raises:
        ConfigError: no scorer is named, or one needs a target and the data has none.
    """
    match config.scoring:
        case schema.scoring.NoScoring():
            return {}
        case schema.scoring.SeveralScoring() as several:
            if not several.scorers:
                raise ConfigError("scoring.scorers is empty; name at least one: scoring.scorers={mine: {kind: exact}}")
            _check_order(several)
            built = {name: _scorer(chosen, name, config.runs_dir) for name, chosen in several.scorers.items()}
            needy = [chosen for chosen in several.scorers.values() if _needs_target(chosen)]
        case single:
            if isinstance(single, schema.judging.JudgeScoring) and single.when is not None:
                raise ConfigError("scoring.when: there is no other score; put both scorers into scoring=several")
            scorer = _scorer(single, runs_dir=config.runs_dir)
            built = {scorer.name: scorer}
            needy = [single] if _needs_target(single) else []
    if needy and config.data.target is None:
        kind = needy[0].__struct_config__.tag
        raise ConfigError(f"scoring '{kind}' compares with a target: name its column, data.target=..., or use scoring=none")
    return built


def pass_at(config: schema.RunConfig) -> tuple[int, ...]:
    """Return the k of pass@k.

    Raises:
        ConfigError: a k is larger than the number of answers per row.
    """
    chosen = config.scoring
    if not isinstance(chosen, schema.scored.Scored) or not chosen.pass_at:
        return ()
    if (most := max(chosen.pass_at)) > config.sampling.repeats:
        raise ConfigError(f"scoring.pass_at: pass@{most} needs {most} answers per row: sampling.repeats={most} or more")
    return tuple(chosen.pass_at)


def counting(config: schema.RunConfig) -> Counting:
    """Return how samples without a whole answer count in the scores."""
    chosen = config.scoring
    return Counting(*chosen.counting) if isinstance(chosen, schema.scored.Scored) else Counting()


def scoring_remarks(config: schema.RunConfig) -> list[str]:
    """Return what is to be said of the scorers: where labels may be taken for words, for example."""
    scorings = config.scoring.scorers if isinstance(config.scoring, schema.scoring.SeveralScoring) else {"": config.scoring}
    return [
        f"scoring{'.scorers.' * bool(name)}{name}: the labels {', '.join(letters)} are single letters, and words such as 'a' or "
        "'I' may be taken for them; set ignore_case=false"
        for name, chosen in scorings.items()
        if isinstance(chosen, schema.scoring.ChoiceScoring)
        and chosen.ignore_case
        and (letters := scoring.single_letters(chosen.labels))
    ]


def name(config: schema.RunConfig, data: Dataset) -> str:
    """Return the experiment's name: the config's, else the data's, made safe for a folder."""
    return config.name or re.sub(r"[^A-Za-z0-9._-]+", "-", data.name).strip("-.")[:64] or "run"


def _check_order(several: schema.scoring.SeveralScoring) -> None:
    """Raise ConfigError if a judge waits for a score that does not stand before it."""
    before: list[str] = []
    for name, scorer in several.scorers.items():
        if isinstance(scorer, schema.judging.JudgeScoring) and scorer.when is not None and scorer.when.score not in before:
            told = f"the scores before it are {', '.join(before)}" if before else "it is the first"
            raise ConfigError(f"scoring.scorers.{name}.when.score: '{scorer.when.score}' is not a score before this one; {told}")
        before.append(name)


def _scorer(config: schema.scoring.Scorer, name: str = "", runs_dir: str = "runs") -> Scorer:  # noqa: PLR0911 - one per kind
    """Build a scorer; `name` is its name among several."""
    match config:
        case (
            schema.judging.JudgeScoring()
            | schema.judging.PairwiseScoring()
            | schema.judging.PanelScoring()
            | schema.judging.EmbeddingScoring()
        ):
            from runner.build.judging import judging  # its modules are of no use to other runs

            return judging(config, name, runs_dir)
        case schema.scoring.ExactScoring():
            return scoring.Exact(ignore_case=config.ignore_case, strip=config.strip, straight_quotes=config.straight_quotes)
        case schema.scoring.ContainsScoring():
            return scoring.Contains(
                ignore_case=config.ignore_case, whole_word=config.whole_word, straight_quotes=config.straight_quotes
            )
        case schema.scoring.RegexScoring():
            return scoring.Regex(config.pattern, ignore_case=config.ignore_case)
        case schema.scoring.ChoiceScoring():
            return scoring.Choice(config.labels, pick=config.pick, ignore_case=config.ignore_case)
        case schema.scoring.NumericScoring():
            return scoring.Numeric(
                tolerance=config.tolerance,
                relative=config.relative,
                extract=config.extract,
                decimal=config.decimal,
                target_pattern=config.target_pattern,
            )
        case schema.scoring.MathScoring():
            return scoring.Math(limit_s=config.limit_s)
        case schema.scoring.JsonMatchScoring():
            return scoring.JsonMatch(keys=config.keys)
        case schema.scoring.JsonSchemaScoring():
            return scoring.JsonSchema(config.schema)
        case schema.scoring.F1Scoring():
            return scoring.F1()
        case schema.scoring.PythonScoring():
            return scoring.Python(config.function, config.models, name)
        case _:
            return _further(config)


def _further(  # noqa: PLR0911 - one return per kind
    config: schema.scoring.EditScoring
    | schema.scoring.ChrfScoring
    | schema.scoring.BleuScoring
    | schema.scoring.RougeScoring
    | schema.scoring.MeasureScoring
    | schema.scoring.ToolsScoring
    | schema.scoring.PluginScoring
    | schema.scoring.NotScoring
    | schema.scoring.AllScoring
    | schema.scoring.AnyScoring,
) -> Scorer:
    """Build a scorer that needs the extra `scorers`, that measures, that another package has, or that is made of others."""
    match config:
        case schema.scoring.EditScoring():
            return scoring.Edit(ignore_case=config.ignore_case)
        case schema.scoring.ChrfScoring():
            return scoring.Chrf(word_order=config.word_order)
        case schema.scoring.BleuScoring():
            return scoring.Bleu(tokenize=config.tokenize)
        case schema.scoring.RougeScoring():
            return scoring.Rouge(variant=config.variant, measure=config.measure)
        case schema.scoring.ToolsScoring():
            return scoring.Calls(order=config.order, arguments=config.arguments)
        case schema.scoring.MeasureScoring():
            return scoring.Measure(config.what, at_most=config.at_most)
        case schema.scoring.PluginScoring():
            return scoring.Plugin(config.name, config.params)
        case schema.scoring.NotScoring():
            return scoring.Not(_scorer(config.scorer))
        case schema.scoring.AllScoring() | schema.scoring.AnyScoring():
            how: Literal["all", "any"] = "all" if isinstance(config, schema.scoring.AllScoring) else "any"
            if not config.scorers:
                raise ConfigError(f"scoring '{how}' has no scorers; name some: scoring.scorers={{mine: {{kind: exact}}}}")
            return scoring.Combined(how, {name: _scorer(chosen) for name, chosen in config.scorers.items()})


def _needs_target(config: schema.scoring.Scorer) -> bool:  # noqa: PLR0911 - one return per kind
    match config:
        case schema.scoring.PythonScoring() | schema.scoring.PluginScoring():
            return False
        case schema.scoring.MeasureScoring() | schema.scoring.JsonSchemaScoring():
            return False
        case schema.judging.JudgeScoring(reference=reference) | schema.judging.PairwiseScoring(reference=reference):
            return reference
        case schema.judging.PanelScoring(judges=judges):
            return any(map(_needs_target, judges.values()))
        case schema.scoring.RegexScoring(pattern=pattern):
            return pattern is None
        case schema.scoring.NotScoring(scorer=scorer):
            return _needs_target(scorer)
        case schema.scoring.AllScoring(scorers=parts) | schema.scoring.AnyScoring(scorers=parts):
            return any(map(_needs_target, parts.values()))
        case _:
            return True
