"""The sections of the page, in the order in which they are read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.reports.cells import cells_table, sweep_tiles
from runner.reports.differences import differences, flat, ranges
from runner.reports.judges import judges
from runner.reports.markup import Content, Html, join, section, table, tag, tile
from runner.reports.plots import charts_of, names_of_scores, spread_of, spreads
from runner.reports.text import brief
from runner.stats.stats import quantile
from runner.wording.numbers import bounds, count, dollars, interval, mean, score, seconds, share, when
from runner.wording.statuses import COUNTS, counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.reports.facts import Failure
    from runner.reports.gather import Part, Subject


_KINDS = {name: heading for name, heading in COUNTS.items() if name != "scored"}


def sections(subject: Subject) -> Iterator[Html]:
    """Yield the header, then everything else in ``<main>``."""
    yield tag("a", "Skip to the samples", href="#samples", class_="skip")
    yield _header(subject)
    sweep = subject.kind == "sweep"
    parts = [_sweep_summary, _sweep_scores] if sweep else [_summary, _scores, judges]
    first = [part(subject) for part in parts]
    yield tag("main", *first, _errors(subject), _samples(subject), _config(subject))
    yield tag("footer", f"Made by Ostinato from {subject.folder}. This file is complete: it loads nothing from the network.")


def _header(subject: Subject) -> Html:
    models = sorted({part.summary.model for part in subject.parts if part.summary})
    facts = [f"{len(models)} models" if len(models) > 1 else "".join(models), when(subject.started_at)]
    line = tag("p", " · ".join(fact for fact in facts if fact), class_="about")
    pill = tag("span", subject.status, class_=f"pill {subject.status}")
    title = tag("h1", subject.name, " ", pill)
    return tag("header", tag("p", "Ostinato", tag("span", f" {subject.kind}"), class_="brand"), title, line)


def _summary(subject: Subject) -> Html:
    part = subject.parts[0]
    problem = tag("p", tag("strong", "Problem: "), part.problem, class_="problem") if part.problem else ""
    if part.summary is None:
        text = "This run has no summary yet: it is being played, or was killed. Its results so far are below."
        return section("summary", "Summary", problem, tag("p", text), tile("samples so far", f"{part.facts.total:,}"))
    lines = [(line["measure"], line["value"]) for line in part.summary.table()]
    details = tag("details", tag("summary", "All figures"), table("Summary", ["measure", "value"], lines))
    return section("summary", "Summary", problem, tag("div", *_tiles(part), class_="tiles"), details)


def _tiles(part: Part) -> Iterator[Html]:
    summary = part.summary
    assert summary is not None
    left_out = f"; left out: {told}" if (told := counted(summary.unscored)) else ""
    for name, found in summary.scores.items():
        yield tile(name, score(found), f"{interval(found)}{left_out}", lead=True)
        if (one := summary.corrected.get(name)) is not None:
            yield tile(
                f"{name}, corrected", mean(one.mean), f"{bounds(one.interval)} (95 %), {count(one.labels, 'label')}", lead=True
            )
    for outcome in summary.expectations:
        yield tile(f"expected {outcome.expected}", outcome.verdict, str(outcome).partition(": ")[2])
    answered = summary.rows - summary.errors - summary.owed
    more = [f"{number:,} {name}" for field, name in _KINDS.items() if (number := getattr(summary, field))]
    yield tile("answered", f"{answered:,} of {summary.rows:,}", ", ".join(more) or "no errors")
    yield tile("cache hits", share(summary.cache_hits, summary.rows), count(summary.requests, "request"))
    tokens = summary.usage + summary.usage_cached
    yield tile("tokens", f"{tokens.total_tokens:,}", f"{tokens.prompt_tokens:,} in, {tokens.completion_tokens:,} out")
    cost = next(line["value"] for line in summary.table() if line["measure"] == "cost")
    saved = f"{dollars(summary.saved_usd)} saved by the cache" if summary.saved_usd else ""
    yield tile("cost", dollars(summary.cost_usd) if summary.cost_usd else cost.partition(" (")[0], saved)
    middle = part.facts.quantile(0.5)
    latency = f"latency p50 {seconds(middle)}, p95 {seconds(part.facts.quantile(0.95))}" if middle is not None else ""
    if first := part.facts.first_tokens:
        latency += f"; first token p50 {seconds(quantile(first, 0.5))}"
    yield tile("time", seconds(summary.wall_s), latency)


def _scores(subject: Subject) -> Html:
    charts = list(spreads(subject))
    return section("scores", "Scores", tag("div", *charts, class_="charts")) if charts else Html("")


# --- of a sweep


def _sweep_summary(subject: Subject) -> Html:
    problems = [f"#{part.number} {part.label}: {part.problem}" for part in subject.parts if part.problem]
    listed = tag("ul", *(tag("li", problem) for problem in problems)) if len(problems) > 1 else join(problems)
    problem = (
        tag("div", tag("strong", "Problem: " if len(problems) == 1 else "Problems:"), listed, class_="problem")
        if problems
        else ""
    )
    return section("summary", "Summary", tag("div", *sweep_tiles(subject), class_="tiles"), problem, cells_table(subject))


def _sweep_scores(subject: Subject) -> Html:
    """Return one group of charts per score; the script shows one at a time."""
    names = names_of_scores(subject)
    groups = [
        tag("div", *charts_of(subject, name), *spread_of(subject, name), class_="charts", data_score=name) for name in names
    ]
    if not any(groups):
        return Html("")
    options = [tag("option", name, value=name) for name in names]
    choice = (
        tag("label", tag("span", "Score"), tag("select", *options, id="choose-score"), class_="js choose")
        if len(names) > 1
        else ""
    )
    return section("scores", "Scores", choice, *groups)


# --- errors


def _errors(subject: Subject) -> Html:
    found: dict[str, Failure] = {}
    counts: dict[str, int] = {}
    for part in subject.parts:
        for code, failure in part.facts.failures.items():
            found.setdefault(code, failure)
            counts[code] = counts.get(code, 0) + failure.count
    if not found:
        return section("errors", "Errors", tag("p", "No row failed."))
    total = sum(part.facts.total for part in subject.parts)
    ordered = sorted(found, key=lambda code: (-counts[code], code))
    intro = "Rows that failed are recorded with their error. They are in no score, unless scoring.errors=zero counts them as 0."
    return section("errors", "Errors", tag("p", intro), *(_error(found[code], counts[code], total) for code in ordered))


def _error(failure: Failure, number: int, total: int) -> Html:
    head = tag("h3", tag("code", failure.code), tag("span", f"{count(number, 'row')} · {share(number, total)}", class_="more"))
    example = tag("figure", tag("figcaption", "for example ", tag("code", failure.example_id)), tag("pre", failure.example))
    name = f"Show the rows that failed with {failure.code}"
    button = tag("button", "Show these rows", type="button", data_error=failure.code, class_="js", aria_label=name)
    return tag("article", head, example, button, class_="failed-with")


# --- samples


def _samples(subject: Subject) -> Html:
    total = sum(part.facts.total for part in subject.parts)
    shown = sum(len(part.facts.shown) for part in subject.parts)
    if not total:
        return section("samples", "Samples", tag("p", "Nothing is recorded yet."))
    partly = ""
    if shown < total:
        of = ", with an equal part for each cell" if subject.kind == "sweep" else ""
        text = (
            f"This page holds {shown:,} of {total:,} samples{of}: errors first, then the others in the order in which they were "
            "finished. The numbers above are of all samples, which are in samples.jsonl."
        )
        partly = tag("p", text, class_="note")
    nothing = tag("noscript", tag("p", "The sample browser needs JavaScript; everything else on this page works without it."))
    return section("samples", "Samples", partly, nothing, tag("div", id="browser"))


# --- config


def _config(subject: Subject) -> Html:
    part = next((part for part in subject.parts if part.config), None)
    if part is None:
        return Html("")
    if subject.kind == "sweep":
        asked = _differences(subject)
    else:
        said = [tag("li", tag("code", override)) for override in part.overrides]
        asked = join(
            [
                tag("h3", "What this run set"),
                tag("ul", *said, class_="plain") if said else tag("p", "Nothing: it is the default."),
            ]
        )
    whole = _details(
        f"Whole config of cell #{part.number}" if subject.kind == "sweep" else "Whole config",
        tag("pre", json.dumps(part.config, indent=2, ensure_ascii=False)),
    )
    facts = {key: value for key, value in part.manifest.items() if key not in ("config", "format", "scorers")}
    lines = [(key, brief(value, 400)) for key, value in flat(facts).items()]
    return section(
        "config", "Config", asked, whole, _details("Where and how it ran", table("Manifest", ["fact", "value"], lines))
    )


def _differences(subject: Subject) -> Html:
    rows = [(key, value, ranges(numbers), len(numbers)) for key, value, numbers in differences(subject.parts)]
    if not rows:
        return tag("p", "The configs of the cells do not differ.")
    about = tag("p", "Every key whose value differs between cells; the rest of the config is the same.")
    return join([about, table("Differences between cells", ["key", "value", "in cells", "cells"], rows)])


def _details(title: str, *content: Content) -> Html:
    return tag("details", tag("summary", title), *content)
