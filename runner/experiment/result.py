"""The result of a run: its summary and its manifest, made from what was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.batch.asker import names_of
from runner.build import packages
from runner.cache import KEY_VERSION
from runner.experiment.calibrated import calibration_of, corrected_scores, judge_remarks
from runner.records import Summary
from runner.records.environment import environment
from runner.stats import seeds
from runner.system.clock import now
from runner.types import Corrected, Score

if TYPE_CHECKING:
    from runner.batch.asker import Asker
    from runner.batch.tally import Tally
    from runner.config.schema import RunConfig
    from runner.experiment.expected import Expected
    from runner.experiment.named import NamedModels
    from runner.records import RunFolder
    from runner.records.outcome import Outcome
    from runner.records.summary import RunStatus


class Result:
    """Write what a run has come to, at any time and at its end.

    Args:
        config: the experiment.
        record: where it is written.
        asker: has asked, scored and timed.
        named: the models beside the main one.
        tally: what was counted.
        expected: what the run has to reach.
    """

    def __init__(
        self, config: RunConfig, record: RunFolder, asker: Asker, named: NamedModels, tally: Tally, expected: Expected
    ) -> None:
        self._config = config
        self._record = record
        self._asker = asker
        self._named = named
        self._tally = tally
        self._expected = expected
        self._calibration = calibration_of(config)

    def write(self, status: RunStatus, *, problem: str | None, wall_s: float, stopped_early: bool) -> Summary:
        """Write the summary and the manifest, and return the summary. Raises RecordError."""
        tally, scores = self._tally, self._tally.scores()
        if self._expected.early:
            scores = self._expected.early.intervals(scores)
        corrected = corrected_scores(self._record, scores, self._calibration)
        summary = Summary(
            run=str(self._record.path),
            name=self._config.name or self._record.path.parent.name,
            model=self._asker.lm.model,
            status=status,
            rows=tally.rows,
            ok=tally.status["ok"],
            errors=tally.status["error"],
            refused=tally.status["refused"],
            truncated=tally.status["truncated"],
            empty=tally.status["empty"],
            invalid=tally.status["invalid"],
            owed=tally.owed,
            cache_hits=tally.cache_hits,
            requests=tally.requests,
            scores=self._named_scores(scores) | self._tally.passes(),
            scoring_s={name: round(spent, 3) for name, spent in self._asker.clock.seconds.items()},
            usage=tally.usage,
            usage_cached=tally.usage_cached,
            cost_usd=tally.cost_usd,
            saved_usd=tally.saved_usd,
            wall_s=wall_s,
            model_s=round(tally.model_s, 3),
            tokens_per_s=round(tally.usage.completion_tokens / tally.model_s, 1) if tally.model_s and tally.requests else None,
            errors_by_code=dict(tally.errors),
            unrecorded=tally.unrecorded,
            unknown_endings=dict(tally.unknown_endings),
            held=tally.held,
            named=tally.named,
            cost_known_usd=tally.known_usd,
            priced=not tally.unpriced and (tally.known_usd > 0 or self._asker.lm.channel().price is not None),
            problem=problem,
            left_out={status: count for status, count in tally.unscored.items() if count} if self._asker.scorers else {},
            expectations=self._outcomes(scores, corrected),
            corrected=corrected,
            calibration=judge_remarks(self._record, self._calibration, corrected, self._scorer_facts()),
            stopped_early=stopped_early,
        )
        self._record.write_summary(summary)
        self._record.write_manifest(self._manifest(summary))
        return summary

    def _named_scores(self, scores: dict[str, Score]) -> dict[str, Score]:
        """Return the scores in the order of their scorers: those that are sure to be there, and those that results have."""
        names: list[str] = []
        for scorer_name, scorer in self._asker.scorers.items():
            known = names_of(scorer_name, scorer)
            found = [name for name in scores if name == scorer_name or name.startswith(f"{scorer_name}.")]
            names += known if known is not None else found or [scorer_name]
        return {name: scores.get(name, Score(None, None, 0)) for name in names}

    def _outcomes(self, scores: dict[str, Score], corrected: dict[str, Corrected]) -> list[Outcome]:
        if not self._expected:
            return []
        left_out = self._tally.unscored.total(), self._tally.status.total()
        return self._expected.outcomes(scores, self._record.samples(), self._tally.cost_usd, left_out, corrected)

    def _manifest(self, summary: Summary) -> dict[str, Any]:
        store = self._asker.lm.store
        previous = self._record.manifest()
        previous.pop("format")
        if not self._named:
            previous.pop("models", None)
        return {
            **previous,
            "status": summary.status,
            "ended_at": now(),
            "model": {**previous["model"], **self._asker.lm.recorded_form, **self._served()},
            **({"models": self._models_facts()} if self._named else {}),
            "scorers": self._scorer_facts(),
            "seeds": {
                "sampling": self._asker.seed,
                "data": self._config.data.seed if self._config.data.shuffle else None,
                "rule": seeds.recorded_rule(previous),
            },
            "cache": {
                "mode": self._config.cache.mode,
                "hits": summary.cache_hits,
                "folder": str(store.folder) if store else None,
                "key_version": KEY_VERSION,
            },
            "tokens": msgspec.to_builtins(summary.usage),
            "cost_usd": summary.cost_usd,
            "wall_s": summary.wall_s,
            "environment": previous.get("environment") or environment(also=packages(self._config)),
        }

    def _scorer_facts(self) -> dict[str, Any]:
        return {name: _facts_of(scorer) for name, scorer in self._asker.scorers.items()}

    def _models_facts(self) -> dict[str, dict[str, Any]]:
        """Return the facts about the named models, with the names that served them where judgements say it."""
        served = self._tally.judged_by
        return {
            name: {**facts, **({"served": sorted(served[name])} if name in served else {})}
            for name, facts in self._named.facts().items()
        }

    def _served(self) -> dict[str, list[str]]:
        return {"served": sorted(self._tally.models), "fingerprints": sorted(self._tally.fingerprints)}


def _facts_of(scorer: Any) -> dict[str, Any]:
    digest = getattr(scorer, "file_sha256", None)
    measures = {"measures": True} if scorer.measures else {}
    for key, attribute in (("judge", "identity"), ("distribution", "distribution")):
        if told := getattr(scorer, attribute, None):
            measures[key] = told
    return {"kind": type(scorer).__name__, **measures, **({"file_sha256": digest} if digest else {})}
