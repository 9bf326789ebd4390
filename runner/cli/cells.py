"""Show a sweep to people and scripts: what is planned, how far it has come, and the table of its cells."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from runner.cli.options import shorten, tagged
from runner.wording import numbers
from runner.wording.printable import printable
from runner.wording.statuses import ADVICE_FOR_CELLS, JUDGES, PARTIAL, columns_of, standing

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from runner.records.sweep import SweepManifest
    from runner.sweeps.forecast import Outlook
    from runner.sweeps.run import SweepResult

PIPE_WIDTH = 200
"""Characters per line of a table on a pipe."""

SHOWN = 50
"""Cells in the table on a terminal; ``table.csv`` has all of them."""

SHOWN_TWINS = 5
"""Remarks on cells that share answers with another one; ``table.csv`` has all of them."""


def play(args: argparse.Namespace) -> int:
    """Play the sweep that the options describe, and print its result. Exit codes are those of `ostinato run`."""
    from runner.cli.display import Display
    from runner.sweeps.plan import Plan
    from runner.sweeps.run import sweep_to_end
    from runner.sweeps.sweep import Sweep

    more = ["sweep.fail_fast=true"] if args.fail_fast else []
    plan = Plan([*args.overrides, *more], config_name=args.config_name, config_dir=args.config_dir)
    display = Display(args.display)
    return report(sweep_to_end(Sweep.create(plan, tagged(args)), notify=display.say, watch=display.watch_sweep), args)


def report(result: SweepResult, args: argparse.Namespace) -> int:
    """Print the result of a sweep: one JSON object, or the table of its cells. Return the exit code."""
    manifest, folder = result.manifest, shorten(result.folder)
    if args.json:
        print(json.dumps(as_dict(str(result.folder), manifest, result.rows)))
    elif args.display != "none":
        print_cells(folder, manifest, result.rows)
    unfinished = [cell for cell in manifest.cells.values() if cell.status != "complete"]
    problems = [manifest.problem, *(cell.problem for cell in unfinished)]
    for problem in dict.fromkeys(problem for problem in problems if problem):
        print(f"error: {problem}", file=sys.stderr)
    if unfinished:
        print(
            f"{len(unfinished):,} of {len(manifest.cells):,} cells are not complete; resume with: ostinato resume {folder}",
            file=sys.stderr,
        )
    return result.exit_code


def as_dict(folder: str, manifest: SweepManifest, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what ``--json`` prints: for each cell its row in the table, its count as ``rows``, and the folder of its run."""
    cells = [(row, manifest.cells[row["cell"]]) for row in rows]
    return {
        "sweep": folder,
        "name": manifest.name,
        "status": manifest.status,
        "keys": manifest.keys,
        "primary": manifest.primary,
        "direction": manifest.direction,
        "problem": manifest.problem,
        "cells": [{**row, "rows": row["n"], "run": cell.run, "values": cell.values} for row, cell in cells],
    }


def print_cells(folder: str, manifest: SweepManifest, rows: Sequence[dict[str, Any]]) -> None:
    """Print a row per cell on stdout: the best first and in bold, those that are not significantly worse marked as tied."""
    from rich.table import Table

    done = sum(cell.status == "complete" for cell in manifest.cells.values())
    title = f"{manifest.name}: {manifest.status}, {done:,} of {len(manifest.cells):,} cells"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    columns = _columns(manifest, rows)
    for name, (_, justify) in columns.items():
        table.add_column(name, justify=justify, overflow="fold", no_wrap=justify == "right")
    for row in rows[:SHOWN]:
        table.add_row(*(cell(row) for cell, _ in columns.values()), style="bold" if row["best"] else None)
    _print(table, more=len(rows) - SHOWN, last=[*_remarks(manifest, rows), f"record  {folder}"])


