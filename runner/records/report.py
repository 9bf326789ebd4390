"""The report of a run: one HTML page that needs no network, with the summary and the first samples."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.records.manifest import Summary
    from runner.types import Sample

SHOWN = 200
"""Samples on the page; all of them are in ``samples.jsonl``."""

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #8884; }
td { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def report(summary: Summary, samples: Iterable[Sample]) -> str:
    """The page. `samples` are those to show; everything from rows and models is escaped."""
    title = escape(f"{summary.name}: {summary.status}")
    measures = "".join(_row(line["measure"], [line["value"]]) for line in summary.table())
    problem = f"<p><strong>Problem:</strong> {escape(summary.problem)}</p>" if summary.problem else ""
    shown = "".join(_row(sample.id, _cells(sample)) for sample in samples)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("row", "status", "scores", "answer or error", "target"))
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>
<body>
<h1>{title}</h1>
{problem}
<table><caption>Summary</caption><tbody>{measures}</tbody></table>
<h2>Samples</h2>
<p>The first {SHOWN} at the most; all are in samples.jsonl.</p>
<table><thead><tr>{head}</tr></thead><tbody>{shown}</tbody></table>
</body>
</html>
"""


def _cells(sample: Sample) -> list[str]:
    scores = ", ".join(f"{name} {value:g}" for name, value in sample.scores.items())
    said = sample.output if sample.error is None else f"{sample.error.code}: {sample.error.message}"
    return [sample.status, scores, said or "", "" if sample.target is None else str(sample.target)]


def _row(head: str, cells: list[str]) -> str:
    return f'<tr><th scope="row">{escape(head)}</th>{"".join(f"<td>{escape(text)}</td>" for text in cells)}</tr>'
