"""Estimate a training before it starts: steps, tokens, time and cost. Unknown is None, never zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from runner.finetune.data.rows import COUNTED_BY
from runner.finetune.jobs import ledger
from runner.finetune.jobs.hyper import LocalHyper

if TYPE_CHECKING:
    from runner.finetune.jobs.spec import Spec

_MEASURED = {"sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": (0.0024, 8.0)}
"""Seconds per token, and for the start, of SmolLM2-135M: LoRA on its top half, batches of 4, bf16, two cores, an idle machine."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The estimate of a training.

    Attributes:
        rows: training rows.
        valid_rows: validation rows.
        steps: optimiser steps; None if the provider decides.
        tokens: tokens read in all epochs, of questions and answers; None if the provider decides on the epochs.
        tokens_an_epoch: tokens of all rows, once.
        counted_by: how tokens were counted.
        seconds: approximate duration; None if nothing comparable was measured.
        seconds_by: the source of `seconds`.
        cost_usd: the cost; 0 on this machine, None if the price is unknown.
    """

    rows: int
    valid_rows: int
    steps: int | None
    tokens: int | None
    tokens_an_epoch: int
    counted_by: str
    seconds: float | None
    seconds_by: str | None
    cost_usd: float | None


def estimate(spec: Spec, lengths: list[int], *, usd_per_mtokens: float | None = None) -> Estimate:
    """Estimate a training.

    Args:
        spec: the training.
        lengths: the tokens of each training row, as `rows.tokens` counts them.
        usd_per_mtokens: the provider's price per million trained tokens; None: unknown.
    """
    once = sum(lengths)
    steps, tokens = work_of(spec, once)
    seconds, by = _time(spec, tokens) if spec.provider == "local" else (None, None)
    hosted = spec.provider in ("openai", "databricks")
    cost = (None if usd_per_mtokens is None or tokens is None else tokens * usd_per_mtokens / 1e6) if hosted else 0.0
    return Estimate(
        rows=spec.data.rows,
        valid_rows=spec.data.valid_rows,
        steps=steps,
        tokens=tokens,
        tokens_an_epoch=once,
        counted_by=COUNTED_BY,
        seconds=seconds,
        seconds_by=by,
        cost_usd=cost,
    )


def work_of(spec: Spec, once: int) -> tuple[int | None, int | None]:
    """Return steps and tokens in all, given the tokens of all rows, `once`; None where the provider decides."""
    hyper: dict[str, Any] = spec.hyper
    if spec.provider == "openai":
        epochs = hyper.get("n_epochs")
        batch = hyper.get("batch_size")
        steps = -(-spec.data.rows // batch) * epochs if epochs and batch else None
        return steps, once * epochs if epochs else None
    if spec.provider != "local":
        return None, None
    local = msgspec.convert(hyper, LocalHyper)
    steps = local.steps(spec.data.rows)
    return steps, round(once * steps / local.steps_an_epoch(spec.data.rows))


def _time(spec: Spec, tokens: int | None) -> tuple[float | None, str | None]:
    """Estimate seconds: from the latest training of this base on this machine, else from a measurement elsewhere."""
    if tokens is None:
        return None, None
    for job in reversed(ledger.listed()):
        if job.spec.provider != "local" or job.spec.base.identity != spec.base.identity or _backend(job.spec) != _backend(spec):
            continue
        result = job.result() or {}
        if isinstance(took := result.get("train_s"), int | float) and isinstance(read := result.get("tokens_read"), int) and read:
            return tokens * took / read, f"as {job.spec.job} took on this machine"
    if spec.base.identity in _MEASURED and _backend(spec) == "own":
        a_token, at_first = _MEASURED[spec.base.identity]
        return at_first + tokens * a_token, "as measured on two idle cores"
    return None, None


def _backend(spec: Spec) -> str:
    """Return the backend that trains; TRL takes up to twice as long. Jobs made before this setting existed do not name it."""
    return str(spec.hyper.get("backend", "own"))
