"""Records in the files of others: Every Eval Ever, OpenAI's batches and fine-tuning, pairs of preferences, the Hub."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from runner.attachments import names_in
from runner.errors import ConfigError
from runner.wording.numbers import score_in_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.analysis.load import Run
    from runner.types import Sample, Score

SCHEMA = "0.2.1"
"""The version of ``eval.schema.json`` of Every Eval Ever (github.com/evaleval/every_eval_ever) that is written."""

_ANY = ("target", "parsed")
"""Columns whose values may be of several types."""

_SENT = ("temperature", "max_tokens", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")


def every_eval_ever(run: Run) -> dict[str, Any]:
    """Return a run as one record of Every Eval Ever: a result for each score. Raises ConfigError for a run without scores."""
    summary, manifest = run.summary, run.manifest
    scored = {name: score for name, score in summary.scores.items() if score.mean is not None} if summary else {}
    if summary is None or not scored:
        raise ConfigError(f"{run.name} has no scores, and Every Eval Ever is about scores: ostinato score {run.name} scoring=...")
    foreign = manifest.get("foreign") or {}
    made = str(int(time.time()))
    packages = (manifest.get("environment") or {}).get("packages") or {}
    library = {
        "name": foreign.get("tool") or "ostinato",
        "version": foreign.get("version") or packages.get("ostinato") or "unknown",
    }
    data = manifest.get("data") or {}
    developer, _, name = summary.model.rpartition("/")
    facts = {"run": run.name, "config_hash": manifest.get("config_hash"), "data_fingerprint": data.get("fingerprint")}
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{summary.name}/{summary.model}/{made}",
        "evaluation_timestamp": str(manifest.get("started_at") or ""),
        "retrieved_timestamp": made,
        "source_metadata": {
            "source_name": "ostinato",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
            "additional_details": {key: str(value) for key, value in facts.items() if value},
        },
        "eval_library": library,
        "model_info": {"name": name, "id": summary.model, **({"developer": developer} if developer else {})},
        "evaluation_results": [_result(run, name, score) for name, score in scored.items()],
    }


def _result(run: Run, name: str, score: Score) -> dict[str, Any]:
    scorer = (run.manifest.get("scorers") or {}).get(name) or {}
    uncertainty: dict[str, Any] = {"num_samples": score.n}
    if score.stderr is not None:
        uncertainty["standard_error"] = {"value": score.stderr, "method": "analytic"}
    if score.interval is not None:
        lower, upper = score.interval
        uncertainty["confidence_interval"] = {"lower": lower, "upper": upper, "confidence_level": 0.95}
    bounded = {} if scorer.get("measures") else {"score_type": "continuous", "min_score": 0, "max_score": 1}
    sampling = run.config.get("sampling") or {}
    arguments = {key: sampling[key] for key in ("temperature", "top_p", "max_tokens") if sampling.get(key) is not None}
    told = run.summary.stands_on() if run.summary else ""
    return {
        "evaluation_name": name,
        "source_data": {"dataset_name": str((run.manifest.get("data") or {}).get("name")), "source_type": "other"},
        "metric_config": {"lower_is_better": bool(scorer.get("measures")), **bounded},
        "score_details": {"score": score.mean, "details": {"stands_on": told}, "uncertainty": uncertainty},
        "generation_config": {"generation_args": arguments},
    }


def batch(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the requests of a run as OpenAI's Batch API takes them. A `custom_id` is the row's, with ``#1``, ... for repeats.

    Raises:
        ConfigError: a row has several requests, or attachments.
    """
    config = run.config
    model, sampling = config.get("model") or {}, config.get("sampling") or {}
    sent = {**(model.get("params") or {}), **{name: sampling[name] for name in _SENT if sampling.get(name) is not None}}
    name = str(model.get("name") or "").rpartition("/")[2]
    for sample in run.samples():
        if sample.steps is not None:
            raise ConfigError(f"row {sample.id!r} of {run.name} was asked in several steps: a batch has one request for each row")
        _refuse_attachments(run, sample)
        asked = {"prompt": sample.prompt} if sample.messages is None else {"messages": sample.messages}
        url = "/v1/completions" if sample.messages is None else "/v1/chat/completions"
        id_ = f"{sample.id}#{sample.repeat}" if sample.repeat else sample.id
        yield {"custom_id": id_, "method": "POST", "url": url, "body": {"model": name, **asked, **sent}}


