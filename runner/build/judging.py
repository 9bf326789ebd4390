"""Build the scorers that ask a model for their verdict: judges, comparisons of two answers, panels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.adapters.templates import Template
from runner.build.against import other_answers
from runner.build.text import text_in
from runner.config.schema.judging import EmbeddingScoring, JudgeScoring, Judging, PairwiseScoring, PanelScoring
from runner.config.schema.model import LiteLLMModel, LocalModel, ServerModel
from runner.errors import ConfigError
from runner.scoring.embedding import Embedding
from runner.scoring.judge import Example, Form, Judge, Shown, When, check_labels
from runner.scoring.pairwise import FIRST, SECOND, TIE, Pairwise
from runner.scoring.panel import Panel

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.config.schema.model import Model
    from runner.scoring import Scorer
    from runner.scoring.targets import Asked

_BETTER = "Two answers to the same question follow. Which of them is better? Neither length nor place is a reason."


def judging(config: JudgeScoring | PairwiseScoring | PanelScoring | EmbeddingScoring, name: str, runs_dir: str) -> Scorer:
    """Build a scorer that asks.

    Args:
        config: the scorer.
        name: its name among several; an empty text if it stands alone.
        runs_dir: where the run is found that answers are compared with.

    Raises:
        ConfigError: it lacks a rubric or labels, or a file or run that it names cannot be read.
    """
    key = f"scoring.scorers.{name}" if name else "scoring"
    match config:
        case JudgeScoring():
            return _judge(config, name or "judge", key)
        case PairwiseScoring():
            return _pairwise(config, name or "pairwise", key, Path(runs_dir))
        case EmbeddingScoring():
            _check_embeds(config.model, f"{key}.model")
            return Embedding(name or "embedding")
        case PanelScoring():
            if not config.judges:
                raise ConfigError(f"{key}.judges is empty; name at least two: {key}.judges={{a: {{kind: judge, ...}}, b: ...}}")
            if several := next((judge for judge, one in config.judges.items() if one.criteria), None):
                raise ConfigError(f"{key}.judges.{several}.criteria: a judge of a panel gives one verdict; use several panels")
            own = name or "panel"
            judges = {judge: _judge(one, f"{own}.{judge}", f"{key}.judges.{judge}") for judge, one in config.judges.items()}
            return Panel(judges, config.combine)


def _check_embeds(model: Model, key: str) -> None:
    """Raise ConfigError for a model that is not reached in OpenAI's wire format."""
    if isinstance(model, LocalModel):
        raise ConfigError(f"{key}: the server that is started for a run has no embeddings; name one that has: kind=server")
    if isinstance(model, LiteLLMModel | ServerModel) and model.transport == "litellm":
        raise ConfigError(f"{key}.transport: embeddings are asked in OpenAI's wire format; use auto or direct")
    if isinstance(model, LiteLLMModel) and not model.name.startswith("openai/"):
        raise ConfigError(f"{key}: {model.name}: embeddings are asked in OpenAI's wire format only: kind=server, or openai/...")


def _judge(config: JudgeScoring, name: str, key: str) -> Judge:
    if not config.labels and config.scale is None:
        raise ConfigError(f"{key}.labels: a judge chooses from labels or a scale: {key}.labels={{correct: 1, incorrect: 0}}")
    check_labels(config.labels, f"{key}.labels")
    scale = None if config.scale is None else (config.scale[0], config.scale[1])
    form = Form(config.labels, scale, list(config.criteria), explain=config.explain, send=_sent(config))
    return Judge(
        _rubric(config, key),
        form,
        _shown(config, key),
        criteria=config.criteria,
        examples=[_example(config, number, key) for number in range(len(config.examples))],
        when=None if config.when is None else When(config.when.score, config.when.above, config.when.below),
        model=name,
    )


def _example(config: JudgeScoring, number: int, key: str) -> Example:
    """Return an example, whose verdict must be one that the judge may give."""
    one = config.examples[number]
    if config.scale is None and one.verdict not in config.labels:
        labels = ", ".join(config.labels)
        raise ConfigError(f"{key}.examples[{number}].verdict: {one.verdict!r} is not a label; they are {labels}")
    if config.scale is not None and (isinstance(one.verdict, str) or not config.scale[0] <= one.verdict <= config.scale[1]):
        raise ConfigError(f"{key}.examples[{number}].verdict: {one.verdict!r} is not a number of the scale {config.scale}")
    return Example(one.answer, one.verdict, one.question, one.reason)


def _pairwise(config: PairwiseScoring, name: str, key: str, runs_dir: Path) -> Pairwise:
    labels = {FIRST: 1.0, SECOND: 0.0, **({TIE: 0.5} if config.ties else {})}
    form = Form(labels, None, explain=config.explain, send=_sent(config))
    rubric = _rubric(config, key) if config.rubric or config.rubric_file else _BETTER
    return Pairwise(rubric, form, _shown(config, key), model=name, other=_other(config, key, runs_dir))


def _other(config: PairwiseScoring, key: str, runs_dir: Path) -> Callable[[Asked], str | None]:
    """Return what finds the answer that one is compared with: in a column, or in another run, whose answers are read once."""
    if (column := config.column) is not None:

        def in_column(asked: Asked) -> str | None:
            value = asked.row.fields.get(column)
            return None if value is None else str(value)

        return in_column
    if config.against is None:
        raise ConfigError(f"{key}.against: name the run to compare with (or {key}.column: the column that has the other answers)")
    answers = {(one.id, one.repeat): one.output for one in other_answers(config.against, f"{key}.against", runs_dir)}
    if not answers:
        raise ConfigError(f"{key}.against: {config.against} has no answers to compare with")
    return lambda asked: answers.get((asked.sample.id, asked.sample.repeat), answers.get((asked.sample.id, 0)))


def _rubric(config: Judging, key: str) -> str:
    if config.rubric_file is not None:
        return text_in(config.rubric_file, f"{key}.rubric_file").strip()
    if config.rubric is None:
        raise ConfigError(f"{key}.rubric: say what is judged, or name a file: {key}.rubric_file=rubric.txt")
    return config.rubric.strip()


def _shown(config: Judging, key: str) -> Shown:
    question: Callable[[Any], str] | None = None
    if config.question is not None:
        question = Template(config.question, where=f"{key}.question").render
    return Shown(question, config.reference, tuple(config.context), config.show_reasoning)


def _sent(config: Judging) -> Any:
    """Return how the form is sent: a model that continues text takes none."""
    return "none" if config.model.model_type == "text" else config.send_schema
