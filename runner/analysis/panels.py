"""How far the judges of a panel agree, over a whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.stats.agreement import agreement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.records import RunFolder


def told(run: RunFolder) -> Iterator[str]:
    """Yield a line for each panel of a run: raw agreement, and Krippendorff's alpha, or why there is none."""
    scorers = run.manifest().get("scorers") or {}
    panels = [name for name, facts in scorers.items() if (facts or {}).get("kind") == "Panel"]
    samples = [sample.scores for sample in run.samples()] if panels else []
    for panel in panels:
        first, last = f"{panel}.", f"{panel}.agreement"
        labels = [{name: one for name, one in scores.items() if name.startswith(first) and name != last} for scores in samples]
        found = agreement(labels)
        raw = "" if found.raw is None else f"{found.raw:.1%} of pairs alike, "
        alpha = f"no alpha: {found.problem}" if found.alpha is None else f"Krippendorff's alpha {found.alpha:.3f}"
        yield f"judges of {panel}: {raw}{alpha} ({found.units:,} answers, {found.raters} judges)"