def _remarks(manifest: SweepManifest, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what a reader of the table needs to know: cells that are not ranked, and samples that are not independent."""
    if any(row["standing"] == "partial" for row in rows):
        yield f"partial: {PARTIAL}; {ADVICE_FOR_CELLS}"
    if any(row.get("judge") for row in rows):
        yield JUDGES
    labels = {
        row["cell"]: ", ".join(f"{_heading(key, manifest.keys)}={_value(row[key])}" for key in manifest.keys) for row in rows
    }
    for row in [row for row in rows if row["same_as"]][:SHOWN_TWINS]:
        cell, twin = labels[row["cell"]], labels[row["same_as"]]
        yield f"not independent: {row['same_as.n']:,} samples of {cell} answer the same requests as {twin}"


def _columns(manifest: SweepManifest, rows: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return the columns of the table: what makes a cell of a row, and its alignment."""
    columns: dict[str, tuple[Any, Any]] = {}
    for key in manifest.keys:
        columns[_heading(key, manifest.keys)] = (lambda row, key=key: _value(row[key]), "left")
    last = ".stderr"
    scores = [name[len("score.") : -len(last)] for name in (rows[0] if rows else {}) if name.endswith(last)]
    for name in sorted(scores, key=lambda name: name != manifest.primary):
        columns[name] = (lambda row, name=name: _score(row, name), "right")
        if f"score.{name}.corrected" in rows[0]:
            columns[f"{name}, corrected"] = (lambda row, name=f"{name}.corrected": _score(row, name), "right")
    if common := max((row.get(f"score.{manifest.primary}.common.n") or 0 for row in rows), default=0):
        columns[f"on {common:,} rows in common"] = (
            lambda row: numbers.mean(row[f"score.{manifest.primary}.common"], unknown="-"),
            "right",
        )
    if manifest.primary:
        columns[""] = (standing, "left")
    columns["ok"] = (lambda row: "-" if row["n"] is None else f"{row['ok']:,}/{row['n']:,}", "right")
    for name, heading in columns_of(rows).items():
        columns[heading] = (lambda row, name=name: "-" if row.get(name) is None else f"{row[name]:,}", "right")
    columns["tokens"] = (_tokens, "right")
    if any(row.get("cost_usd") is not None for row in rows):
        columns["cost"] = (lambda row: "-" if row["cost_usd"] is None else numbers.dollars(row["cost_usd"]), "right")
    columns["p50"] = (lambda row: _seconds(row.get("latency_p50_s")), "right")
    columns["p95"] = (lambda row: _seconds(row.get("latency_p95_s")), "right")
    if any(row.get("first_token_p50_s") is not None for row in rows):
        columns["first token"] = (lambda row: _seconds(row.get("first_token_p50_s")), "right")
    if any(row["status"] != "complete" for row in rows):
        columns["status"] = (lambda row: row["status"], "left")
    return columns


def _heading(key: str, keys: Sequence[str]) -> str:
    """Return the last part of a key if no other key ends with it, else the whole key."""
    last = key.rpartition(".")[2]
    return key if sum(other.rpartition(".")[2] == last for other in keys) > 1 else last


def _value(value: Any) -> str:
    text = printable("null" if value is None else f"{value:g}" if isinstance(value, float) else str(value))
    return text if len(text) <= 40 else f"{text[:39]}…"  # noqa: PLR2004 - a table of several keys has room for it


def _score(row: dict[str, Any], name: str) -> str:
    from runner.analysis.flat import interval_in

    return numbers.mean(row.get(f"score.{name}"), interval_in(row, name), unknown="-")


def _tokens(row: dict[str, Any]) -> str:
    kinds = ("prompt_tokens", "completion_tokens", "cached_prompt_tokens", "cached_completion_tokens")
    return "-" if row["n"] is None else f"{sum(row[kind] for kind in kinds):,}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else numbers.seconds(seconds)


def forecast(args: argparse.Namespace) -> int:
    """Print what the sweep would do. Return 0, whether the budget covers it or not."""
    from runner.sweeps.forecast import outlook
    from runner.sweeps.plan import Plan

    plan = Plan(args.overrides, config_name=args.config_name, config_dir=args.config_dir)
    if not plan.is_grid:
        plan.take([()])  # one cell, with nothing varied, as an example
    found = outlook(plan)
    if args.json:
        print(json.dumps(found.to_dict()))
        return 0
    from runner.cli.display import print_table

    work = found.estimate
    facts = [("cells", f"{len(found.cells):,}, of which {found.total('recorded'):,} are recorded already")]
    if not plan.is_grid:
        facts = [("cells", f"as {plan.sweeper} proposes them; the numbers are those of one, with nothing varied")]
    facts += [("samples", f"{found.total('samples'):,}"), ("cache hits", f"{found.total('cache_hits'):,}")]
    if shared := found.total("shared"):
        facts.append(("shared", f"{shared:,} have the request of another cell"))
    facts += [("owed", f"{found.total('owed'):,}"), ("estimate", work.line()), ("budget", found.budget["verdict"])]
    if found.targets:
        facts.append(("targets", found.targets))
    _print_outlook(found)
    print_table(f"{found.name}: dry run of a sweep over {', '.join(found.keys)}", facts)
    return 0


def _print_outlook(found: Outlook) -> None:
    """Print a row per cell: its values, and what it would ask."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for key in found.keys:
        table.add_column(_heading(key, found.keys), overflow="fold")
    for name in ("samples", "cached", "owed", "cost at most"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in found.cells[:SHOWN]:
        cost = cell.estimate.cost_usd_max
        told = "recorded" if cell.recorded else f"{cell.cache_hits:,}"
        counts = (f"{cell.samples:,}", told, f"{cell.owed:,}", "-" if cost is None else numbers.dollars(cost))
        table.add_row(*(_value(cell.values.get(key)) for key in found.keys), *counts)
    _print(table, more=len(found.cells) - SHOWN)


def _print(table: Any, *, more: int = 0, last: Sequence[str] = ()) -> None:
    """Print a table on stdout, and below it the number of hidden rows and the last lines."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    with console.capture() as text:  # if the pipe is closed, rich would exit by itself
        console.print(table)
        if more > 0:
            console.print(f"and {more:,} more", style="dim")
        for line in last:
            console.print(line, soft_wrap=True)
    print("\n".join(line.rstrip() for line in text.get().splitlines()))