def finetuning(run: Run) -> Iterator[dict[str, Any]]:
    """Yield a chat for each whole answer whose primary score is 1; for each whole answer if nothing is scored.

    Raises:
        ConfigError: a row has attachments.
    """
    for sample in run.samples():
        right = run.primary is None or sample.scores.get(run.primary) == 1
        if sample.status == "ok" and sample.output and sample.messages is not None and right:
            _refuse_attachments(run, sample)
            yield {"messages": [*sample.messages, _spoken(sample)]}


def preferences(run: Run, other: Run) -> Iterator[dict[str, Any]]:
    """Yield a pair for each question on which one run's answer is better than the other's in the primary score, as TRL reads it.

    Raises:
        ConfigError: the runs have no score in common, or a row has attachments.
    """
    shared = [name for name in (run.summary.scores if run.summary else ()) if other.summary and name in other.summary.scores]
    if not shared:
        raise ConfigError(f"{run.name} and {other.name} have no score in common; score both: ostinato score RUN scoring=...")
    theirs = {(sample.id, sample.repeat): sample for sample in other.samples()}
    for sample in run.samples():
        pair = [sample, theirs.get((sample.id, sample.repeat))]
        known = [one for one in pair if one is not None and one.output and shared[0] in one.scores]
        if len(known) < len(pair) or sample.messages is None or sample.messages != known[1].messages:
            continue
        worse, better = sorted(known, key=lambda one: one.scores[shared[0]])
        if worse.scores[shared[0]] < better.scores[shared[0]]:
            _refuse_attachments(run, sample)
            yield {"prompt": sample.messages, "chosen": [_spoken(better)], "rejected": [_spoken(worse)]}


def _refuse_attachments(run: Run, sample: Sample) -> None:
    if next(names_in(sample.messages), None) is not None:
        raise ConfigError(f"row {sample.id!r} of {run.name} has attachments, which are files of its record")


def _spoken(sample: Sample) -> dict[str, Any]:
    return {"role": "assistant", "content": sample.output}


def hub_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run with one type per column, as `datasets` needs it: what is no number and no truth value is text."""
    for row in run.table():
        yield {name: value if _is_plain(name, value) else _text(value) for name, value in row.items()}


def _is_plain(name: str, value: Any) -> bool:
    """Return whether a value is of the one type of its column; targets may be of any type."""
    return value is None or isinstance(value, str) or (isinstance(value, bool | int | float) and name not in _ANY)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def card(run: Run) -> str:
    """Return the card of a data set on the Hub: what was asked, by which model, with which scores."""
    summary, manifest = run.summary, run.manifest
    lines = ["---", "pretty_name: " + _text(run.name), "configs:", "  - config_name: default", "    data_files:"]
    lines += [
        "      - split: test",
        "        path: data/samples.jsonl",
        "tags: [evaluation, ostinato]",
        "---",
        "",
        f"# {run.name}",
        "",
    ]
    if summary is not None:
        lines += [f"Answers of `{summary.model}` to {summary.rows:,} samples.", ""]
        lines += ["| score | mean, 95 % interval |", "| --- | --- |"] if summary.scores else []
        lines += [f"| {name} | {score_in_full(score)} |" for name, score in summary.scores.items()]
        lines += ["", f"Scores stand on {summary.stands_on()}.", ""]
    data = manifest.get("data") or {}
    lines += [f"- data: {data.get('name')}, fingerprint `{data.get('fingerprint')}`", f"- begun: {manifest.get('started_at')}"]
    if foreign := manifest.get("foreign"):
        lines.append(f"- made by {foreign.get('tool')} {foreign.get('version') or ''}".rstrip())
    lines += ["", "A row per sample; columns that hold lists or objects are JSON text.", ""]
    return "\n".join(lines)


def lines_of(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield rows as JSON lines."""
    return (_text(row) + "\n" for row in rows)
