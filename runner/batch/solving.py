"""Have a solver answer a slot, and make a sample of what it asked and said."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from runner.adapters import ParseError, Repaired
from runner.batch.entries import fail, record, say
from runner.cache import Cache, request_key
from runner.errors import DataError, LMError, SolverError, is_of_row
from runner.solvers import StepLM, Steps, Unanswered
from runner.types import Completion, RowError, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.adapters import Adapter
    from runner.cache import Entry
    from runner.cost.account import Keep
    from runner.lm.lm import LM
    from runner.solvers import Bounds, Look, Solved, Solver
    from runner.types import Request, Row, Usage


class Solving:
    """Answer slots by a solver.

    Args:
        solver: answers a row.
        lm: the run's model.
        adapter: parses an answer that is text.
        seeded: returns the seed of a repeat, as a request parameter.
    """

    def __init__(self, solver: Solver, lm: LM, adapter: Adapter, seeded: Callable[[int], Mapping[str, Any]]) -> None:
        self._solver = solver
        self._lm = lm
        self._adapter = adapter
        self._seeded = seeded
        self._step_lms: dict[tuple[str | None, int], StepLM] = {}
        self._looks = True

    @property
    def is_code(self) -> bool:
        """True if code of the user answers: nobody knows before what it asks."""
        return self._solver.is_code

    @property
    def bounds(self) -> Bounds:
        """The bounds of one sample."""
        return self._solver.bounds

    def steps(
        self,
        repeat: int,
        named: Mapping[str, LM],
        *,
        keep: Keep | None = None,
        look: Callable[[Request], Entry | None] | None = None,
    ) -> Steps:
        """Return the steps of a sample, before the first."""
        lms = {name: self._step_lm(name, lm, repeat) for name, lm in named.items()} if named else None
        return Steps(self._step_lm(None, self._lm, repeat), self._solver.bounds, lms, keep=keep, look=look)

    async def known(self, slot: tuple[Row, int], answers: Cache | Look, named: Mapping[str, LM]) -> Sample | None:
        """Return the sample of a slot from known answers, before it is scored; None if one is missing.

        The user's code runs for nothing where an answer is missing. So after the first slot that a cache cannot answer nothing
        is looked up, unless it is the only source (``replay``).
        """
        if not self._looks:
            return None
        look: Look = functools.partial(_in, answers) if isinstance(answers, Cache) else answers
        try:
            return await self.play(slot, self.steps(slot[1], named, look=look))
        except Unanswered:
            self._looks = not (isinstance(answers, Cache) and answers.mode != "replay" and self._solver.is_code)
            return None

    async def play(self, slot: tuple[Row, int], steps: Steps) -> Sample:
        """Have the solver answer a slot. Scores are left to the caller. Raises what ends a run: the slot stays owed."""
        row, repeat = slot
        sample = Sample(id=row.id, repeat=repeat, target=row.target, model_requested=self._lm.model, cluster=row.cluster)
        failed: tuple[LMError | DataError | SolverError, str] | None = None
        solved = None
        try:
            solved = await steps.run(self._solver.solve, row)
        except DataError as error:
            failed = error, "data"
        except SolverError as error:
            failed = error, "solver"
        except LMError as error:
            if not is_of_row(error):
                raise
            failed = error, error.code
        self._enter(sample, steps)
        if failed is not None:
            fail(sample, *failed)
        elif solved is not None:
            self._answer(sample, solved)
        return sample

    def _enter(self, sample: Sample, steps: Steps) -> None:
        """Write the steps into the sample, and the sums over those of the main model; named models have accounts of their own."""
        usage: Usage | None = None
        for outcome in steps.outcomes:
            if isinstance(outcome, Completion):
                usage = record(sample, outcome, usage)
        if sample.request_key is None:
            sample.cost_usd = 0.0  # what failed attempts may have cost is held
        sample.steps = steps.record(self._lm.model, clean=self._solver.is_code)

    def _answer(self, sample: Sample, solved: Solved) -> None:
        """Write what the solver has answered, and have the adapter parse it unless the solver has."""
        sample.messages, sample.parsed = solved.messages, solved.parsed
        say(sample, solved.choices, logprobs=False)
        if solved.parsed is not None or sample.status == "refused":
            return
        try:
            found = self._adapter.parse(sample.output or "")
            sample.parsed, sample.repaired = (found.value, True) if isinstance(found, Repaired) else (found, False)
        except ParseError as error:
            if sample.status == "ok":
                sample.status = "invalid"
            sample.error = RowError("invalid", str(error))

    def _step_lm(self, name: str | None, lm: LM, repeat: int) -> StepLM:
        found = self._step_lms.get((name, repeat))
        if found is None:
            found = self._step_lms[name, repeat] = StepLM.of(lm, repeat, self._seeded(repeat) if name is None else {}, name)
        return found


def _in(store: Cache, request: Request) -> Entry | None:
    return store.get(request_key(request))
